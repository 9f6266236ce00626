"""Which rows VLMEvalKit's real classes take for one question, and which sets cannot be scored."""

import base64

import pytest

from rlfr_vlm.errors import UserError
from tests.eval.importing.logs import write_tsv
from tests.eval.vlm.sets import draw

PICTURE = base64.b64encode(draw(3)).decode()


def row(index, **more):
    return {"index": index, "question": "?", "answer": "B", "A": "cat", "B": "dog", "image": PICTURE} | more


@pytest.fixture
def opened(running, tmp_path):
    """Opens rows as a set of VLMEvalKit; returns how rows form questions, and row id -> question id."""

    def run(name, *rows):
        path = tmp_path / f"{name}.tsv"
        write_tsv(path, list(rows))
        *read, last = running.open(name, path, tmp_path / "images", [])
        return last["ok"]["grouping"], {one["row"]["id"]: one["row"]["group"] for one in read}

    return run


@pytest.mark.parametrize("name", ["MMBench_V11", "CCBench", "MMBench_dev_ar", "BLINK_circular", "MMCR"])
def test_rotations_belong_to_the_index_below_a_million(opened, name):
    rows = [row(index) for index in (12, 7, 1_000_007, 2_000_007, 1_000_012)]
    groups = {"12": "12", "7": "7", "1000007": "7", "2000007": "7", "1000012": "12"}
    assert opened(name, *rows) == ("circular", groups)


def test_a_column_of_the_file_goes_before_the_index(opened):
    rows = [row(0, g_index=0), row(1, g_index=0), row(2, g_index=2)]
    for name in ("MMBench_DEV_EN", "mine"):
        assert opened(name, *rows) == ("circular", {"0": "0", "1": "0", "2": "2"})
    assert opened("my_mmbench", row("a"), row("b")) == ("", {"a": "", "b": ""})


def test_mmvp_pairs_rows_in_the_order_of_their_index(opened):
    rows = [row(4, question="Two?"), row(1), row(2), row(3, question="Two?")]
    assert opened("MMVP", *rows) == ("pairs", {"1": "1", "2": "1", "3": "3", "4": "3"})
    for broken in (rows[:3], [row(1), row(2, question="Two?")]):
        with pytest.raises(UserError, match="two rows in succession must ask the same question; MMVP pairs them"):
            opened("MMVP", *broken)


@pytest.mark.parametrize("name", ["SEEDBench_IMG", "MMStar", "MMT-Bench_VAL"])
def test_rows_of_other_sets_are_questions(opened, name):
    assert opened(name, row(1), row(1_000_001)) == ("", {"1": "", "1000001": ""})


def test_sets_without_a_score_here_say_why(opened):
    for name, why in [
        ("LEGO_circular", "within a group, answers that put options in order are read by other rules"),
        ("MMSci_DEV_MCQ", "its score is a mean over settings, not over rows"),
        ("LiveMMBench_Reasoning_circular", "ImageShortQADataset has an evaluation of its own"),
    ]:
        with pytest.raises(UserError, match=f"{name} cannot be scored here: {why}"):
            opened(name, row(1, question_type="choice"), row(1_000_001, question_type="choice"))
    for rows, why in [
        ([row(1, answer="")], "has no answer; nothing can be scored against it"),  # as in MMBench's test splits
        ([{key: cell for key, cell in row(1).items() if key != "answer"}], "MMBench_TEST_EN cannot be scored here"),
        ([row("a")], "has an index that is no number"),
        ([row(1), row(1_000_002)], "Row 1000002 of .* belongs to question 2, whose own row is not there"),
    ]:
        with pytest.raises(UserError, match=why):
            opened("MMBench_TEST_EN", *rows)


@pytest.mark.parametrize("name", ["MMBench_DEV_EN", "MMVP", "MMStar"])
def test_its_own_evaluation_counts_the_same_groups(running, tmp_path, opened, name):
    """Rows right, right; wrong, right: a question of two, or three rows of four in a set without questions."""
    indices = (1, 2, 3, 4) if name == "MMVP" else (1, 1_000_001, 2, 1_000_002)
    _, groups = opened(name, *(row(index) for index in indices))
    answers = dict(zip(map(str, indices), ("B", "B", "A", "B"), strict=True))
    items = [{"id": key, "prediction": text, "given": {}, "compare": "vlmeval"} for key, text in answers.items()]
    verdicts = dict(zip(answers, (one["verdict"] for one in running.score(name, items)), strict=True))
    told = running.evaluate(name, answers, {})
    tables = [record for record in told["result"] if "Overall" in record]
    questions = {groups[key] or key for key in answers}
    right = sum(
        all(verdicts[key] == "right" for key in answers if (groups[key] or key) == question) for question in questions
    )
    assert not told["failed"] and tables[-1]["Overall"] == right / len(questions)
    assert right / len(questions) == (0.75 if name == "MMStar" else 0.5)
