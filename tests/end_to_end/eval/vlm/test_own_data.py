"""Files and TOML descriptions of one's own: what they are taken for, and what is refused before anybody is asked."""

import base64
import json
import shutil

import pytest

from rlfr_eval.benchmarks.vlm import resolve_vlm
from rlfr_eval.benchmarks.vlm_presets import vlm_preset
from rlfr_vlm.errors import UserError
from tests.end_to_end.eval.vlm.test_strict_judges import POPE, write_pope
from tests.eval.vlm.sets import draw, policy, text_of

PICTURE = base64.b64encode(draw(3)).decode()


def write_open(path, golds, question="How many?"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i}\t{question}\t{gold}\t{PICTURE}\n" for i, gold in enumerate(golds)]
    path.write_text("index\tquestion\tanswer\timage\n" + "".join(rows))
    return path


def test_a_known_set_by_path_is_that_set(vlm, healthy, scores, alone, lmu, run_eval):
    """WeMath's own score, MMMU's validation split: not the share of right answers that any other file gets."""
    (alone / "mine").mkdir()
    for name in ("WeMath", "MMMU_DEV_VAL"):
        shutil.copy(lmu / f"{name}.tsv", alone / "mine")
    data = ("mine/WeMath.tsv", "mine/MMMU_DEV_VAL.tsv")
    code, _, err = vlm("--judge-base-url", healthy.url, data=data)
    assert code == 2 and "is not VLMEvalKit's copy of We-Math testmini" in err and "give it another name" in err
    assert f"--data-dir {alone}/mine --relock" in err and not vlm.server.requests
    shutil.copy(lmu / "rlfr-eval.lock.json", alone / "mine")
    code, _, err = vlm("--judge-base-url", healthy.url, data=data)
    assert code == 0, err
    found = scores(alone / "run")["benchmarks"]
    assert found["WeMath"]["metric"] == "strict" and found["WeMath"]["accuracy"] == pytest.approx(2.5 / 6)
    assert found["MMMU_DEV_VAL"]["problems_scored"] == 6


def test_relocked_data_stand_beside_no_published_value(vlm, scores, alone, lmu, run_eval):
    """A WeMath of one problem that was accepted by --relock is not the whole set, and no copy of it."""
    lines = (lmu / "WeMath.tsv").read_text().splitlines(keepends=True)
    (lmu / "WeMath.tsv").write_text("".join(lines[:4]))
    assert run_eval("fetch", "--vlm", "WeMath", "--relock", "--data-dir", str(lmu))[0] == 0
    code, out, _ = vlm("--judge", "none", data=("WeMath",))
    one = scores(alone / "run")["benchmarks"]["WeMath"]
    assert code == 0 and one["accuracy"] is None and "all 19 problems; these are 3" in one["unscoreable"]
    assert "the data are not the copy that VLMEvalKit names" in out and one["reference"] == []
    assert "RLFR paper" not in (alone / "run" / "report.md").read_text()
    assert json.loads((alone / "run" / "run.json").read_text())["specs"]["WeMath"]["official"] is False


def test_two_files_of_one_name_are_refused(vlm, alone):
    write_open(alone / "a" / "mine.tsv", ["7"])
    write_open(alone / "b" / "mine.tsv", ["8"])
    code, _, err = vlm("--judge", "none", data=("a/mine.tsv", "b/mine.tsv"))
    assert code == 2 and "two things that are called mine" in err and not vlm.server.requests
    assert len(resolve_vlm(["a/mine.tsv", "a/mine.tsv"], vlm_preset("official"), alone)) == 1


def test_a_changed_description_makes_other_verdicts(vlm, serve, scores, alone, lmu):
    """Of the same answers in the same folder: where VLMEvalKit's score stands, and how near a number must be."""
    write_pope(alone)
    path = alone / "POPE.toml"
    vlm.server = serve(lambda body, n: "Yes" if any(f"[q{i}]" in text_of(body) for i in (0, 2)) else "No")
    path.write_text(POPE.replace("acc", "Overall"))
    code, out, err = vlm("--judge", "none", "--cross-check", data=("POPE.toml",))
    assert code == 0 and "own evaluation says 100.00, here it is 50.00" in err and "F1 is no mean" in out
    path.write_text(POPE)
    assert vlm("--judge", "none", data=("POPE.toml",))[0] == 0
    assert scores(alone / "run")["benchmarks"]["POPE"]["accuracy"] == 1.0
    write_open(alone / "near.tsv", ["7"])
    near = (
        'name = "near"\ntitle = "near"\nlicence = "x"\nn = 1\nvlmeval = "near"\nfile = "near.tsv"\nfree_text = false\n'
    )
    vlm.server = serve(lambda body, n: "\\boxed{7.2}")
    for more, right in (("", 0), ("tolerance = 0.1\n", 1)):
        (alone / "near.toml").write_text(near + more)
        assert vlm("--judge", "none", data=("near.toml",), out="near")[0] == 0
        assert scores(alone / "near")["benchmarks"]["near"]["right"] == right


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('where = "validation"', "where is 'validation', a str"),
        ('values = ["a"]', "values is ['a'], a list"),
        ('groups = "skill"', "groups is 'skill', a str; it must be a list"),
        ('score = "acc"', "score is 'acc', a str"),
        ('[values]\ncategory = "x"', "values is {'category': 'x'}"),
        ("[where]\nsplit = 3", "where is {'split': 3}"),
        ("[sampling]\nmax_tokens = 77", "sampling is no part of a benchmark's file"),
        ('prompt = "paper"', "prompt is no part"),
        ('family = "MathVista"', "family is no part"),
        ("jpeg = true", "jpeg is no part"),
        ('system_prompt = "x"', "system_prompt is no part"),
        ('vlmeval_version = "1"', "vlmeval_version is no part"),
    ],
)
def test_a_description_that_would_be_passed_over_is_refused(alone, more, message):
    path = alone / "x.toml"
    path.write_text(f'name = "x"\ntitle = "x"\nlicence = "x"\nn = 0\nvlmeval = "x"\n{more}\n')
    with pytest.raises(UserError) as caught:
        resolve_vlm([str(path)], vlm_preset("official"), alone)
    assert message in str(caught.value)


