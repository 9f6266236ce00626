"""Scores that are more than a share of right answers, against numbers counted by hand."""

from dataclasses import replace

import pytest

from rlfr_eval.benchmarks.text import with_overrides
from rlfr_eval.benchmarks.vlm import shipped_vlm
from rlfr_eval.benchmarks.vlm_problems import VlmProblem
from rlfr_eval.score.metrics import ProblemResult
from rlfr_eval.score.vlm_scores import more_scores, wemath
from rlfr_vlm.grading import Verdict
from rlfr_vlm.stats import wilson_interval

R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED


def problem(index, **fields):
    return VlmProblem(str(index), "?", ("B",), ({"text": "?"},), {}, fields)


def pairs(*families):
    """Verdicts of the parts of multi-step problems, the whole last."""
    found = []
    for number, verdicts in enumerate(families):
        steps = len(verdicts) - 1
        for place, verdict in enumerate(verdicts, 1):
            key = f"{steps}steps_{place if place <= steps else 'multi'}"
            found.append((problem(len(found), key=key, ID=str(number)), ProblemResult([verdict], [""])))
    return found


def test_wemath_by_hand():
    """Mastery 1; steps right, whole wrong 0.5; the rest 0. Loosely, one right step is enough for mastery."""
    found = pairs((R, R, R), (R, R, W), (W, R, R), (W, W, W), (R, R, R, R), (W, W, W, R), (R, W, R, R))
    strict, loose = wemath(found, strict=True), wemath(found, strict=False)
    assert strict["accuracy"] == pytest.approx((1 + 0.5 + 1) / 7)
    assert loose["accuracy"] == pytest.approx((1 + 0.5 + 1 + 1 + 1) / 7)
    assert strict["dimensions"] == {"complete mastery": 2, "inadequate generalization": 1, "rote memorization": 3,
                                    "insufficient knowledge": 1}  # fmt: skip
    assert strict["lower"] == strict["upper"] == strict["accuracy"] and strict["n"] == 7


def test_wemath_bounds_hold_whatever_the_undecided_are():
    """Every way to decide lies within the bounds, and both ends occur."""
    open_parts = [(R, R, U), (U, R, R), (W, U, R), (R, U, U, R)]
    for strict in (True, False):
        told = wemath(pairs(*open_parts), strict=strict)
        places = [(i, j) for i, family in enumerate(open_parts) for j, verdict in enumerate(family) if verdict is U]
        values = set()
        for mask in range(2 ** len(places)):
            families = [list(family) for family in open_parts]
            for bit, (i, j) in enumerate(places):
                families[i][j] = R if mask >> bit & 1 else W
            values.add(wemath(pairs(*families), strict=strict)["accuracy"])
        assert (told["lower"], told["upper"]) == (min(values), max(values))
        # strictly, (W, U, R) is worth 0 whatever U is, but the first problem is worth a half of four at least;
        # loosely, the second and the last are worth 1 whatever U is
        assert told["accuracy"] == (0.125 if strict else 1.0) and told["coverage"] == (0.25 if strict else 0.5)


def test_wemaths_headline_is_about_problems_and_its_value_within_its_bounds():
    """One open answer of 99 is one open problem of 33."""
    found = pairs(*[(R, R, R)] * 32, (R, R, U))
    problems, results = zip(*found, strict=True)
    told = more_scores(replace(shipped_vlm()["WeMath"], n=99), problems, results, results)
    assert told["undecided_share"] == pytest.approx(1 / 33) and not told["headline"]
    assert told["accuracy"] == 1.0 and told["lower"] == pytest.approx(32.5 / 33)
    # decided: 1 of 2. The third is worth 0 or 0.5, so no way to decide gives more than 0.5 of three
    told = wemath(pairs((R, R, R), (W, W, W), (R, W, U)), strict=True)
    assert (told["lower"], told["upper"]) == pytest.approx((1 / 3, 1 / 3)) and told["accuracy"] == pytest.approx(1 / 3)
    told = wemath(pairs((R, R, R), (R, R, R), (U, R, W)), strict=True)
    assert told["upper"] == pytest.approx(2.5 / 3) == told["accuracy"]


def test_a_part_is_decided_by_whom_its_own_rows_say():
    """The judge decided the development row alone: of the three scored rows rules decided one, nobody two."""
    mmmu = shipped_vlm()["MMMU_DEV_VAL"]
    problems = [problem(i, split="validation" if i < 3 else "dev", category="Art") for i in range(4)]
    final = [ProblemResult([verdict], [""]) for verdict in (R, U, U, W)]
    rules = [ProblemResult([verdict], [""]) for verdict in (R, U, U, U)]
    found = more_scores(mmmu, problems, final, rules)
    assert found["judged"] == 0 and found["rules_only"]["coverage"] == pytest.approx(1 / 3)
    from rlfr_eval.report.table import _decided_by

    assert _decided_by({"answers_expected": 4, **found}) == pytest.approx((1 / 3, 0.0, 2 / 3))


