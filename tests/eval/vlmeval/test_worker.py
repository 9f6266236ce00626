"""VLMEvalKit's real package behind the pipe: its verdicts, its own evaluation, and what it must not do."""

import base64
import csv
import json
import subprocess
from pathlib import Path

import pytest

from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import verify_answer
from tests.eval.vlm.fixtures import vlmeval_python
from tests.eval.vlm.sets import SETS, draw, judge_reply, says

PICTURE = base64.b64encode(draw(3)).decode()


def item(index, prediction, given=None):
    return {"id": str(index), "prediction": prediction, "given": given or {}, "compare": "vlmeval"}


def settle(worker, name, one):
    """The outcome once a healthy judge and an equality by text have answered."""
    for _ in range(4):
        outcome = worker.score(name, [one])[0]
        if "needs" not in outcome:
            return outcome
        need = outcome["needs"]
        if need["kind"] == "judge":
            reply = judge_reply(need["prompt"])
            one["given"][need["key"]] = "" if reply == "none" else reply
        else:
            one["given"][need["key"]] = verify_answer(gold=need["gold"], answer=need["answer"]).verdict.value
    raise AssertionError(outcome)


@pytest.mark.parametrize("name", SETS)
def test_verdicts_are_those_counted_by_hand(worker, name):
    for index, sample in enumerate(SETS[name]):
        outcome = settle(worker, name, item(index, says(name, index)))
        assert outcome["verdict"] == ("right" if sample.right else "wrong"), (name, index, outcome)
        assert outcome["asked"] == bool(sample.judge), (name, index)


@pytest.mark.parametrize("name", SETS)
def test_rows_carry_prompt_gold_options_and_original_image_bytes(worker, name):
    *rows, last = worker.rows[name]
    assert last["ok"]["rows"] == len(rows) == len(SETS[name]) and last["ok"]["without_image"] == 0
    file = Path(rows[0]["row"]["parts"][0].get("image", rows[0]["row"]["parts"][1].get("image"))).parents[1]
    with (file / f"{name}.tsv").open(newline="") as stream:
        csv.field_size_limit(1 << 24)
        cells = [row["image"] for row in csv.DictReader(stream, delimiter="\t")]
    for row, cell in zip(rows, cells, strict=True):
        images = [part["image"] for part in row["row"]["parts"] if "image" in part]
        if not cell.startswith("["):
            assert [Path(image).read_bytes() for image in images] == [base64.b64decode(cell)]
        assert f"[{name}-{row['row']['id']}]" in row["row"]["question"]


@pytest.mark.parametrize("name", SETS)
def test_its_own_evaluation_says_the_same(worker, name):
    """With a healthy judge, VLMEvalKit's evaluate() gives the score that follows from the verdicts by hand."""
    from rlfr_eval.benchmarks.vlm import shipped_vlm

    predictions = {str(index): says(name, index) for index in range(len(SETS[name]))}
    given: dict[str, str] = {}
    for _ in range(5):
        told = worker.evaluate(name, predictions, given)
        if not told["needs"]:
            break
        given |= {need["key"]: judge_reply(need["prompt"]) for need in told["needs"]}
    assert not told["needs"]
    versions = [sample.columns.get("problem_version", "") for sample in SETS[name]]
    weights = {version: versions.count(version) for version in versions}
    own = upstream_percent(name, shipped_vlm()[name].score, told["result"], weights)
    right = [sample.right for sample in SETS[name]]
    if name == "WeMath":  # it counts what is missing of its 525 problems as mastered
        assert own == pytest.approx(100 * (525 - 6 + 2.5) / 525, abs=0.01)
    elif name == "MMMU_DEV_VAL":  # validation alone
        assert own == pytest.approx(100 * 4 / 6)
    else:
        assert own == pytest.approx(100 * sum(right) / len(right))


