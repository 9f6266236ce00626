"""The embedded task of digits that appear one after another: answers, frames, and scans apart between the splits."""

import io

import pytest
from PIL import Image

from rlfr_vlm.data.digit_videos import PLACES, digit_video_rows
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.errors import UserError


def test_the_answer_is_the_digit_in_the_asked_place():
    for row in digit_video_rows("train", 30, seed=3):
        digits = row["response"].split(".")[0].split(", ")
        place = PLACES.index(row["prompt"][0]["content"].rstrip("?"))
        assert row["answer"] == digits[place] and row["response"].endswith(f"\\boxed{{{row['answer']}}}")
        [frames] = row["videos"]
        assert len(frames) == 6 and all(frames[2 * n] == frames[2 * n + 1] for n in range(3))
        assert Image.open(io.BytesIO(frames[0])).size == (28, 28)


def test_splits_share_no_scan_and_seeds_give_the_same_rows():
    train, test = (digit_video_rows(split, 200, seed=0) for split in ("train", "test"))
    assert not {f for row in train for f in row["videos"][0]} & {f for row in test for f in row["videos"][0]}
    assert digit_video_rows("train", 5, 7) == digit_video_rows("train", 5, 7) != digit_video_rows("train", 5, 8)
    assert {row["answer"] for row in train} == set("0123456789")


def test_the_task_loads_by_name():
    rows = load_rows("digits_video", limit=3, columns=("prompt", "answer", "response"))
    assert len(rows) == 3 and len(rows[0]["videos"][0].frames) == 6
    assert [block["type"] for block in rows[0]["prompt"][0]["content"]] == ["video", "text"]
    with pytest.raises(UserError, match="digits_video has no split 'dev'"):
        load_rows("digits_video", split="dev")
