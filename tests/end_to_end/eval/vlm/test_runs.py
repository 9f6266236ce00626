"""`rlfr-eval vlm` from end to end with VLMEvalKit's real package: scores by hand, files, presets, one's own data."""

import base64
import json
import ssl
import sys

import pytest

from rlfr_vlm.errors import UserError
from tests.eval.importing.logs import write_tsv
from tests.eval.vlm.fixtures import vlmeval_python
from tests.eval.vlm.sets import SETS, draw, judge, policy, rows, says, text_of

BY_HAND = {
    "MathVista_MINI": 5 / 8, "MathVision_MINI": 5 / 8, "MathVerse_MINI": 3 / 5, "WeMath": 2.5 / 6, "LogicVista": 3 / 5,
    "VisuLogic": 3 / 6, "DynaMath": 4 / 6, "MMMU_DEV_VAL": 4 / 6,
}  # fmt: skip
WITH_JUDGE = sum(bool(sample.judge) for samples in SETS.values() for sample in samples)
ROWS = sum(map(len, SETS.values()))


def test_scores_by_hand_equal_to_vlmevalkits_own(vlm, healthy, scores, alone, run_eval):
    before = ssl._create_default_https_context
    code, out, err = vlm("--judge-base-url", healthy.url, "--cross-check")
    found = scores(alone / "run")["benchmarks"]
    assert code == 0, err
    assert {name: one["accuracy"] for name, one in found.items()} == pytest.approx(BY_HAND)
    assert found["WeMath"]["metrics"]["loose"]["accuracy"] == pytest.approx(3.5 / 6)
    assert found["DynaMath"]["metrics"]["worst case"]["accuracy"] == pytest.approx(1 / 3)
    assert found["MathVerse_MINI"]["groups"]["problem_version"]["Vision Only"]["accuracy"] == 0.5
    for name, one in found.items():
        wanted = [sample.right for sample in SETS[name]]
        right = sum(wanted) if name != "MMMU_DEV_VAL" else 4
        assert one["right"] == right and one["undecided"] == 0 and one["headline"], name
        assert one["judged"] == sum(bool(sample.judge) for sample in SETS[name]), name
    for name in SETS:
        if name != "WeMath":  # divides by the 525 problems of the whole set
            assert f"{name}: VLMEvalKit's own evaluation says {100 * BY_HAND[name]:.2f}, here it is" in err
            assert f"{name}: VLMEvalKit's own evaluation says" in err and "(see quirks" not in err.split(name)[1][:99]
    assert len(vlm.server.requests) == ROWS
    # TLS and VLMEvalKit stay out of this process
    assert ssl._create_default_https_context is before and "vlmeval" not in sys.modules
    # the same again asks nobody
    asked = len(healthy.requests)
    assert vlm("--judge-base-url", healthy.url)[0] == 0
    assert len(vlm.server.requests) == ROWS and len(healthy.requests) - asked <= 20  # known cases alone
    record = json.loads((alone / "run" / "run.json").read_text())
    made = record["benchmarks"]["WeMath"]
    assert record["kind"] == "vlm" and made["prompt"]["name"] == "official" and made["vlmeval"] == "0.0.20"
    assert (
        made["images"] == "as they are" and made["sampling"]["temperature"] == 0 and len(made["prompt"]["hash"]) == 12
    )
    assert record["cross_check"]["MathVista_MINI"] == {"own": 62.5, "here": 62.5}
    shown = run_eval("show", "run", "--id", "MathVerse_MINI/1/0")[1]
    assert "AB is 50 mm" in shown and "(image: " in shown and "right" in shown and "50 mm\n\n1" in shown
    assert "WeMath (strict)" in out and "41.7" in out and "loose 58.3" in out
    assert "| WeMath (strict) |" in (alone / "run" / "report.md").read_text()