def test_other_data_than_vlmevalkits_stand_beside_no_published_value():
    benchmark = replace(shipped_vlm()["WeMath"], n=3, official=False)
    problems, results = zip(*pairs((R, R, R)), strict=True)
    told = more_scores(benchmark, problems, results, results)
    assert told["reference"] == [] and "not the copy that VLMEvalKit names" in told["notes"][0]
    assert "reference" not in more_scores(replace(benchmark, official=True), problems, results, results)


def test_the_score_of_a_part_and_of_the_worst_case():
    mmmu = shipped_vlm()["MMMU_DEV_VAL"]
    problems = [problem(i, split="validation" if i < 3 else "dev", category="Art") for i in range(4)]
    results = [ProblemResult([verdict], [""]) for verdict in (R, W, R, W)]
    found = more_scores(mmmu, problems, results, results)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["problems_scored"] == 3 and found["headline"]
    assert found["metrics"]["all rows"]["accuracy"] == 0.5 and found["metrics"]["all rows"]["n"] == 4
    assert found["groups"]["split"]["dev"] == {"accuracy": 0.0, "ci95": found["groups"]["split"]["dev"]["ci95"],
                                               "lower": 0.0, "upper": 0.0, "n": 1}  # fmt: skip
    dyna = shipped_vlm()["DynaMath"]
    problems = [problem(i, qid=str(i // 2), subject="algebra", knowledge_level="high") for i in range(8)]
    results = [ProblemResult([verdict], [""]) for verdict in (R, R, R, W, R, U, W, U)]
    worst = more_scores(dyna, problems, results, results)["metrics"]["worst case"]
    # all right; one wrong; open; wrong whatever the other is
    assert worst["accuracy"] == pytest.approx(1 / 3) and (worst["lower"], worst["upper"], worst["n"]) == (0.25, 0.5, 4)


def test_a_part_that_has_no_score_gets_none():
    wemath_set = replace(shipped_vlm()["WeMath"], n=9)
    found = pairs((R, R, R), (R, R, R))
    problems, results = zip(*found, strict=True)
    told = more_scores(wemath_set, problems, results, results)
    assert told["accuracy"] is None and not told["headline"] and "all 9 problems; these are 6" in told["unscoreable"]
    told = more_scores(replace(wemath_set, n=5), problems[:5], results[:5], results[:5])
    assert "of 1 some are missing" in told["unscoreable"] and told["accuracy"] is None
    visulogic = shipped_vlm()["VisuLogic"]
    problems = [problem(i, category=category) for i, category in enumerate(visulogic.values["category"][:-1])]
    told = more_scores(visulogic, problems, [ProblemResult([R], [""])] * 5, [ProblemResult([R], [""])] * 5)
    assert told["unscoreable"] == "its score needs problems of every category; there is none of Other"


def several(*verdicts):
    return ProblemResult(list(verdicts), [""] * len(verdicts))


def test_several_samples_of_wemath_belong_together_by_their_number():
    """Two samples of two problems. By hand: (R,R|R)=1 and (R,R|W)=0.5; (W,W|R)=0 and (R,U|R), open between 0 and 1."""
    found = pairs((R, R, R), (R, R, R))
    problems = [problem for problem, _ in found]
    results = [several(R, R), several(R, R), several(R, W), several(W, R), several(W, U), several(R, R)]
    told = wemath(list(zip(problems, results, strict=True)), strict=True, samples=2)
    assert told["accuracy"] == pytest.approx((0.75 + 0.0) / 2)
    assert (told["lower"], told["upper"]) == pytest.approx((1.5 / 4, 2.5 / 4))
    assert told["coverage"] == 0.75 and told["n"] == 2
    assert told["dimensions"] == {"complete mastery": 1, "inadequate generalization": 1, "rote memorization": 1}


def test_several_samples_of_the_worst_case_and_of_a_part():
    dyna = with_overrides(shipped_vlm()["DynaMath"], samples=2, temperature=1.0)
    problems = [problem(i, qid=str(i // 2), subject="algebra", knowledge_level="high") for i in range(4)]
    results = [several(R, R), several(R, W), several(R, U), several(R, R)]
    worst = more_scores(dyna, problems, results, results)["metrics"]["worst case"]
    # first question: right, wrong; second: right, open
    assert (worst["accuracy"], worst["n"]) == ((0.5 + 1.0) / 2, 2)
    assert (worst["lower"], worst["upper"]) == (2 / 4, 3 / 4)
    mmmu = with_overrides(shipped_vlm()["MMMU_DEV_VAL"], samples=2, temperature=1.0)
    problems = [problem(i, split="validation" if i < 3 else "dev", category="Art") for i in range(4)]
    found = more_scores(mmmu, problems, results, results)
    assert found["accuracy"] == pytest.approx((1.0 + 0.5 + 1.0) / 3) and found["answers_scored"] == 6
    assert found["metrics"]["all rows"]["accuracy"] == pytest.approx(3.5 / 4)
    assert found["groups"]["split"]["dev"]["accuracy"] == 1.0


def test_an_interval_of_wemath_has_a_width_where_all_are_worth_the_same():
    told = wemath(pairs(*[(W, W, W)] * 10), strict=True)
    assert told["ci95"][0] == 0.0 and 0.1 < told["ci95"][1] < 0.5


def circle(*questions):
    """Rows of circular questions, in the order of a question's passes: problems and results."""
    problems, results = [], []
    for question, passes in enumerate(questions, 1):
        for shift, verdict in enumerate(passes):
            index = question + shift * 1_000_000
            problems.append(replace(problem(index, category="Art"), group=str(question)))
            results.append(several(*verdict) if isinstance(verdict, tuple) else ProblemResult([verdict], [""]))
    return problems, results


def circular_benchmark(questions, **more):
    return replace(shipped_vlm()["MMBench_DEV_EN"], questions=questions, **more)


def test_a_circular_question_is_right_only_if_all_of_its_passes_are():
    """Right, wrong, open, and wrong whatever the open pass is. Questions count alike, whatever their passes."""
    problems, results = circle((R, R), (R, W, R), (R, R, U), (W, U))
    found = more_scores(circular_benchmark(4), problems, results, results)
    assert [found[key] for key in ("right", "wrong", "undecided", "problems", "problems_planned")] == [1, 2, 1, 4, 4]
    assert found["accuracy"] == pytest.approx(1 / 3) and (found["lower"], found["upper"]) == (0.25, 0.5)
    assert found["coverage"] == 0.75 and not found["headline"]
    assert found["ci95"] == pytest.approx(wilson_interval(1, 3))
    vanilla, everything = found["metrics"]["vanilla"], found["metrics"]["all passes"]
    assert (vanilla["accuracy"], vanilla["n"], everything["n"]) == (0.75, 4, 10)
    # 6 of 8 decided passes are right; of the questions' own shares the mean would be (1 + 2/3 + 1 + 0) / 4
    assert everything["accuracy"] == 0.75 and (everything["lower"], everything["upper"]) == (0.6, 0.8)
    assert found["groups"]["category"]["Art"]["n"] == 4
    assert found["question_of"]["2000003"] == "3" and "right only if all of these passes" in found["notes"][0]


def test_a_judge_is_credited_with_the_questions_that_it_decided():
    """It decided a pass of each: the first question was open, the second wrong before."""
    problems, results = circle((R, R), (W, R))
    _, rules = circle((R, U), (W, U))
    found = more_scores(circular_benchmark(2), problems, results, rules)
    assert found["judged"] == 1 and found["rules_only"]["coverage"] == 0.5 and found["headline"]


def test_the_interval_of_all_passes_counts_questions():
    """All passes of a question agree, so that 40 passes tell no more than the 10 questions."""
    problems, results = circle(*[(R, R, R, R)] * 6, *[(W, W, W, W)] * 4)
    low, high = more_scores(circular_benchmark(10), problems, results, results)["metrics"]["all passes"]["ci95"]
    assert low < wilson_interval(6, 10)[0] < wilson_interval(24, 40)[0] and high > wilson_interval(24, 40)[1]


def test_the_k_th_samples_of_a_questions_passes_belong_together():
    """Both passes are right in one of two samples, and in the same one only for the first question."""
    problems, results = circle(((R, W), (R, W)), ((R, W), (W, R)))
    benchmark = with_overrides(circular_benchmark(2), samples=2, temperature=1.0)
    found = more_scores(benchmark, problems, results, results)
    assert found["accuracy"] == 0.25 and found["metric"] == "circular, avg@2" and found["answers_scored"] == 4
    assert found["pass@2"] == 0.5 and found["metrics"]["all passes"]["accuracy"] == 0.5


def test_a_part_of_a_circular_set_is_about_whole_questions():
    benchmark = circular_benchmark(2, where={"split": "dev"})
    problems, results = circle((R, R), (W, R))
    problems = [replace(one, fields={"split": "dev" if one.group == "1" else "test"}) for one in problems]
    found = more_scores(benchmark, problems, results, results)
    assert found["accuracy"] == 1.0 and found["problems_scored"] == 1 and found["not_scored"] == ["2"]
    assert found["metrics"]["all questions"]["n"] == 2


def test_of_a_pair_both_are_right():
    benchmark = replace(circular_benchmark(2), grouping="pairs")
    problems = [replace(problem(index), group=str(index - index % 2)) for index in range(4)]
    results = [ProblemResult([verdict], [""]) for verdict in (R, R, R, W)]
    found = more_scores(benchmark, problems, results, results)
    assert found["accuracy"] == 0.5 and found["metric"] == "pairs" and found["metrics"]["all rows"]["n"] == 4
    assert found["metrics"]["all rows"]["accuracy"] == 0.75
