"""A curriculum in the trainer: which prompts a rollout has, on every rank and after resuming, and what is refused."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from rlfr_vlm.data.draws import draws_of
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import CurriculumOptions
from rlfr_vlm.trainer.curriculum_prompts import Curriculum, FirstRowSampler
from rlfr_vlm.trainer.rlfr_config import RLFRConfig

if TYPE_CHECKING:
    from datasets import Dataset

NAN = math.nan
ONE_PROCESS = SimpleNamespace(num_processes=1, process_index=0)


@pytest.fixture
def mixture(tmp_path) -> Callable[..., "Dataset"]:
    """Six rows of `a` and two of `b`, text only, with the given weights; without weights only those of `a`."""

    def build(*weights: float, question: str = "sum") -> "Dataset":
        names = []
        for name, count in (("a", 6), ("b", 2))[: max(len(weights), 1)]:
            rows = [{"prompt": f"{question} {name} {n}?", "answer": str(n)} for n in range(count)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
            names.append(str(tmp_path / f"{name}.jsonl"))
        named = [f"{name}:{weight}" for name, weight in zip(names, weights, strict=False)]
        return load_rows(named or names[0], columns=("prompt", "answer"))

    return build


def curriculum(dataset: "Dataset", seed: int = 0, group_size: int = 2) -> Curriculum:
    options = CurriculumOptions(curriculum_band=[0.2, 0.8], curriculum_floor=0.25)
    return Curriculum(options, dataset, group_size=group_size, threshold=0.5, seed=seed)


def prompts(chosen: Curriculum, count: int) -> list[int]:
    """Row numbers of a new rollout of `count` prompts."""
    rows = chosen.rows_of_rollout(count * chosen.group_size, ONE_PROCESS)
    assert [row["row_number"] for row in rows[::2]] == [row["row_number"] for row in rows[1::2]]
    return [row["row_number"] for row in rows[::2]]


def rollouts(chosen: Curriculum, right: set[int], number: int, count: int = 3) -> Iterator[list[int]]:
    """Rollouts in which the two responses to a prompt are both right, if it is one of `right`, or right and wrong."""
    for _ in range(number):
        rows = prompts(chosen, count)
        yield rows
        chosen.record(torch.tensor([value for row in rows for value in (1.0, float(row in right))]))


def test_prompts_follow_from_seed_and_outcomes(mixture):
    dataset, right = mixture(), {0, 1, 2}
    first = list(rollouts(curriculum(dataset), right, 20))
    assert first == list(rollouts(curriculum(dataset), right, 20))
    assert first != list(rollouts(curriculum(dataset), {3, 4, 5}, 20))
    assert first != list(rollouts(curriculum(dataset, seed=1), right, 20))
    drawn = [row for rollout in first for row in rollout]
    counts = [drawn.count(row) for row in range(6)]
    assert min(counts[3:]) > max(counts[:3]) and min(counts) > 0  # less often, and never not at all


def test_no_prompt_is_twice_in_a_rollout_or_its_refills(mixture):
    chosen = curriculum(mixture())
    for _ in range(5):
        assert sorted([*prompts(chosen, 3), *chosen.refills.take(2), *chosen.refills.take(1)]) == [0, 1, 2, 3, 4, 5]
    again = chosen.refills.take(4)  # all were used: any of them again, each once
    assert len(set(again)) == 4


def test_a_source_that_is_too_small_repeats_when_all_its_rows_were_drawn(mixture):
    """Weights 1 and 3: the two rows of b fill three of four prompts."""
    chosen = curriculum(mixture(0.25, 0.75))
    for _ in range(4):
        of_b = [row for row in prompts(chosen, 4) if row >= 6]
        assert len(of_b) == 3 and set(of_b) == {6, 7}


def test_ranks_have_the_parts_of_one_rollout(mixture):
    """Three prompts with two responses on two ranks: the second group is on both."""
    dataset = mixture()
    whole = [row["row_number"] for row in curriculum(dataset).rows_of_rollout(6, ONE_PROCESS)]
    parts = []
    for rank in (0, 1):
        accelerator = SimpleNamespace(num_processes=2, process_index=rank)
        parts += [row["row_number"] for row in curriculum(dataset).rows_of_rollout(3, accelerator)]
    assert parts == whole and len(set(whole)) == 3


def test_the_weights_of_a_mixture_decide_about_the_sources(mixture):
    """The sources come as without a curriculum, whatever the outcomes; refills have shares of their own."""
    dataset = mixture(0.25, 0.75)
    chosen = curriculum(dataset)
    drawn = [row for rollout in rollouts(chosen, {6, 7}, 3) for row in rollout]
    assert [row >= 6 for row in drawn] == [row >= 6 for row in draws_of(dataset).take(9)]
    assert [row >= 6 for row in chosen.refills.take(4)] == [row >= 6 for row in draws_of(dataset).take(4)]


def test_outcomes_are_counted_by_prompt_and_measured(mixture):
    """Right is above the threshold of 0.5: 2 of 2, 1 of 2, 0 of 1, and none decided; 1 of 3 tried ones is in the band.

    The next draw has all six prompts, three with rates 1, 0.5 and 0.
    """
    chosen = curriculum(mixture())
    rows = prompts(chosen, 4)
    metrics = chosen.record(torch.tensor([1.0, 0.7, 0.6, 0.5, NAN, 0.5, NAN, NAN]))
    assert metrics == {"curriculum/seen": 4 / 6, "curriculum/in_band": 1 / 4}
    rates = chosen.rates.estimates()[rows]
    assert rates[:3].tolist() == [1, 0.5, 0] and math.isnan(rates[3])
    prompts(chosen, 6)
    again = chosen.record(torch.tensor([1.0, 0.0] * 6))
    assert again["curriculum/rate_of_drawn"] == 0.5 and again["curriculum/seen"] == 1


def test_a_resumed_curriculum_goes_on(mixture):
    dataset, right = mixture(0.75, 0.25), {0, 1}
    whole, first, second = curriculum(dataset), curriculum(dataset), curriculum(dataset)
    expected = list(rollouts(whole, right, 6))
    assert list(rollouts(first, right, 3)) == expected[:3]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert list(rollouts(second, right, 3)) == expected[3:]
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("changed", ["text", "rows"])
def test_counts_of_other_data_are_refused(mixture, changed):
    chosen = curriculum(mixture())
    list(rollouts(chosen, set(), 1))
    other = mixture(question="add") if changed == "text" else mixture().select(range(5))
    with pytest.raises(UserError, match=r"success rates of 3 prompts by row, .* \(\d in use\) are not those"):
        curriculum(other).load_state_dict(chosen.state_dict())


def write_start(path: Path, dataset: "Dataset", verdicts: dict[int, str], **changes: object) -> None:
    """Write a file as `rlfr sample` does: r, w and u are right, wrong and undecided responses to a row."""
    names = {"r": "right", "w": "wrong", "u": "undecided"}
    rows = [
        {"prompt": dataset.format["format_kwargs"]["transform"].parse(number)["prompt"], "images": [],
         "verdict": names[letter], "truncated": False, "reason": "", "prompt_index": number, "sample_index": sample}
        | changes
        for number, letters in verdicts.items() for sample, letter in enumerate(letters)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_sampled_responses_are_a_first_try(mixture, tmp_path, capsys):
    """Rows 1 to 5 are in use, at places 0 to 4: rates 1 / 2, 0 and 2 / 3, and row 4 has no decided response."""
    dataset = mixture()
    write_start(tmp_path / "samples.jsonl", dataset, {0: "rr", 1: "rw", 2: "ww", 3: "rurw", 4: "uu"})
    chosen = curriculum(dataset.select(range(1, 6)))
    chosen.start_from(tmp_path / "samples.jsonl")
    assert chosen.rates.estimates()[:3].tolist() == [1 / 2, 0, 2 / 3]
    assert chosen.rates.weights(0.2, 0.8, 0.25).tolist() == [1, 0.25, 1, 0.25, 1]
    assert "has responses to 4 of 5 prompts; the success rates of 2 lie in 0.2 to 0.8" in capsys.readouterr().out
    state = curriculum(dataset.select(range(1, 6))).state_dict()  # a checkpoint replaces them
    chosen.load_state_dict(state)
    assert chosen.state_dict() == state


@pytest.mark.parametrize(
    ("verdicts", "changes", "words"),
    [
        ({2: "rw"}, {"prompt": "other"}, "another prompt than that of row 2"),
        ({2: "rw"}, {"verdict": None, "prompt_index": "x"}, "Line 1 of .* is no row of `rlfr sample`"),
        ({2: "rw"}, {"prompt_index": 9}, "no response to a prompt of the data set"),
        (None, {}, "cannot be read: .*No such file"),
    ],
)
def test_a_start_that_is_of_other_data_is_refused(mixture, tmp_path, verdicts, changes, words):
    if verdicts is not None:
        write_start(tmp_path / "samples.jsonl", mixture(), verdicts, **changes)
    with pytest.raises(UserError, match=words):
        curriculum(mixture()).start_from(tmp_path / "samples.jsonl")


def test_four_steps_are_two_and_two_more(make_trainer, make_policy, mixture, tmp_path):
    """Two prompts with four responses a rollout, one update each; groups without a signal are replaced."""

    def reward(completions: list, answer: list[str], **kwargs: object) -> list[float]:
        """All responses to the first rows of both sources are right."""
        responses = zip(completions, answer, strict=True)
        return [float(gold == "0" or len(response[0]["content"]) % 2 == 0) for response, gold in responses]

    def train(steps: int, folder: str, resume: str | None = None):
        trainer = make_trainer(
            make_policy(), dataset=mixture(0.75, 0.25), reward=reward, max_steps=steps,
            output_dir=str(tmp_path / folder), save_strategy="steps", save_steps=2, per_device_train_batch_size=8,
            steps_per_generation=1, group_filter="mixed", refill_rounds=1, curriculum_band=[0.2, 0.8],
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole, _ = train(4, "whole"), train(2, "parts")
    second = train(4, "parts", str(tmp_path / "parts" / "checkpoint-2"))
    for (name, weight), other in zip(whole.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(weight, other), name
    assert whole.curriculum.state_dict() == second.curriculum.state_dict()
    assert whole.curriculum.sources.position == 8 and whole.curriculum.refills.position > 0
    assert isinstance(whole._sampler, FirstRowSampler)
    losses = [[entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (whole, second)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    lines = [(tmp_path / name / "rollouts" / "rank0.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert lines[0] == lines[1]


def test_without_a_band_the_order_is_trls(make_trainer, make_policy):
    from trl.trainer.utils import RepeatSampler

    trainer = make_trainer(make_policy())
    assert trainer.curriculum is None and type(trainer._get_train_sampler()) is RepeatSampler


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"curriculum_band": [0.5]}, r"curriculum_band is \[0.5\]; it is two success rates"),
        ({"curriculum_band": [0.8, 0.2]}, r"\[0.8, 0.2\]; .* the lower one first"),
        ({"curriculum_band": [0.2, 1.5]}, r"\[0.2, 1.5\]; .* between 0 and 1"),
        ({"curriculum_band": [0, NAN]}, r"\[0, nan\]; .* between 0 and 1"),
        ({"curriculum_band": [0, 1]}, "holds every prompt"),
        ({"curriculum_start": "samples.jsonl"}, "samples.jsonl, but curriculum_band is unset"),
        ({"curriculum_band": [0.2, 0.8], "method": "rlfr+rlpr"}, "'rlfr.rlpr' is a probability"),
        ({"curriculum_band": [0.2, 0.8], "shuffle_dataset": False}, "shuffle_dataset is false"),
        ({"curriculum_floor": 0.0}, "curriculum_floor is 0.0; it must be between"),
        ({"curriculum_decay": 1.5}, "curriculum_decay is 1.5; it must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments, settings, words):
    with pytest.raises(UserError, match=words):
        RLFRConfig(**arguments(**({"method": "rlvr"} | settings)))
