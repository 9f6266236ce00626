"""The survey of VLMEvalKit's classes: its shipped table is whole, and says what a new survey finds."""

import importlib.util
import json
from pathlib import Path

import pytest

from rlfr_eval.benchmarks.vlm import surveyed_sets

FILE = Path(__file__).parents[3] / "benchmarks" / "vlmevalkit" / "survey.py"


@pytest.fixture(scope="module")
def survey():
    spec = importlib.util.spec_from_file_location("survey", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_every_class_and_set(running, survey):
    table = surveyed_sets()
    assert running.hello()["ms-vlmeval"] == table["ms-vlmeval"]
    assert {cls: (set(one["names"]), one["build_judge"]) for cls, one in table["classes"].items()} == {
        one["class"]: (set(one["names"]), one["build_judge"]) for one in running.sets() if one["names"]
    }
    for cls, one in table["classes"].items():
        assert one["how"] != survey.REFUSED or one["why"], cls
        assert one["how"] not in (survey.RULES, survey.JUDGE) or one["score"], cls


@pytest.mark.parametrize("cls", ["MMVet", "MMVMBench", "MathVista", "LLaVABench", "VideoMME"])
def test_a_class_is_still_what_the_table_says(running, survey, tmp_path, cls):
    found = survey.survey(next(one for one in running.sets() if one["class"] == cls), running, tmp_path)
    stored = surveyed_sets()["classes"][cls]
    assert found == {key: value for key, value in stored.items() if key not in ("names", "build_judge")}


def test_it_is_listed(run_eval):
    code, out, _ = run_eval("list", "--sets")
    assert code == 0 and "MMVet and 1 more" in out and "vlmeval.dataset.smp" in out
    code, out, _ = run_eval("list", "--sets", "--json")
    assert code == 0 and json.loads(out) == surveyed_sets()
