"""`rlfr-eval report` of a multimodal run: images, prompts, the judge's replies."""

import base64
import io

from PIL import Image

from tests.eval.vlm.sets import SETS
from tests.page_data import page_data


def data_of(page):
    return page_data(page.read_text())


def test_answers_stand_with_their_images_and_the_judges_reply(vlm, healthy, run_eval, alone):
    names = ("MathVista_MINI", "LogicVista")
    assert vlm("--judge-base-url", healthy.url, data=names)[0] == 0
    code, out, err = run_eval("report", "run")
    assert code == 0 and "page: run/report.html" in out, err
    data = data_of(alone / "run" / "report.html")
    assert data["benchmarks"] == list(names) and len(data["answers"]) == sum(len(SETS[name]) for name in names)
    for name in names:
        for index, sample in enumerate(SETS[name]):
            [answer] = [one for one in data["answers"] if (one["benchmark"], one["problem"]) == (name, str(index))]
            assert answer["verdict"] == ("right" if sample.right else "wrong")
            assert (answer["by"] == "judge") == bool(sample.judge)
            if sample.judge:
                assert sample.judge[-1] in answer["reply"]
    problem = data["problems"]["LogicVista/0"]
    assert problem["golds"] and "<image>" in problem["question"] and "(image: " not in problem["question"]
    [number] = problem["images"]
    content = base64.b64decode(data["images"][number].split(",")[1])
    assert Image.open(io.BytesIO(content)).size[0] > 1


def test_without_vlmevalkit_the_answers_are_shown_all_the_same(vlm, run_eval, alone, monkeypatch):
    assert vlm("--judge", "none", data=("MathVista_MINI",))[0] == 0
    monkeypatch.setenv("VLMEVAL_PYTHON", str(alone / "no-python"))
    code, _, err = run_eval("report", "run")
    assert code == 0, err
    page = alone / "run" / "report.html"
    assert "could not be read again" in page.read_text()
    assert len(data_of(page)["answers"]) == len(SETS["MathVista_MINI"])
