"""The rollout log: groups, per-token values, size limit, no duplicates after a resume."""

import json
import sys

import pytest
import torch
from PIL import Image
from tqdm import tqdm

from rlfr_vlm.trainer.records.rollout_log import RolloutLog, pack, unpack
from rlfr_vlm.trainer.rollout import shape


def lines(folder, rank=0):
    return [json.loads(line) for line in (folder / "rollouts" / f"rank{rank}.jsonl").read_text().splitlines()]


def test_numbers_per_token_survive_packing():
    assert unpack(pack([1.0, -0.25, 1e9, -1e9])) == [1.0, -0.25, 65504.0, -65504.0]
    assert unpack(pack(torch.tensor([0.1])))[0] == pytest.approx(0.1, rel=1e-3)


def group(text):
    return {"prompt": "p", "responses": [{"row": row, "text": text} for row in (0, 1)]}


def test_groups_wait_for_their_entropies(tmp_path):
    log = RolloutLog(tmp_path, 0, groups=1, megabytes=1)
    marks = log.take([group("a"), {"responses": []}], step=3, rows=4)
    assert marks.tolist() == [0, 1, -1, -1] and not (tmp_path / "rollouts").exists()
    entropies, mask = torch.tensor([[0.5, 9.0], [1.5, 2.5]]), torch.tensor([[1, 0], [1, 1]])
    log.add_entropies(torch.tensor([1, -1]), entropies[[1, 0]], mask[[1, 0]])
    log.add_entropies(torch.tensor([0, 1]), entropies, mask)  # a second update of row 1 does not count
    written = lines(tmp_path)
    assert len(written) == 1 and written[0]["step"] == 3
    assert [unpack(response["entropy"]) for response in written[0]["responses"]] == [[0.5], [1.5, 2.5]]


def test_a_full_file_is_thinned_evenly(tmp_path):
    log = RolloutLog(tmp_path, 0, groups=1, megabytes=0.05)  # 50 kB, a rollout has 2 kB
    for step in range(100):
        log.take([group("x" * 1000)], step, rows=2)
        log.flush()
    rollouts = [line["rollout"] for line in lines(tmp_path)]
    assert (tmp_path / "rollouts" / "rank0.jsonl").stat().st_size < 50_000
    assert rollouts == list(range(0, 100, log.stride)) and log.stride == 8
    again = RolloutLog(tmp_path, 0, groups=1, megabytes=0.05)
    again.begin(step=50)  # resumed from step 50: later rollouts are repeated
    assert [line["rollout"] for line in lines(tmp_path)] == list(range(0, 50, 8))
    assert again.stride == 8 and again.rollouts == 49


def test_thumbnails_are_kept_once_and_only_with_their_groups(tmp_path):
    log = RolloutLog(tmp_path, 0, groups=2, megabytes=0.02)
    pictures = [Image.new("RGB", (28, 28), (shade, 0, 0)) for shade in range(40)]
    log.take([group("a") | {"pictures": [pictures[0], pictures[1]]}, group("b") | {"pictures": [pictures[0]]}], 0, 2)
    log.flush()
    first, second = lines(tmp_path)
    folder = tmp_path / "rollouts"
    assert first["thumbnails"][0] == second["thumbnails"][0] and "pictures" not in first
    assert len(list((folder / "rank0-thumbnails").iterdir())) == 2
    assert Image.open(folder / first["thumbnails"][1]).getpixel((3, 3)) == (1, 0, 0)
    for step in range(1, 40):
        log.take([group("x" * 1000) | {"pictures": [pictures[step]]}], step, 2)
        log.flush()
    assert log.stride > 1
    used = {name for line in lines(tmp_path) for name in line["thumbnails"]}
    assert used and {f"rank0-thumbnails/{path.name}" for path in (folder / "rank0-thumbnails").iterdir()} == used


def test_a_full_disk_ends_the_log_not_the_run(tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlfr_vlm.trainer.records.rollout_log.save_thumbnail", full)
    log = RolloutLog(tmp_path, 0, groups=1, megabytes=1)
    log.take([group("a") | {"pictures": [Image.new("RGB", (8, 8))]}], 0, 2)
    log.take([group("b")], 1, 2)
    assert capsys.readouterr().err.count("rollouts are not written any more: No space left") == 1 and log.groups == 0


def test_its_message_stands_on_a_line_of_its_own_above_the_progress_bar(tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlfr_vlm.trainer.records.rollout_log.save_thumbnail", full)
    with tqdm(total=10, desc="rlvr", file=sys.stderr):
        RolloutLog(tmp_path, 0, groups=1, megabytes=1).take(
            [group("a") | {"pictures": [Image.new("RGB", (8, 8))]}], 0, 2
        )
    # tqdm returns to the start of the line after it has cleared its bar
    before = capsys.readouterr().err.partition("rollouts are not written any more")[0]
    assert before.endswith("\r") and "rlvr" in before


def test_a_truncated_line_is_dropped_at_resume(tmp_path):
    log = RolloutLog(tmp_path, 0, groups=1, megabytes=1)
    log.take([group("a")], 0, rows=2)
    log.flush()
    with log.path.open("a") as stream:
        stream.write('{"step": 1, "resp')
    log.begin(step=5)
    assert [line["step"] for line in lines(tmp_path)] == [0]


def test_the_log_of_a_run_matches_its_training_data(make_trainer, make_policy, processor, tmp_path, monkeypatch):
    trainer = make_trainer(make_policy(), flow="new", max_steps=4, rollout_log_groups=1)
    seen = []
    monkeypatch.setattr(
        "rlfr_vlm.trainer.rlfr_trainer.shape",
        lambda *args, **kwargs: seen.append(kwargs["flow"].tokens) or shape(*args, **kwargs),
    )
    trainer.train()
    written = lines(tmp_path / "run")
    assert [line["step"] for line in written] == [0, 2]  # two updates a rollout
    for line, flow in zip(written, seen, strict=True):
        assert line["prompt"][0]["content"].startswith("<image>") and isinstance(line["row_number"], int)
        assert [(tmp_path / "run" / "rollouts" / name).exists() for name in line["thumbnails"]] == [True]
        assert len(line["responses"]) == 4
        outcomes = [response["rewards"]["last_digit_reward"] for response in line["responses"]]
        mean = sum(outcomes) / 4
        for row, response in enumerate(line["responses"]):
            ids = response["token_ids"]
            assert response["text"] == processor.tokenizer.decode(ids, skip_special_tokens=True)
            assert response["finish"] == ("stop" if ids[-1] == processor.tokenizer.eos_token_id else "length")
            assert (response["advantage"] > 0) == (response["rewards"]["last_digit_reward"] > mean)
            assert unpack(response["flow_reward"]) == pytest.approx(flow[row, : len(ids)].tolist(), abs=1e-4)
            assert len(unpack(response["entropy"])) == len(unpack(response["token_advantage"])) == len(ids)
            assert [len(unpack(layer)) for layer in response["deviations"]] == [len(ids)] * len(line["layers"])
            assert max(unpack(response["entropy"])) <= 5.68  # the logarithm of 290 tokens