def test_a_models_text_is_never_run(worker, tmp_path):
    """VLMEvalKit evaluates what a model says, to compare it; here nothing of it runs, in no way of scoring."""
    target = tmp_path / "created"
    attack = f"open({str(target)!r}, 'w')"  # in lower case, as VLMEvalKit makes it
    for name in SETS:
        one = item(3, attack)
        for _ in range(3):
            outcome = worker.score(name, [one])[0]
            if "needs" not in outcome:
                break
            # a judge that hands the attack on
            one["given"][outcome["needs"]["key"]] = attack if outcome["needs"]["kind"] == "judge" else "undecided"
        worker.evaluate(name, {"3": attack}, dict(one["given"]))
    assert not target.exists()


def test_the_attack_does_run_in_vlmevalkit_as_it_is(tmp_path):
    """Without the guards the same text creates its file: so the test above can fail."""
    target = tmp_path / "created"
    attack = f"open({str(target)!r}, 'w')"  # in lower case, as VLMEvalKit makes it
    code = f"""
import importlib.util, os, sys, types
[root] = importlib.util.find_spec("vlmeval").submodule_search_locations
for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):  # without what they import, in ten seconds
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.join(root, *name.split(".")[1:])]
from vlmeval.dataset.utils import mathv
mathv.is_equal({attack!r}, "7")
"""
    subprocess.run([vlmeval_python(), "-c", code], check=False, capture_output=True, timeout=120)
    assert target.exists()


def test_a_data_set_must_be_usable(worker, tmp_path):
    def opened(text, name="mine"):
        (tmp_path / f"{name}.tsv").write_text(text)
        return list(worker.open(name, tmp_path / f"{name}.tsv", tmp_path / "images", []))

    for text, message in [
        ("index\tanswer\n0\tB\n", "has no column question"),
        ("index\tquestion\tanswer\n0\t?\tB\n", "neither a column image"),
        (f"index\tquestion\timage\n0\t?\t{PICTURE}\n", "no column answer"),
        ("index\tquestion\tanswer\timage\n", "has no rows"),
        (f"index\tquestion\tanswer\timage\n0\t?\tB\t{PICTURE}\n0\t?\tB\t{PICTURE}\n", "the index 0 more than once"),
        (f"index\tquestion\tanswer\timage\n0\t?\tB\t{'x' * 80}\n", "no known format"),
        ("index\tquestion\tanswer\timage_path\n0\t?\tB\tnowhere.png\n", "nowhere.png is not there"),
    ]:
        with pytest.raises(UserError, match=message):
            opened(text)
    *rows, last = opened(f"index\tquestion\tanswer\timage\n0\t?\t7\t{PICTURE}\n")
    assert last["ok"]["family"] == "open" and rows[0]["row"]["answer"] == "7"
    *rows, last = opened(f"index\tquestion\tanswer\tA\tB\timage\n0\t?\tB\tcat\tdog\t{PICTURE}\n")
    assert last["ok"]["family"] == "ImageMCQDataset" and rows[0]["row"]["options"] == {"A": "cat", "B": "dog"}
    for name in ("MVBench", "Video-MME", "MLVU_OpenEnded"):
        with pytest.raises(UserError, match=rf"{name} is \w+, which does not ask about still images; sets of videos"):
            opened("index\tquestion\tvideo\tanswer\n0\t?\tclip.mp4\tB\n", name)


def test_any_other_set_is_scored_row_by_row(worker, tmp_path):
    """A set of no family of ours: VLMEvalKit evaluates each row by itself, a yes-or-no set here."""
    path = tmp_path / "POPE.tsv"
    rows = [
        f"{i}\tIs there a dog?\t{answer}\tadversarial\t{i}.png\t{PICTURE}\n" for i, answer in enumerate(["Yes", "No"])
    ]
    path.write_text("index\tquestion\tanswer\tcategory\timage_path\timage\n" + "".join(rows))
    *_, last = worker.open("POPE", path, tmp_path / "images", [])
    assert last["ok"]["family"] == "rows"
    right, wrong = worker.score("POPE", [item(0, "Yes, there is."), item(1, "Yes")])
    score = {"column": "acc", "row": "Overall", "unit": "percent"}
    assert (
        upstream_percent("POPE", score, right["result"]) == 100
        and upstream_percent("POPE", score, wrong["result"]) == 0
    )


