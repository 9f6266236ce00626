"""Rows that are written: verdicts, images, values that JSON lacks."""

import base64
import hashlib
import io
import json
from datetime import date

import pytest
from PIL import Image

from rlfr_vlm.data.images import ImageRules, open_image
from rlfr_vlm.data.stored_media import line_of, stored_images, stored_media
from rlfr_vlm.grading import GradingPool, PoolSettings
from rlfr_vlm.sampling.engine import Sample, seed_of
from rlfr_vlm.sampling.prompts import Draw
from rlfr_vlm.sampling.rows import grade_samples, result_row


def draw(**columns):
    return Draw({"prompt": [{"role": "user", "content": "?"}], "images": [], "answer": "7"} | columns, 4, 1)


def sample(text, **changes):
    return Sample(**({"text": text, "ids": [5, 2], "logp": -1.5, "truncated": False} | changes))


@pytest.mark.parametrize(
    ("response", "no_answer_is_wrong", "verdict", "reason"),
    [
        (sample("\\boxed{7}"), True, "right", ""),
        (sample("\\boxed{8}"), True, "wrong", ""),
        (sample("well"), True, "wrong", "no answer"),
        (sample("well"), False, "undecided", "no answer"),
        (sample("", fault="HTTP 400"), True, "undecided", "no response: HTTP 400"),  # nothing that could be wrong
    ],
)
def test_verdicts_have_three_states(response, no_answer_is_wrong, verdict, reason):
    [graded] = grade_samples([draw()], [response], no_answer_is_wrong, 0.0, GradingPool(PoolSettings(1)))
    assert (graded["verdict"], graded["reason"]) == (verdict, reason)


def test_options_and_tolerance_reach_the_grader():
    draws = [draw(answer="A", options=["red", "blue"]), draw(answer="1.50")]
    graded = grade_samples(
        draws, [sample("\\boxed{red}"), sample("\\boxed{1.51}")], True, 0.02, GradingPool(PoolSettings(1))
    )
    assert [row["verdict"] for row in graded] == ["right", "right"]


def test_a_row_keeps_its_columns_but_those_that_have_another_meaning():
    row = draw(id=3, source="s", response="expert", verdict="mine", row_number=9, image_paths=[])
    graded = {"verdict": "right", "extracted": "7", "reason": ""}
    assert result_row(row, sample("so 7"), graded, {"images": []}) == {
        "prompt": [{"role": "user", "content": "?"}], "images": [], "answer": "7", "id": 3, "source": "s",
        "response": "so 7", "completion_ids": [5, 2], "verdict": "right", "extracted": "7", "reason": "",
        "logp": -1.5, "truncated": False, "prompt_index": 4, "sample_index": 1,
    }  # fmt: skip


def test_values_that_json_lacks():
    line = line_of({"a": float("nan"), "b": b"\x00", "c": date(2026, 1, 2), "d": ("é\n", {1: None}), "e": "\ud800"})
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line) == {"a": None, "b": "AA==", "c": "2026-01-02", "d": ["é\n", {"1": None}], "e": "?"}


def test_images_can_be_opened_again_from_the_folder_of_the_rows(tmp_path):
    """A file in the folder by its relative path, one outside by its absolute path, any other embedded."""
    folder, outside = tmp_path / "out", tmp_path / "data"
    (folder / "i").mkdir(parents=True)
    outside.mkdir()
    picture, stream = Image.frombytes("RGB", (12, 7), hashlib.shake_128().digest(252)), io.BytesIO()
    picture.save(folder / "i" / "in.png")
    picture.save(outside / "out.png")
    picture.save(stream, "PNG")
    encoded = base64.b64encode(stream.getvalue()).decode()
    rules = ImageRules(tmp_path)
    values = ["out/i/in.png", "data/out.png", {"bytes": stream.getvalue(), "path": None}, picture, encoded]
    stored = stored_images(values, rules, folder)
    assert stored[:2] == ["i/in.png", str(outside / "out.png")]
    assert stored[2:] == ["data:image/png;base64," + encoded] * 3
    for value in stored:
        root = tmp_path if value == stored[1] else folder
        assert open_image(value, ImageRules(root)).tobytes() == picture.tobytes()


def test_seeds_differ_between_responses():
    """A seed that is the sum of its parts would give response 1 to prompt 0 that of response 0 to prompt 1."""
    seeds = {seed_of(seed, prompt, number) for seed in range(5) for prompt in range(20) for number in range(8)}
    assert len(seeds) == 5 * 20 * 8 and all(0 <= seed < 2**31 for seed in seeds)


def test_videos_are_written_so_that_the_rows_can_be_read_again(tmp_path):
    """Frames of the embedded task as data URLs; the prompt has a bare block in the place of the video."""
    from rlfr_vlm.data.load import load_rows, read_rows
    from rlfr_vlm.options import DataOptions

    rows = read_rows(DataOptions(dataset_name="digits_video", dataset_limit=1), ("prompt", "answer"))
    row = rows.load(0)
    media = stored_media(rows.converted(0), rows.rules, tmp_path)
    written = result_row(Draw(row, 0, 0), sample("3"), {"verdict": "right"}, media)
    assert [block["type"] for block in written["prompt"][0]["content"]] == ["video", "text"]
    (tmp_path / "rows.jsonl").write_bytes(line_of(written))
    [again] = load_rows(str(tmp_path / "rows.jsonl"), columns=("prompt", "answer"))
    assert [frame.tobytes() for frame in again["videos"][0].frames] == [
        frame.tobytes() for frame in row["videos"][0].frames
    ]
    assert again["prompt"][0]["content"][1] == row["prompt"][0]["content"][1]
