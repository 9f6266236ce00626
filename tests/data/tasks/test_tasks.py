"""What the drawn tasks share: their rows load, pass every check, and are graded; seeds, splits, kinds and levels."""

import io
from collections import Counter

import pytest
from PIL import Image

from rlfr_vlm.data.check import check_rows
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.data.rows import Row
from rlfr_vlm.data.source import EMBEDDED
from rlfr_vlm.data.tasks import TASKS, Problem, Task
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Item, Verdict, grade_many
from rlfr_vlm.options import EMBEDDED_TASKS, DataOptions

SPLITS = ("train", "test")
ROWS = 200
FIRST_ANSWERS = {  # of seed 0; another value means that rows are not the same on every machine or version of Python
    "charts": "2 plum 6 14 corn 6 bean 3 32",
    "clocks": "8:45 45 3:15 4:25 25 2:15 6:12 57 3:17",
    "grids": "1 D4 3 1 A2 3 1 F6 7",
    "shapes": "2 yes black 3 yes blue 1 no red",
}


@pytest.fixture(scope="module")
def rows():
    return {(name, split): task.rows(split, ROWS, 0) for name, task in TASKS.items() for split in SPLITS}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_check_data_keeps_every_row_without_a_note(name, split):
    options = DataOptions(dataset_name=name, dataset_split=split, dataset_limit=ROWS)
    report = check_rows(options, ("prompt", "answer", "response"), workers=1, progress=False)
    assert (report.rows, len(report.kept), report.images) == (ROWS, ROWS, ROWS)
    assert not report.dropped and not report.notes


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_responses_are_right_and_other_answers_of_the_kind_are_wrong(rows, name, split):
    """Answers of another kind are never right; the grader leaves some undecided, such as 7:00 where 45 is right."""
    responses = [(row, text) for row in rows[name, split] for text in (row["response"], boxed(row["answer"]))]
    assert set(verdicts(responses)) == {Verdict.RIGHT}
    kinds = {row["answer"]: row["kind"] for row in rows[name, split]}
    pairs = [
        (row, answer)
        for number, row in enumerate(rows[name, split])
        for answer in (*list(kinds)[number % 5 :: 5], *(row["options"] or ()))
        if answer != row["answer"]
    ]
    found = verdicts([(row, boxed(answer)) for row, answer in pairs])
    for (row, answer), verdict in zip(pairs, found, strict=True):
        assert verdict is not Verdict.RIGHT, (row["answer"], answer)
        if kinds.get(answer, row["kind"]) == row["kind"]:
            assert verdict is Verdict.WRONG, (row["answer"], answer)


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def verdicts(responses: list[tuple[Row, str]]) -> list[Verdict]:
    items = [
        Item(row["answer"], text, options=row["options"] or (), answer_type=row["answer_type"])
        for row, text in responses
    ]
    return [grade.verdict for grade in grade_many(items)]


@pytest.mark.parametrize("name", TASKS)
def test_options_are_distinct_named_in_the_question_and_contain_the_answer(rows, name):
    for split in SPLITS:
        for row in rows[name, split]:
            if options := row["options"]:
                assert row["answer"] in options and len(set(options)) == len(options)
                assert all(option in row["prompt"][0]["content"] for option in options)


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_those_of_the_seed_and_the_first_of_a_larger_size(rows, name):
    task = TASKS[name]
    assert task.rows("train", 30, 0) == rows[name, "train"][:30]
    other = task.rows("train", 30, 1)
    assert all(one != two for one, two in zip(other, rows[name, "train"], strict=False))
    assert " ".join(row["answer"] for row in rows[name, "train"][:9]) == FIRST_ANSWERS[name]


@pytest.mark.parametrize("name", TASKS)
def test_no_image_occurs_twice_or_in_both_splits(rows, name):
    """Backgrounds, or the colours on them, differ between the splits, so that no size of them can share an image."""
    files = [row["images"][0]["bytes"] for split in SPLITS for row in rows[name, split]]
    assert len(set(files)) == len(files)
    corners = {
        split: {Image.open(io.BytesIO(row["images"][0]["bytes"])).getpixel((0, 0)) for row in rows[name, split]}
        for split in SPLITS
    }
    assert not corners["train"] & corners["test"]


@pytest.mark.parametrize("name", TASKS)
def test_images_are_small_and_of_whole_image_tokens_of_qwen(rows, name):
    for split in SPLITS:
        for row in rows[name, split]:
            image = Image.open(io.BytesIO(row["images"][0]["bytes"]))
            assert image.mode == "RGB" and max(image.size) <= 224
            assert image.width % 28 == 0 and image.height % 28 == 0


@pytest.mark.parametrize("name", TASKS)
def test_kinds_and_difficulties_alternate(rows, name):
    kinds = TASKS[name].kinds
    pairs = Counter((row["kind"], row["difficulty"]) for row in rows[name, "train"])
    assert set(pairs) == {(kind, level) for kind in kinds for level in (1, 2, 3)}
    assert max(pairs.values()) - min(pairs.values()) <= 1
    assert {row["task"] for row in rows[name, "train"]} == {name}


@pytest.mark.parametrize("name", TASKS)
def test_the_task_loads_by_name(name):
    [row] = load_rows(name, limit=1, columns=("prompt", "answer", "response"))
    assert [block["type"] for block in row["prompt"][0]["content"]] == ["image", "text"]
    assert row["images"][0].width > 100 and row["kind"] == TASKS[name].kinds[0] and row["difficulty"] == 1
    with pytest.raises(UserError, match=f"{name} has no split 'dev'"):
        load_rows(name, split="dev")


def test_the_names_of_the_options_are_those_of_the_tasks():
    assert tuple(EMBEDDED) == EMBEDDED_TASKS
    with pytest.raises(
        UserError, match="built-in task: digits, digits_video, word_problems, charts, clocks, grids, shapes"
    ):
        load_rows("")


def test_a_task_that_has_no_other_image_says_so():
    def make(rng: object, split: str, kind: str, level: int) -> Problem[int]:
        return Problem(level, "?", "1", ("One.",))

    task = Task("few", ("only",), make, lambda scene: Image.new("RGB", (28, 28)))
    assert len(task.rows("train", 3, 0)) == 3
    with pytest.raises(UserError, match="few has fewer than 4 different images"):
        task.rows("train", 4, 0)
    with pytest.raises(ValueError, match="'dev'"):
        task.rows("dev", 1, 0)