# Classes of VLMEvalKit that run what a model says: here nothing starts, and the row is undecided.


def opened(worker, folder, name, **cells):
    """Open a set of one row."""
    path = folder / f"{name}.tsv"
    row = {"index": "s0", "question": "?", "image": PICTURE, **cells}
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row), delimiter="\t")
        writer.writeheader()
        writer.writerow(row)
    return list(worker.open(name, path, folder / "images", []))


def outcome(worker, name, prediction):
    """What becomes of an answer by rules."""
    return worker.score(name, [{"id": "s0", "prediction": prediction, "given": {}, "compare": "vlmeval"}])[0]


def test_a_set_that_runs_the_models_program(worker, tmp_path):
    """SciDocBench's exec_match starts Python with the answer; VLMEvalKit takes what fails there for a wrong answer."""
    target = tmp_path / "created"
    reference = "import sys; open(sys.argv[2], 'w').write('x')"
    answer = json.dumps({"input_path": "/dev/null", "reference_script": reference})
    opened(worker, tmp_path, "SciDocBench", answer=answer, eval_method="exec_match", category="x")
    found = outcome(worker, "SciDocBench", f"```python\nopen({str(target)!r}, 'w')\n```")
    assert found == {
        "verdict": "undecided",
        "reason": "VLMEvalKit would have started a program (subprocess.Popen)",
        "asked": False,
    }
    assert not target.exists()
    told = worker.evaluate("SciDocBench", {"s0": f"```python\nopen({str(target)!r}, 'w')\n```"}, {})
    assert "would have started a program" in told["failed"] and not target.exists()


@pytest.mark.parametrize("kind", ["compare_expression_function", "judge_24points_function"])
def test_a_set_that_evaluates_an_equation(worker, tmp_path, kind):
    """MME-Reasoning hands the judge's equation to sympy, which evaluates it, or to eval, and swallows all."""
    target = tmp_path / "created"
    attack = f"open({str(target)!r}, 'w')"
    prompt = {"compare_expression_function": "formula_extraction_prompt", "judge_24points_function": "points24_prompt"}
    opened(worker, tmp_path, "MME-Reasoning", answer="['1+1']", question_type="open", function_id=kind,
           prompt_id=prompt[kind], capability="x",
           special_info="{'init_cards': [6, 4]}", reasoning_type="x", difficulty_level="x")  # fmt: skip
    reply = json.dumps({"equation": attack}) if kind.startswith("compare") else f"{attack}=24"
    need = outcome(worker, "MME-Reasoning", attack)["needs"]
    assert need["kind"] == "judge" and need["reads"] == "vlmevalkit" and attack in need["prompt"]
    # a judge that hands the attack on: for the row, and in its own evaluation of the whole
    given = {"id": "s0", "prediction": attack, "given": {need["key"]: reply}, "compare": "vlmeval"}
    (found,) = worker.score("MME-Reasoning", [given])
    assert found["verdict"] == "undecided" and "run text as code" in found["reason"]
    told = worker.evaluate("MME-Reasoning", {"s0": attack}, {need["key"]: reply})
    assert "run text as code" in told["failed"], told
    assert not target.exists()


def test_no_option_is_chosen_at_random(worker, tmp_path):
    """VMCBench has its own dice, without a judge."""
    opened(worker, tmp_path, "VMCBench_DEV", answer="B", A="cat", B="dog", C="cow", D="hen", category="MMStar")
    found = outcome(worker, "VMCBench_DEV", "I cannot tell at all.")
    assert found["verdict"] == "undecided" and "at random" in found["reason"]
    found = outcome(worker, "VMCBench_DEV", "It is (B)")  # its table wants all categories, what stands beside rows not
    assert found["failed"] and found["result"] == [{"row": "mean of rows", "hit": 1.0}]