def test_without_a_judge_rules_alone_are_shown_as_such(vlm, scores, alone, healthy, run_eval):
    code, out, _ = vlm("--judge", "none")
    found = scores(alone / "run")["benchmarks"]
    assert code == 0 and "judge: none (rules only)" in out
    for name, one in found.items():
        open_ones = sum(bool(sample.judge) for sample in SETS[name])
        if name != "MMMU_DEV_VAL":
            assert one["undecided"] == open_ones, name
        assert one["headline"] == (not open_ones) and one["lower"] <= BY_HAND[name] <= one["upper"], name
    assert found["MathVerse_MINI"]["accuracy"] is None
    assert found["LogicVista"]["undecided_reasons"] == {"only a judge can tell": 5}
    # stored answers are enough for a judge that comes later
    code, _, _ = run_eval("regrade", "run", "--judge-base-url", healthy.url)
    assert code == 0 and len(vlm.server.requests) == ROWS
    again = scores(alone / "run")["benchmarks"]
    assert {name: one["accuracy"] for name, one in again.items()} == pytest.approx(BY_HAND)


def test_two_judges_are_compared(vlm, healthy, serve, run_eval, alone):
    """The other judge, asked about the same answers, takes two right ones for wrong."""

    def other(body, n):
        text = text_of(body)
        changed = {"(MathVista_MINI-4)": "15", "(LogicVista-0)": "C"}
        return next((reply for mark, reply in changed.items() if mark in text), judge(body, n))

    assert vlm("--judge-base-url", healthy.url)[0] == 0
    second = serve(other, models=({"id": "j2"},))
    code, _, err = run_eval("regrade", "run", "--judge-base-url", second.url)
    assert code == 0 and f"agree on {WITH_JUDGE - 2} of {WITH_JUDGE} answers, kappa 0.8" in err
    code, out, _ = run_eval("judge", "agreement", "run")
    assert "right for the first only: LogicVista/0/0" in out and "right for the first only: MathVista_MINI/4/0" in out
    told = json.loads(run_eval("judge", "agreement", "run", "--json")[1])
    (one,) = told.values()
    rights = sum(sample.right for samples in SETS.values() for sample in samples if sample.judge)
    total, first, later = WITH_JUDGE, rights, rights - 2
    chance = (first * later + (total - first) * (total - later)) / total**2
    assert one["kappa"] == pytest.approx(((total - 2) / total - chance) / (1 - chance))
    assert run_eval("judge", "agreement", "nowhere")[0] == 2
    assert "has no place there" in run_eval("judge", "check", "run")[2]


def test_imported_predictions_are_scored_as_those_of_a_run(vlm, healthy, scores, alone, lmu, run_eval):
    """The answers of a run in VLMEvalKit's prediction files. Row 2 of MathVision failed; row 3 is of another set."""
    data = ("MathVista_MINI", "MathVision_MINI")
    assert vlm("--judge-base-url", healthy.url, data=data)[0] == 0
    for name in data:
        table = [{**row, "prediction": says(name, row["index"])} for row in rows(name)]
        for row in table:
            del row["image"]
        if name == "MathVision_MINI":
            table[2]["prediction"] = "Failed to obtain answer via API."
            table[3]["question"] = "Who was it?"
        write_tsv(alone / "outputs" / f"org-m_{name}.tsv", table)
    asked = len(vlm.server.requests)
    paths = [f"outputs/org-m_{name}.tsv" for name in data]
    judged = ("--judge-base-url", healthy.url, "--data-dir", str(lmu))
    code, out, err = run_eval("import", *paths, "--out", "theirs", *judged)
    assert code == 3 and len(vlm.server.requests) == asked, err
    ours, theirs = (scores(alone / run)["benchmarks"] for run in ("run", "theirs"))
    same = ("accuracy", "right", "wrong", "undecided", "judged", "coverage")
    assert {key: theirs[data[0]][key] for key in same} == {key: ours[data[0]][key] for key in same}
    assert theirs[data[0]]["accuracy"] == 5 / 8 and "imported" not in ours[data[0]]
    # of MathVision's eight answers, five right, one right one failed and one right one is of another question
    assert (theirs[data[1]]["right"], theirs[data[1]]["missing"]) == (3, 2)
    assert theirs[data[1]]["imported"]["listed"] == {
        "another question at this index": 1,
        "no answer in the file": 1,
        "problem without an answer": 2,
    }
    assert "org-m" in out and "MathVision_MINI: VLMEvalKit asked for these answers" in out
    assert run_eval("compare", "run", "theirs")[0] == 0 and run_eval("table", "run", "theirs")[0] == 0
    assert "not known; this is the question" in run_eval("show", "theirs", "--id", "MathVista_MINI/0/0")[1]
    assert run_eval("regrade", "theirs", *judged)[0] == 3
    assert scores(alone / "theirs")["benchmarks"] == theirs
    # scored as under the paper's preset, they are not compared with the official one's
    assert run_eval("import", paths[0], "--out", "paper", "--preset", "paper", *judged)[0] == 0
    assert "presets are not compared" in run_eval("compare", "run", "paper")[2]


