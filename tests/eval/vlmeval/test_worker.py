"""VLMEvalKit's real package behind the pipe: its verdicts, its own evaluation, and what it must not do."""

import base64
import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import verify_answer
from tests.eval.killing import all_gone
from tests.eval.vlm.fixtures import vlmeval_python
from tests.eval.vlm.sets import SETS, draw, judge_reply, says


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
    hook = Path(__file__).parents[3] / "rlfr_vlm" / "compat" / "torchvision_hook.py"
    code = (
        f"import importlib.util as u; s = u.spec_from_file_location('h', {str(hook)!r}); m = u.module_from_spec(s); "
        "s.loader.exec_module(m); m.install(); from vlmeval.dataset.utils import mathv; "
        f"mathv.is_equal({attack!r}, '7')"
    )
    subprocess.run([vlmeval_python(), "-c", code], check=False, capture_output=True, timeout=120)
    assert target.exists()


def test_the_process_knows_no_key_and_no_judge(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "JUDGE_API_KEY", "LOCAL_LLM", "OPENAI_API_BASE", "http_proxy", "BOYUE"):
        monkeypatch.setenv(name, "sk-secret-value")
    with WorkerProcess(vlmeval_python(), tmp_path / "log") as process:
        inner = process._process
        assert inner is not None
        folder = Path(f"/proc/{inner.pid}")
        assert b"sk-secret-value" not in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()


def test_a_data_set_must_be_usable(worker, tmp_path):
    def opened(text, name="mine"):
        (tmp_path / f"{name}.tsv").write_text(text)
        return list(worker.open(name, tmp_path / f"{name}.tsv", tmp_path / "images", []))

    picture = base64.b64encode(draw(3)).decode()
    for text, message in [
        ("index\tanswer\n0\tB\n", "has no column question"),
        ("index\tquestion\tanswer\n0\t?\tB\n", "neither a column image"),
        (f"index\tquestion\timage\n0\t?\t{picture}\n", "no column answer"),
        ("index\tquestion\tanswer\timage\n", "has no rows"),
        (f"index\tquestion\tanswer\timage\n0\t?\tB\t{picture}\n0\t?\tB\t{picture}\n", "the index 0 more than once"),
        (f"index\tquestion\tanswer\timage\n0\t?\tB\t{'x' * 80}\n", "no known format"),
        ("index\tquestion\tanswer\timage_path\n0\t?\tB\tnowhere.png\n", "nowhere.png is not there"),
    ]:
        with pytest.raises(UserError, match=message):
            opened(text)
    *rows, last = opened(f"index\tquestion\tanswer\timage\n0\t?\t7\t{picture}\n")
    assert last["ok"]["family"] == "open" and rows[0]["row"]["answer"] == "7"
    *rows, last = opened(f"index\tquestion\tanswer\tA\tB\timage\n0\t?\tB\tcat\tdog\t{picture}\n")
    assert last["ok"]["family"] == "ImageMCQDataset" and rows[0]["row"]["options"] == {"A": "cat", "B": "dog"}
    for name in ("MVBench", "Video-MME", "MLVU_OpenEnded"):
        with pytest.raises(UserError, match=rf"{name} is \w+, which does not ask about still images; sets of videos"):
            opened("index\tquestion\tvideo\tanswer\n0\t?\tclip.mp4\tB\n", name)
    with pytest.raises(UserError, match="scored over groups of rows"):
        opened(f"index\tquestion\tanswer\tA\tB\timage\n0\t?\tB\tcat\tdog\t{picture}\n", "MMBench_DEV_EN")


def test_any_other_set_is_scored_row_by_row(worker, tmp_path):
    """A set of no family of ours: VLMEvalKit evaluates each row by itself, a yes-or-no set here."""
    picture = base64.b64encode(draw(3)).decode()
    path = tmp_path / "POPE.tsv"
    rows = [
        f"{i}\tIs there a dog?\t{answer}\tadversarial\t{i}.png\t{picture}\n" for i, answer in enumerate(["Yes", "No"])
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


def test_an_interpreter_without_vlmevalkit_says_so(tmp_path):
    import sys

    with (
        WorkerProcess(Path(sys.executable), tmp_path / "log") as process,
        pytest.raises(UserError, match="VLMEvalKit does not import: No module named 'vlmeval'"),
    ):
        process.hello()


def in_vlmevalkits_python(code):
    """Run code in the worker's interpreter, with VLMEvalKit imported behind the guards as the worker does it."""
    root = Path(__file__).parents[3]
    before = (
        "import sys, types; p = types.ModuleType('rlfr_eval'); "
        f"p.__path__ = [{str(root / 'eval' / 'rlfr_eval')!r}]; sys.modules['rlfr_eval'] = p; "
        "from rlfr_eval.vlmeval.worker.guard import Refused, import_vlmeval; "
        f"import_vlmeval({str(root / 'rlfr_vlm' / 'compat' / 'torchvision_hook.py')!r})\n"
    )
    return subprocess.run(
        [vlmeval_python(), "-I", "-c", before + code], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_process_reaches_no_network_and_its_jpeg_is_ours(tmp_path, serve):
    """Nothing arrives at a server; certificates are checked; `--jpeg` is byte for byte what VLMEvalKit sends."""
    from rlfr_eval.model.request_images import as_jpeg

    server = serve(lambda body, n: "x")
    kinds = ("RGB", "RGBA", "L", "P", "JPEG")
    for kind in kinds:
        (tmp_path / kind).write_bytes(draw(5, kind))
    code = f"""
import base64, ssl, urllib.request
from PIL import Image
from vlmeval.smp.vlm import encode_image_to_base64
assert ssl._create_default_https_context is ssl.create_default_context
try:
    urllib.request.urlopen({server.url + "/models"!r}, timeout=5)
except Refused:
    print("refused")
for kind in {kinds!r}:
    image = Image.open({str(tmp_path)!r} + "/" + kind)
    for name, one in (("", image), ("-small", image.resize((60, 40)))):
        one.save({str(tmp_path)!r} + "/" + kind + name + ".in", format="PNG")
        again = Image.open({str(tmp_path)!r} + "/" + kind + name + ".in")
        content = base64.b64decode(encode_image_to_base64(again))
        open({str(tmp_path)!r} + "/" + kind + name + ".out", "wb").write(content)
"""
    done = in_vlmevalkits_python(code)
    assert done.returncode == 0 and done.stdout.split() == ["refused"], done.stderr
    assert not server.keys  # of any request
    for path in tmp_path.glob("*.in"):
        assert as_jpeg(path.read_bytes()) == path.with_suffix(".out").read_bytes(), path.name


def test_process_ends_with_a_killed_parent_while_it_imports(tmp_path):
    """VLMEvalKit's imports take ten seconds; the process reads its closed standard input only afterwards."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from rlfr_eval.vlmeval.worker_process import WorkerProcess\n"
        "with WorkerProcess(Path(sys.argv[1]), Path('log')) as worker:\n"
        "    print(worker._process.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(vlmeval_python())], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    time.sleep(0.5)  # it imports
    parent.kill()
    parent.wait()
    assert all_gone([pid], 2.0)