def test_what_can_be_known_beforehand_is_said_beforehand(vlm, serve, alone, lmu, run_eval):
    """No answer is paid for before it turns out that there can be no score."""
    write_pope(alone)
    (alone / "POPE.toml").write_text(POPE.replace('unit = "percent"', ""))
    code, _, err = vlm("--judge", "none", data=("POPE.toml",))
    assert code == 2 and "POPE: [score] in its TOML file must say column, row and unit" in err
    (alone / "POPE.toml").write_text(POPE.replace("acc", "accc"))
    code, _, err = vlm("--judge", "none", data=("POPE.toml",))
    assert code == 2 and "POPE: VLMEvalKit's result has no value at {'column': 'accc'" in err
    for name, column in (("MathVista_MINI", "question_type"), ("DynaMath", "answer_type"), ("MMMU_DEV_VAL", "split")):
        rows = (lmu / f"{name}.tsv").read_text().replace(f"\t{column}\t", "\tx\t").replace(f"\t{column}\n", "\tx\n")
        (lmu / f"{name}.tsv").write_text(rows)
        assert run_eval("fetch", "--vlm", name, "--relock", "--data-dir", str(lmu))[0] == 0
        code, _, err = vlm("--judge", "none", data=(name,))
        assert code == 2 and f"has no column {column}" in err, err
    assert not vlm.server.requests


def test_a_folders_other_benchmark_must_be_found_before_asking(vlm, serve, alone):
    write_open(alone / "mine.tsv", ["7"])
    vlm.server = serve(lambda body, n: policy(body) if "[VisuLogic-" in text_of(body) else "\\boxed{7}")
    assert vlm("--judge", "none", data=("mine.tsv",))[0] == 0
    (alone / "mine.tsv").rename(alone / "moved.tsv")
    asked = len(vlm.server.requests)
    code, _, err = vlm("--judge", "none", data=("VisuLogic",))
    assert code == 2 and "mine.tsv is missing" in err and len(vlm.server.requests) == asked


def test_a_folders_other_benchmark_is_read_once(vlm, alone, running, monkeypatch):
    """To find it before anybody is asked, and to score it again in the end."""
    assert vlm("--judge", "none", data=("VisuLogic",))[0] == 0
    opened, real = [], running.open
    monkeypatch.setattr(running, "open", lambda name, *more: (opened.append(name), real(name, *more))[1])
    assert vlm("--judge", "none", data=("LogicVista",))[0] == 0
    assert sorted(opened) == ["LogicVista", "VisuLogic"]


def test_a_run_on_ones_own_file_is_looked_at_from_anywhere(vlm, serve, alone, monkeypatch, run_eval):
    write_open(alone / "a" / "mine.tsv", ["7"])
    vlm.server = serve(lambda body, n: "\\boxed{7}")
    assert vlm("--judge", "none", data=("a/mine.tsv",))[0] == 0
    (alone / "elsewhere").mkdir()
    monkeypatch.chdir(alone / "elsewhere")
    assert run_eval("regrade", "../run", "--judge", "none")[0] == 0
    (alone / "a").rename(alone / "b")
    code, _, err = run_eval("regrade", "../run", "--judge", "none")
    assert code == 2 and "mine.tsv is missing" in err
    assert run_eval("regrade", "../run", "--judge", "none", "--data-dir", str(alone / "b"))[0] == 0


def test_cross_check_passes_over_what_it_cannot_compare(vlm, serve, alone):
    rows = "".join(f"{i}\tWhat?\tB\tcat\tdog\t{PICTURE}\n" for i in range(2))
    (alone / "mine.tsv").write_text("index\tquestion\tanswer\tA\tB\timage\n" + rows)
    vlm.server = serve(lambda body, n: "B")
    code, out, err = vlm("--judge", "none", "--cross-check", data=("mine.tsv",))
    assert code == 0 and "mine: VLMEvalKit's own evaluation cannot be compared: no [score] says where" in err
    assert (alone / "run" / "report.md").exists() and "100.0" in out


def test_a_set_under_another_name_is_scored_as_what_it_is(vlm, healthy, scores, alone, lmu):
    """Two descriptions of one class of VLMEvalKit, of which one has fewer rows, in one run."""
    lines = (lmu / "LogicVista.tsv").read_text().splitlines(keepends=True)
    (alone / "few.tsv").write_text("".join(lines[:3]))
    (alone / "few.toml").write_text(
        'name = "few"\ntitle = "few"\nlicence = "x"\nn = 2\nvlmeval = "LogicVista"\nfile = "few.tsv"\n'
    )
    code, _, err = vlm("--judge-base-url", healthy.url, data=("LogicVista", "few.toml"))
    found = scores(alone / "run")["benchmarks"]
    assert code == 0 and [found[name]["accuracy"] for name in ("LogicVista", "few")] == [0.6, 0.5], err