def test_a_part_has_a_score_only_where_it_is_defined(vlm, healthy, scores, alone):
    _, out, _ = vlm("--judge-base-url", healthy.url, "--limit", "3", "--show-undecided")
    found = scores(alone / "run")["benchmarks"]
    for name in ("WeMath", "VisuLogic"):
        assert found[name]["accuracy"] is None and not found[name]["headline"]
        row = next(line for line in out.splitlines() if line.startswith(name))
        assert "PARTIAL 3/" in row and row.split()[row.split().index("3") + 1] == "-"
        assert f"note: {name}: no score: its score" in out
    assert found["MathVista_MINI"]["accuracy"] == pytest.approx(2 / 3)
    assert "mean over" not in out


def test_a_file_that_is_there_stays_as_it_is(vlm, lmu, run_eval, alone):
    """VLMEvalKit downloads over a file whose MD5 it does not know; here it is refused, with the ways out."""
    path = lmu / "VisuLogic.tsv"
    (lmu / "rlfr-eval.lock.json").unlink()
    content = path.read_bytes()
    code, _, err = vlm("--judge", "none", data=("VisuLogic",))
    assert code == 2 and "is not VLMEvalKit's copy of VisuLogic: its MD5 is" in err and "--relock" in err
    assert run_eval("fetch", "--vlm", "VisuLogic", "--data-dir", str(lmu))[0] == 2
    assert path.read_bytes() == content and not vlm.server.requests
    assert run_eval("fetch", "--vlm", "VisuLogic", "--relock", "--data-dir", str(lmu))[0] == 0
    path.write_bytes(content + b"\n")
    code, _, err = vlm("--judge", "none", data=("VisuLogic",))
    assert code == 2 and "has changed since it was locked" in err
    path.unlink()
    code, _, err = vlm("--judge", "none", data=("VisuLogic",))
    assert code == 2 and "VisuLogic.tsv is missing. Get it with `rlfr-eval fetch --vlm VisuLogic" in err


def test_somebody_elses_env_file_changes_nothing_and_a_file_of_the_logs_name_is_added_to(
    fresh, vlm, healthy, scores, alone
):
    """VLMEvalKit reads `.env` beside its package and puts it over everything."""
    (alone / "run").mkdir()
    (alone / "run" / "vlmeval.log").write_text("my notes\n")
    packages = vlmeval_python().parents[1] / "lib"
    (site,) = packages.glob("python3*/site-packages")
    path = site / ".env"
    assert not path.exists()
    path.write_text(
        "LOCAL_LLM=evil\nOPENAI_API_BASE=http://127.0.0.1:9/v1\nOPENAI_API_KEY=sk-evil\nLMUData=/nowhere\n"
    )
    try:
        code, out, err = vlm("--judge-base-url", healthy.url, "--cross-check", data=("MathVista_MINI", "LogicVista"))
    finally:
        path.unlink()
    assert code == 0 and scores(alone / "run")["benchmarks"]["MathVista_MINI"]["accuracy"] == 0.625
    assert "own evaluation says 62.50, here it is 62.50" in err and "evil" not in out + err
    assert (alone / "run" / "vlmeval.log").read_text().startswith("my notes\n")


