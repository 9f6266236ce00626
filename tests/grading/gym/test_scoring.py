"""Scoring in the worker processes: three states, partial scores, time limits, and answers that are code."""

import os
import textwrap
import time

import pytest

from rlfr_vlm.grading import GradingPool, Item, PoolSettings, grade_many
from rlfr_vlm.grading.gym.entry import pack
from rlfr_vlm.grading.gym.generator import rows_of
from rlfr_vlm.grading.gym.grade import grade_entries
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, undecided

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

PATH = "reasoning_gym"
FAKE_WORKER = textwrap.dedent(
    """
    import dataclasses
    import os

    from reasoning_gym.factory import ProceduralDataset, register_dataset


    @dataclasses.dataclass
    class Config:
        seed: int | None = None
        size: int = 1


    class Fake(ProceduralDataset):
        def __init__(self, config):
            super().__init__(config, config.seed, config.size)

        def __getitem__(self, index):
            raise NotImplementedError

        def score_answer(self, answer, entry):
            if answer == "raise":
                raise KeyError(answer)
            while answer == "hang":
                pass
            if answer == "print":
                os.write(1, b'[0, "right", "", "", 1.0]\\n')
            if answer == "evaluate":
                try:
                    return eval("1.0")
                except Exception:
                    return 0.0
            return entry["metadata"].get(answer, 0)


    class Endless(Fake):
        def __init__(self, config):
            while True:
                pass


    register_dataset("fake", Fake, Config)
    register_dataset("endless", Endless, Config)
    from rlfr_vlm.grading import worker
    from rlfr_vlm.grading.gym.worker import main

    worker.PREPARING = 0.3
    main()
    """
)
ENTRY = pack(
    "fake", {}, {"answer": "1", "metadata": {"half": 0.5, "full": 1, "nearly": 1 - 1e-9, "nan": float("nan")}}
)


@pytest.fixture
def fake_pool(tmp_path, monkeypatch):
    (tmp_path / "fake_worker.py").write_text(FAKE_WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with GradingPool(PoolSettings(workers=1, time_limit=0.5), "fake_worker") as pool:
        yield pool


def test_scores_have_three_states(fake_pool):
    pairs = [
        {"gold": "", "answer": answer, "entry": ENTRY}
        for answer in ("full", "half", "raise", "hang", "print", "evaluate", "nan", "other", "nearly")
    ]
    broken = [
        {"gold": "", "answer": "full", "entry": entry} for entry in ("", "{}", pack("nothing", {}, {"answer": ""}))
    ]
    endless = {"gold": "", "answer": "full", "entry": pack("endless", {}, {"answer": "1"})}
    start = time.monotonic()
    decisions = fake_pool.compare([*pairs, *broken, endless])
    assert time.monotonic() - start < 60
    assert decisions == [
        Decision(Verdict.RIGHT, PATH, "", 1.0),
        Decision(Verdict.WRONG, PATH, "", 0.5),
        undecided(PATH, Reason.SCORER_FAILED),
        undecided("algebra", Reason.TIME_OUT),  # the server says so, whatever the grader
        Decision(Verdict.WRONG, PATH, "", 0.0),  # and what it writes is no reply
        undecided(PATH, Reason.BAD_ANSWER),  # evaluation is forbidden, so that the 0 means nothing
        undecided(PATH, Reason.SCORER_FAILED),
        Decision(Verdict.WRONG, PATH, "", 0.0),
        Decision(Verdict.RIGHT, PATH, "", 1 - 1e-9),
        *[undecided(PATH, Reason.NO_ENTRY)] * 3,
        undecided("algebra", Reason.TIME_OUT),  # opening the task has a limit, too
    ]


def test_answers_are_extracted_and_scored_by_their_tasks(tmp_path):
    """countdown takes any expression of the numbers, of which the gold is only one; its scorer calls `parse_expr`."""
    entry = {"question": "?", "answer": "2 + 3", "metadata": {"numbers": [3, 2], "target": 5}}
    countdown = pack("countdown", {}, entry)
    spiral = pack("spiral_matrix", {}, {"answer": "7 5 8 0", "metadata": {}})
    [sum_row] = rows_of("chain_sum", {}, 1, 0)
    hostile = f"__import__('pathlib').Path({str(tmp_path / 'touched')!r}).touch()"
    cases = [
        (countdown, "<answer>3 + 2</answer>", "right", 1.0),
        (countdown, r"first 2, then \boxed{2+3}", "right", 1.0),
        (countdown, "<answer>3 * 2</answer>", "wrong", 0.05),
        (countdown, "<answer>2 + 2 + 1</answer>", "wrong", 0.05),
        (countdown, f"<answer>{hostile}</answer>", "undecided", None),
        (countdown, "five", "undecided", None),
        (spiral, "<answer>7 5 8 0</answer>", "right", 1.0),
        (spiral, "<answer>[7, 5, 8, 0]</answer>", "wrong", 0.1),
        (spiral, f"<answer>{hostile}</answer>", "wrong", 0.0),
        (sum_row["reasoning_gym"], f"<answer>{int(sum_row['answer']):+}.0</answer>", "right", 1.0),
        (sum_row["reasoning_gym"], f"<answer>{int(sum_row['answer']) + 1}</answer>", "wrong", 0.0),
    ]
    items = [Item("", response, entry=entry) for entry, response, _, _ in cases]
    plain = Item("7", r"\boxed{7}")
    *grades, last = grade_many([*items, plain])
    assert [(grade.verdict.value, grade.score) for grade in grades] == [case[2:] for case in cases]
    assert {grade.path for grade in grades} == {PATH} and grades[1].extracted == "2+3"
    assert grades[5].reason == Reason.NO_ANSWER and grades[4].reason == Reason.BAD_ANSWER
    assert last.verdict is Verdict.RIGHT and last.path != PATH and last.score is None
    assert not (tmp_path / "touched").exists()


def test_responses_without_an_answer_are_not_sent():
    class Refusing:
        def compare(self, pairs: list[object]) -> list[Decision]:
            assert pairs == []
            return []

    [grade] = grade_entries([Item("", "I do not know", entry=ENTRY)], Refusing())
    assert grade.verdict is Verdict.UNDECIDED and grade.reason == Reason.NO_ANSWER and grade.score is None


def test_a_missing_library_is_one_message(monkeypatch):
    from rlfr_vlm.errors import UserError

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"Scoring answers .* needs the package reasoning-gym.*rlfr-vlm\[reasoning-gym"
    ):
        grade_many([Item("", "<answer>1</answer>", entry=ENTRY)])
