"""A mixture in the trainer: the order of prompts, metrics of each source, refills, held-out rows, resuming."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from rlfr_vlm.data.draws import draws_of
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.options import GroupOptions
from rlfr_vlm.trainer.groups import GroupSelector
from rlfr_vlm.trainer.held_out import describe_evaluation, evaluate_held_out
from rlfr_vlm.trainer.mixture_sampler import MixtureSampler, source_metrics
from rlfr_vlm.trainer.resume import skip_epochs

if TYPE_CHECKING:
    from datasets import Dataset

NAN = math.nan


@pytest.fixture
def mixture(tmp_path) -> Callable[..., "Dataset"]:
    """Six rows of `a` and two of `b`, text only, with the given weights."""

    def build(*weights: float) -> "Dataset":
        names = []
        for name, count in (("a", 6), ("b", 2)):
            rows = [{"prompt": f"sum {name} {n}?", "answer": str(n)} for n in range(count)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
            names.append(str(tmp_path / f"{name}.jsonl"))
        suffixes = [f":{weight}" for weight in weights] or ["", ""]
        return load_rows(
            [name + suffix for name, suffix in zip(names, suffixes, strict=True)], columns=("prompt", "answer")
        )

    return build


def sampler(dataset: "Dataset", seed: int = 0) -> MixtureSampler:
    """Rollouts of 3 prompts, twice, with 2 responses: 6 of 8 prompts make an epoch."""
    from trl.trainer.utils import RepeatSampler

    return MixtureSampler(RepeatSampler(dataset, 2, 3, 2, seed=seed), dataset, draws_of(dataset, seed))


def test_prompts_are_repeated_as_trl_does_and_drawn_by_weight(mixture):
    """Weights 1 and 2: b, a, b in each rollout, as 2 / 1 > 1 / 1, then 1 / 1 = 2 / 2 and b is at its share."""
    drawn = list(sampler(mixture(1, 2)))
    first, second = drawn[:12], drawn[12:]
    assert len(drawn) == len(sampler(mixture(1, 2))) == 24
    for rollout in (first, second):
        assert rollout[:6] == rollout[6:] and rollout[0::2] == rollout[1::2]
        assert [place >= 6 for place in rollout[0:6:2]] == [True, False, True]


def test_epochs_go_on_in_the_passes_of_the_sources(mixture):
    """By rows, 18 prompts are 13 or 14 of a, and 4 or 5 of b: no row of a source is ahead of another by 2."""
    whole = sampler(mixture())
    epochs = [list(whole)[0::2] for _ in range(3)]
    prompts = [place for epoch in epochs for start in (0, 6) for place in epoch[start : start + 3]]
    counts = [prompts.count(place) for place in range(8)]
    assert sum(counts) == 18 and max(counts[:6]) - min(counts[:6]) <= 1 and abs(counts[6] - counts[7]) <= 1
    later = sampler(mixture())
    skip_epochs(later, 2)
    assert list(later)[0::2] == epochs[2] != epochs[0]


def test_refills_have_the_shares_and_go_on_from_a_checkpoint(mixture):
    def selector() -> GroupSelector:
        dataset = mixture(1, 3)
        return GroupSelector(GroupOptions(), 2, 0.5, len(dataset), 0, draws_of(dataset, 1))

    one = selector()
    assert (
        sum(place >= 6 for place in one.new_prompts(4, 0, 2))
        + sum(place >= 6 for place in selector().new_prompts(4, 1, 2))
        == 6
    )  # of 8
    other = selector()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert one.state_dict()["position"] == 8 and other.new_prompts(5, 0, 1) == one.new_prompts(5, 0, 1)


def test_metrics_of_each_source():
    """Of a: 1, 0, 0.5 and an undecided one; of b: two undecided ones; of c: none."""
    outcome, sources = torch.tensor([1.0, NAN, 0.0, 0.5, NAN, NAN]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert source_metrics(outcome, sources, ["a", "b", "c"]) == {
        "source/a/outcome": 0.5, "source/a/undecided": 0.25, "source/a/rows": 4.0,
        "source/b/undecided": 1.0, "source/b/rows": 2.0, "source/c/rows": 0.0,
    }  # fmt: skip


def test_held_out_accuracy_of_each_source(mixture):
    """Two ranks, three rows at a time: a has right, right, right, wrong, wrong, undecided; b wrong, right."""
    dataset, outcome = mixture(), [1.0, 1.0, 1.0, 0.0, 0.0, NAN, 0.0, 1.0]
    asked: list[list[int]] = []

    def grade(rows: Sequence[dict]) -> torch.Tensor:
        own = [row["row_number"] for row in rows]
        asked.append(own)
        return torch.tensor([outcome[number] for number in own + [number + 4 for number in own]])

    metrics = evaluate_held_out(
        dataset, grade, lambda greedy: nullcontext(),
        accelerator=SimpleNamespace(num_processes=2, process_index=0), batch_size=3, threshold=0.5,
    )  # fmt: skip
    assert asked == [[0, 1, 2], [3]] * 2
    assert (metrics["eval_greedy"], metrics["eval_greedy_undecided"]) == (4 / 7, 1 / 8)
    assert (metrics["eval_source/a/greedy"], metrics["eval_source/a/greedy_undecided"]) == (3 / 5, 1 / 6)
    assert (metrics["eval_source/b/sampled"], metrics["eval_source/b/sampled_undecided"]) == (1 / 2, 0)
    assert (metrics["eval_source/a/rows"], metrics["eval_source/b/rows"]) == (6, 2)
    assert describe_evaluation(metrics).endswith("; greedy by source: a 0.600 (n = 6), b 0.500 (n = 2)")


def values(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_four_steps_are_two_and_two_more(make_trainer, make_policy, mixture, tmp_path):
    """Two rollouts of two prompts with four responses. By hand, 3 to 1: a a a b, as 3 / 3 = 1 / 1 at the third.

    All responses to b are wrong, so that its group is replaced by another prompt's.
    """

    def reward(completions: list, mixture_source: list[str], **kwargs: object) -> list[float]:
        responses = zip(completions, mixture_source, strict=True)
        return [float(source == "a" and len(response[0]["content"]) % 2 == 0) for response, source in responses]

    def train(steps: int, folder: str, resume: str | None = None):
        trainer = make_trainer(
            make_policy(), dataset=mixture(0.75, 0.25), reward=reward, max_steps=steps,
            output_dir=str(tmp_path / folder), save_strategy="steps", save_steps=2,
            group_filter="mixed", refill_rounds=1,
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole, _ = train(4, "whole"), train(2, "parts")
    second = train(4, "parts", str(tmp_path / "parts" / "checkpoint-2"))
    for (name, weight), other in zip(whole.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(weight, other), name
    assert whole.selector.stream.position == second.selector.stream.position > 0
    lines = (tmp_path / "whole" / "rollouts" / "rank0.jsonl").read_text().splitlines()
    parts = (tmp_path / "parts" / "rollouts" / "rank0.jsonl").read_text().splitlines()
    assert lines == parts and {json.loads(line)["source"] for line in lines} == {"a", "b"}


def test_a_run_tells_its_sources_apart(make_trainer, make_policy, mixture):
    """The second of two rollouts has one prompt of each source, with four responses each."""
    trainer = make_trainer(make_policy(), dataset=mixture(0.75, 0.25), max_steps=4)
    trainer.train()
    assert values(trainer, "source/a/rows") == [8, 4] and values(trainer, "source/b/rows") == [0, 4]
    both = zip(values(trainer, "source/a/outcome")[1:], values(trainer, "source/b/outcome"), strict=True)
    assert [(a + b) / 2 for a, b in both] == values(trainer, "outcome/mean")[1:]
    assert values(trainer, "source/a/undecided") == [0, 0] and values(trainer, "source/b/undecided") == [0]
