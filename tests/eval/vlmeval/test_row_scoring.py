"""Where a row's score stands, what a silent reply counts for, and points below full marks: without VLMEvalKit."""

import pytest

from rlfr_eval.schema import JudgeVerdict, RuleVerdict
from rlfr_eval.score.metrics import ProblemResult, accuracy
from rlfr_eval.vlmeval.row_scoring import row_scoring
from rlfr_eval.vlmeval.scoring import row_verdict
from rlfr_eval.vlmeval.silent_replies import NONSENSE, is_plain
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Verdict


def trial(result, reply=None, failed="", prompts=None):
    records = [result] if isinstance(result, dict) else result
    asked = int(reply is not None) if prompts is None else prompts
    return {"answer": "x", "reply": reply, "prompts": asked, "result": records, "failed": failed}


def beside(**numbers):
    return {"row": "mean of rows", **numbers}


def test_the_score_of_the_rows_comes_before_that_of_a_table():
    """F1 of a single negative row is 0 although its answer is right; what stands beside the row says so."""
    table = [{"split": "Overall", "Overall": 0.0, "acc": 100.0}]
    found = row_scoring("S", [trial([*table, beside(score=1.0)]), trial([*table, beside(score=0.0)])], {})
    assert found.score == {"column": "score", "row": "mean of rows", "unit": "fraction"} and not found.judged


def test_units_and_replies_that_move_the_score():
    """Percent by its maximum; the reply with most marks stands for one that can be read."""
    trials = [trial({"Overall": value}, reply) for reply, value in (("no", 0.0), ("yes", 100.0), ("5", 50.0))]
    found = row_scoring("S", trials, {})
    assert found.score == {"column": "Overall", "row": "0", "unit": "percent"}
    assert found.judged and found.reply == "yes" and not found.unjudged


def test_a_score_that_is_not_seen_to_move_is_not_guessed():
    for values in ([0.0, 5.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.5]):  # of five, always full, never any, no full marks
        with pytest.raises(UserError, match=r"S cannot be scored here: no place .* A TOML file with \[score\]"):
            row_scoring("S", [trial(beside(score=value)) for value in values], {})


def test_a_column_that_holds_the_reply_is_no_score():
    """MMVMBench writes the reply into a column `score`: a number only where the reply is one."""
    told = [({"Overall": 0.0}, "[NO]"), ({"Overall": 1.0}, "[YES]"), ([{"Overall": 0.0}, beside(score=100.0)], "100")]
    trials = [trial(result, reply) for result, reply in [*told, ([{"Overall": 0.0}, beside(score=0.0)], "0")]]
    assert row_scoring("S", trials, {}).score == {"column": "Overall", "row": "0", "unit": "fraction"}
    echoes = [trial([beside(score=float(reply))], reply, "ZeroDivisionError") for reply in ("0", "10", "100")]
    with pytest.raises(UserError, match="no place"):
        row_scoring("S", echoes, {})


def test_what_cannot_be_replayed_is_refused_with_the_reason():
    images = trial([], "1", "its judge wants to see images, which is not supported here")
    with pytest.raises(UserError, match=r"S cannot be scored here: VLMEvalKit's evaluation of a row .* to see images"):
        row_scoring("S", [images], {})
    place = {"column": "score", "row": "mean of rows", "unit": "fraction"}
    with pytest.raises(
        UserError, match="asks a judge about all answers, and its replies cannot be replayed: no reply"
    ):
        row_scoring("S", [trial(beside(score=0.0), reply) for reply in ("yes", "no")], place)
    by_rules = [trial(beside(score=1.0)), trial(beside(score=0.0)), images]
    found = row_scoring("S", by_rules, {})
    assert not found.judged and "to see images" in found.unjudged


@pytest.mark.parametrize(
    ("reply", "prompt", "response", "plain"),
    [
        ("[NO]", "conclude with [YES] or [NO]", "", True),
        ("It misses the hat.\n\n**NO**", "conclude with [YES] or [NO]", "", True),
        ("Judgement: 0", "1 or 0", "", True),
        ("YES\nNO\nNO", "three YES or NO", "", True),
        ("NO\nNO\nYES", "three YES or NO", "", True),
        ("YES\nYES\nso-so", "three YES or NO", "", False),
        ("1. Exact: YES\n2. Category: YES\n3. Specificity: specific", 'YES or NO; "specific" or "vague"', "", False),
        ("2", "a score of 0, 1 or 2", "", False),  # the largest mark, and yet worth nothing
        ("C", "the option, A, B, C or Z", "", True),
        ("Matches.", "Decide whether the response matches the reference. Reply 1 or 0.", "B", False),
        ("Correct", "Judge. Reply 1 or 0.", "B is correct.", False),
        ("Yes", "Conclude with [YES] or [NO].", "Yes, the car is red.", False),
        ("true", "is it true? YES or NO", "", False),  # affirmative, and yet worth nothing
        ("Not at all", "YES or NO", "", False),
        ("Hardly", "YES or NO", "", False),
        (NONSENSE, "YES or NO", "", False),
        ("", "YES or NO", "", False),
        ("a blue car", "Extract it: I see a blue car", "I see a blue car", True),
        ("is a blue", "the question is a blue one", "no", False),  # of the prompt, but not of the response
    ],
)
def test_a_reply_that_scores_as_nonsense_counts_only_if_it_is_plain(reply, prompt, response, plain):
    assert is_plain(reply, prompt, response) is plain


def test_a_share_of_full_marks_is_wrong_with_points():
    place = {"column": "score", "row": "mean of rows", "unit": "fraction"}
    expected = {1.0: ("right", None), 0.0: ("wrong", None), 0.3: ("wrong", 0.3)}
    for value, (verdict, points) in expected.items():
        found = row_verdict("S", place, {"result": [beside(score=value)], "failed": "", "asked": True})
        assert found["verdict"] == verdict and found.get("points") == (pytest.approx(points) if points else None)
    lost = row_verdict("S", place, {"result": [{"acc": 1.0}], "failed": "KeyError: 'x'", "asked": True})
    assert lost["verdict"] == "undecided" and "KeyError" in lost["reason"]


def test_points_are_part_of_the_mean_and_of_its_bounds():
    """Right, 0.5 of the marks, wrong, undecided: 1.5 of 3 decided, between 1.5 and 2.5 of 4."""
    right, half, wrong, none = Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG, Verdict.UNDECIDED
    results = [ProblemResult([verdict], [""]) for verdict in (right, half, wrong, none)]
    results[1].points[0] = 0.5
    score = accuracy(results, 1)
    assert score["accuracy"] == 0.5 and (score["lower"], score["upper"]) == (1.5 / 4, 2.5 / 4)
    assert (score["right"], score["wrong"], score["undecided"]) == (1, 2, 1)


def test_points_are_stored_only_where_there_are_some():
    for cls, who in ((RuleVerdict, "rules"), (JudgeVerdict, "judge")):
        common = {"id": "a", "by": who, "answer": "d", "grading": "g", "judge": "j", "verdict": "wrong", "reason": ""}
        for points in (None, 0.25):
            line = cls.read({**common, **({} if points is None else {"points": points})})
            assert line.points == points and line.write().get("points") == points
            assert ("points" in line.write()) is (points is not None)