def test_the_three_presets_and_the_images_on_the_wire(vlm, serve, alone, lmu):
    """Text and images as the request has them; PNG bytes are the file's own, JPEG is made on demand."""
    seen = {}
    for preset, more in (("official", ()), ("paper", ("--jpeg",)), ("training", ("--system-prompt", "Box it."))):
        vlm.server = serve(lambda body, n: says("MathVista_MINI", 0))
        data = ("MathVista_MINI", "WeMath", "VisuLogic")
        code, _, err = vlm("--judge", "none", "--preset", preset, *more, data=data, out=f"run-{preset}")
        assert code == 0, err
        bodies = {text_of(body).split("[")[1].split("]")[0]: body for body in vlm.server.requests}
        seen[preset] = bodies
    official = seen["official"]["MathVista_MINI-0"]
    content = official["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"] and len(official["messages"]) == 1
    assert content[1]["text"] == "How much is it? [MathVista_MINI-0]"
    assert base64.b64decode(content[0]["image_url"]["url"].removeprefix("data:image/png;base64,")) == draw(0)
    assert (official["temperature"], official["max_tokens"]) == (0.0, 4096)
    paper = seen["paper"]["MathVista_MINI-0"]
    content = paper["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    assert content[0]["text"].startswith("Solve the question.") and "\\\\boxed{2}" in content[0]["text"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "max_tokens" not in paper and paper["seed"] == 3407
    assert (paper["temperature"], paper["top_p"], paper["top_k"]) == (0.01, 0.001, 1)
    assert (paper["repetition_penalty"], paper["presence_penalty"]) == (1.0, 0.0)
    assert text_of(seen["paper"]["WeMath-0"]) == text_of(seen["official"]["WeMath-0"])  # no chain of thought there
    assert "Answer the question directly.\nAnswer the preceding multiple" in text_of(seen["paper"]["VisuLogic-0"])
    training = seen["training"]["WeMath-0"]
    assert training["messages"][0] == {"role": "system", "content": "Box it."}
    assert text_of(training) == "Which is it? [WeMath-0]\nA. square\nB. triangle\nC. circle\nD. hexagon"


def test_presets_never_meet(vlm, run_eval, alone):
    assert vlm("--judge", "none", data=("VisuLogic",))[0] == 0
    code, _, err = vlm("--judge", "none", "--preset", "paper", data=("VisuLogic",))
    assert code == 2 and "VisuLogic.prompt.name: 'official' -> 'paper'" in err
    assert vlm("--judge", "none", "--preset", "paper", data=("VisuLogic",), out="other")[0] == 0
    code, _, err = run_eval("compare", "run", "other")
    assert code == 2 and "presets are not compared" in err
    assert run_eval("compare", "run", "run")[0] == 0


def test_compare_is_about_the_rows_that_are_scored(vlm, serve, healthy, run_eval, alone):
    """MMMU's development row, turned from right to wrong, moves nothing; WeMath's pairs are answers."""
    data = ("MMMU_DEV_VAL", "WeMath")
    assert vlm("--judge-base-url", healthy.url, data=data)[0] == 0
    server = serve(lambda body, n: "B" if "[MMMU_DEV_VAL-4]" in text_of(body) else policy(body))
    assert vlm("--judge-base-url", healthy.url, data=data, out="other", server=server)[0] == 0
    code, out, err = run_eval("compare", "run", "other", "--json")
    mmmu, wemath = json.loads(out)["other"][:2]
    assert code == 0 and (mmmu["pairs"], mmmu["value"], mmmu["lost"]) == (6, 0.0, [])
    assert wemath["pairs"] == 19 and "WeMath is compared by answers" in err


def test_a_key_in_a_servers_command_is_not_stored():
    from rlfr_eval.model.serving import ServingOptions

    identity = ServingOptions(model="gpt2", command="serve --api-key sk-verysecret {model}").identity()
    assert identity["served_by"] == "serve --api-key (secret) {model}"


def test_the_training_preset_asks_as_the_policy_was_trained(vlm, alone):
    code, _, err = vlm("--preset", "training", "--judge", "none", data=("VisuLogic",))
    assert code == 2 and "--preset training needs the config.yaml" in err and "--system-prompt" in err
    folder = alone / "policy" / "checkpoint-8"
    folder.mkdir(parents=True)
    (folder.parent / "config.yaml").write_text("system_prompt: Think first.\nimage_max_pixels: 50176\n")
    code, _, err = vlm("--preset", "training", "--judge", "none", "--model", "m", data=("VisuLogic",))
    assert code == 2
    from rlfr_eval.benchmarks.training_prompt import TrainingPrompt, training_prompt

    assert training_prompt(str(folder)) == TrainingPrompt("Think first.", None, 50176)
    # a name on a server is beside no file: not beside whatever lies in this folder
    (alone / "config.yaml").write_text("system_prompt: STRAY\n")
    for model in ("m", "", "org/m"):
        with pytest.raises(UserError, match="there is none"):
            training_prompt(model)
    (folder.parent / "config.yaml").write_text("system_prompt: [a, b]\n")
    with pytest.raises(UserError, match=r"system_prompt is \['a', 'b'\]; it must be of type str"):
        training_prompt(str(folder))


def test_the_papers_context_is_not_what_a_server_of_others_has(vlm):
    for preset, said in (("paper", True), ("official", False)):
        code, _, err = vlm("--judge", "none", "--preset", preset, data=("VisuLogic",), out=preset)
        assert code == 0 and ("context is 8192" in err) == said


def test_data_of_ones_own(vlm, serve, alone, scores, healthy):
    """Options by VLMEvalKit's rules and judge prompts; open questions by the one grader, and its judge."""
    from tests.end_to_end.eval.test_judged_runs import judge as common_judge

    picture = base64.b64encode(draw(3)).decode()
    (alone / "mine.tsv").write_text(
        "index\tquestion\tanswer\tA\tB\timage\n"
        + "".join(f"{i}\tWhat? [q{i}]\tB\tcat\tdog\t{picture}\n" for i in range(3))
    )
    golds = ("3", "3", "because the winter was cold")
    open_rows = "".join(f"{i}\tHow? [q{i}]\t{gold}\t{picture}\n" for i, gold in enumerate(golds))
    (alone / "open.tsv").write_text(f"index\tquestion\tanswer\timage\n{open_rows}")
    answers = {
        "mine": ["B", "A", "It is the one that barks"],
        "open": ["\\boxed{3}", "\\boxed{4}", "\\boxed{the cold season}"],
    }

    def policy(body, n):
        text = text_of(body)
        return answers["mine" if "Options" in text else "open"][int(text.split("[q")[1][0])]

    vlm.server = serve(policy)
    code, _, err = vlm("--judge", "none", data=("mine.tsv", "open.tsv"))
    found = scores(alone / "run")["benchmarks"]
    assert code == 0, err
    assert [found[name][key] for name in ("mine", "open") for key in ("right", "wrong", "undecided")] == [
        1,
        1,
        1,
        1,
        1,
        1,
    ]
    second = serve(common_judge)
    code, _, err = vlm("--judge-base-url", second.url, data=("open.tsv",))
    assert code == 0 and scores(alone / "run")["benchmarks"]["open"]["right"] == 2, err


def test_preview_and_list_and_dry_run(lmu, run_eval, vlm, alone):
    code, out, _ = run_eval("preview", "--data", "MMMU_DEV_VAL", "--data-dir", str(lmu), "--id", "6", "--json")
    row = json.loads(out)
    assert (
        code == 0 and row["golds"] == ["B"] and "(image: " in row["prompt"] and row["fields"]["split"] == "validation"
    )
    assert row["images"][0]["size"] == "160 x 120"
    code, out, _ = run_eval("preview", "--data", "WeMath", "--data-dir", str(lmu), "--preset", "paper", "-n", "2")
    assert code == 0 and out.count("=== WeMath") == 2 and "--- gold\nB" in out
    code, out, _ = run_eval("list", "--vlm")
    assert code == 0 and all(name in out for name in SETS) and "cannot" not in out
    code, out, err = vlm("--dry-run", "--judge", "none")
    assert code == 0 and f"{ROWS} answers of" in out and not (alone / "run").exists(), err
    code, _, err = run_eval(
        "vlm", "--base-url", "http://127.0.0.1:9", "--data", "MathVistaMINI", "--data-dir", str(lmu)
    )
    assert code == 2 and "Did you mean" in err and "MathVista_MINI" in err


def test_preview_shows_what_the_training_preset_asks(lmu, run_eval, alone):
    arguments = ("preview", "--data", "VisuLogic", "--data-dir", str(lmu), "-n", "1", "--preset", "training")
    code, _, err = run_eval(*arguments)
    assert code == 2 and "needs the config.yaml" in err
    (alone / "policy").mkdir()
    (alone / "policy" / "config.yaml").write_text("system_prompt: Think first.\n")
    assert "[system]\nThink first." in run_eval(*arguments, "--model", "policy")[1]
    assert "[system]\nBox it." in run_eval(*arguments, "--system-prompt", "Box it.")[1]
    assert run_eval(*arguments, "--rows", "-3")[0] == 2


def test_lmdeploy_gets_limits_of_pixels_where_it_reads_them(vlm, serve):
    server = serve(policy, models=({"id": "m", "owned_by": "lmdeploy"},))
    limits = ("--min-pixels", "784", "--max-pixels", "50176")
    code, _, err = vlm("--judge", "none", *limits, data=("VisuLogic",), server=server)
    assert code == 0, err
    parts = [part for asked in server.requests for part in asked["messages"][-1]["content"]]
    images = [part["image_url"] for part in parts if part["type"] == "image_url"]
    assert len(images) == 6 and {(one["min_pixels"], one["max_pixels"]) for one in images} == {(784, 50176)}
    assert server.requests[0]["mm_processor_kwargs"] == {"image": {"min_pixels": 784, "max_pixels": 50176}}


@pytest.mark.parametrize("limits", [("0", "9"), ("-5", "9"), ("500", "10")])
def test_limits_of_pixels_that_are_none(vlm, limits):
    code, _, err = vlm("--judge", "none", "--min-pixels", limits[0], "--max-pixels", limits[1], data=("VisuLogic",))
    assert code == 2 and "counts of pixels" in err and not vlm.server.requests


def test_no_environment_with_vlmevalkit_is_one_message(run_eval, monkeypatch, alone, lmu):
    monkeypatch.setenv("VLMEVAL_PYTHON", "/nowhere/python")
    arguments = ("vlm", "--base-url", "http://127.0.0.1:9", "--data", "WeMath", "--data-dir", str(lmu))
    code, _, err = run_eval(*arguments)
    assert code == 2 and "VLMEVAL_PYTHON is '/nowhere/python' (environment); there is no such file" in err
    monkeypatch.setenv("VLMEVAL_PYTHON", sys.executable)
    code, _, err = run_eval(*arguments)
    assert code == 2 and "VLMEvalKit does not import: No module named 'vlmeval'" in err
    monkeypatch.delenv("VLMEVAL_PYTHON")
    monkeypatch.setattr("rlfr_eval.vlmeval.worker_process.ENVIRONMENT", ".venv-of-nobody")
    code, _, err = run_eval(*arguments)
    assert code == 2 and "bash scripts/setup_vlmeval.sh" in err


def test_several_samples_to_a_problem(vlm, healthy, scores, alone):
    """Each problem is asked twice with other seeds; the score of MMMU is about its validation rows alone."""
    data = ("MMMU_DEV_VAL", "WeMath", "DynaMath")
    code, _, err = vlm("--samples", "2", "--judge-base-url", healthy.url, data=data)
    assert code == 2 and "2 samples at temperature 0 would all be the same answer" in err
    several = ("--samples", "2", "--temperature", "0.7", "--judge-base-url", healthy.url, "--cross-check")
    code, out, err = vlm(*several, data=data)
    found = scores(alone / "run")["benchmarks"]
    single = vlm("--temperature", "0.7", "--judge-base-url", healthy.url, data=data, out="single")
    once = scores(alone / "single")["benchmarks"]
    assert code == single[0] == 0 and "cannot be compared: it takes one answer to a problem" in err
    for name in data:  # the scripted policy says the same each time
        assert found[name]["accuracy"] == once[name]["accuracy"] and found[name]["samples"] == 2
        assert found[name]["answered"] == 2 * once[name]["answered"]
    assert (
        found["DynaMath"]["metrics"]["worst case"]["accuracy"] == once["DynaMath"]["metrics"]["worst case"]["accuracy"]
    )
    mmmu = found["MMMU_DEV_VAL"]
    row = next(line for line in out.splitlines() if line.startswith("MMMU_DEV_VAL (avg@2)"))
    assert row.split()[2] == str(mmmu["answers_scored"]) == str(2 * mmmu["problems_scored"])
    assert f"the score is of the {mmmu['problems_scored']} problems with split validation" in out
    assert {body["seed"] for body in vlm.server.requests} == {0, 1}
