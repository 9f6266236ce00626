"""`rlfr sample`: the command on a tiny policy, what a killed run leaves, what other commands make of the rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rlfr_vlm.cli import main
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.sampling.hf import HfEngine
from tests.eval.conftest import Reaction, serve  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def policy(make_policy, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    make_policy().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def arguments(policy, tmp_path):
    """A run of 5 prompts and 3 responses to each, in batches of 4: the last batch has 3."""

    def build(out="rows.jsonl", **changes):
        options = {"policy": policy, "data": "digits", "dataset_split": "test", "dataset_limit": 64, "n": 5,
                   "samples": 3, "max_new_tokens": 6, "batch_size": 4, "grading_workers": 1,
                   "out": tmp_path / out}  # fmt: skip
        return ["sample", *(f"--{name}={value}" for name, value in (options | changes).items() if value is not None)]

    return build


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_writes_rows_settings_and_a_summary(arguments, tmp_path, capsys):
    assert main(arguments()) == 0
    shown = capsys.readouterr()
    assert "15 responses to 5 prompts: " in shown.out and "pass@3 " in shown.out
    assert "15/15" in shown.err and "right 0." in shown.err  # progress shows the share right so far
    rows = rows_of(tmp_path / "rows.jsonl")
    stored = load_rows("digits", split="test", limit=64)
    assert [(row["prompt_index"], row["sample_index"]) for row in rows] == [
        (number * 64 // 5, sample) for number in range(5) for sample in range(3)
    ]
    for row in rows:
        original = stored[row["prompt_index"]]
        assert row["prompt"] == original["prompt"] and row["answer"] == original["answer"]
        assert row["verdict"] in ("right", "wrong", "undecided") and row["logp"] < 0
        assert row["truncated"] == (len(row["completion_ids"]) == 6 and row["completion_ids"][-1] != 2)
    assert len({row["response"] for row in rows}) > 5  # responses to a prompt differ
    settings = yaml.safe_load((tmp_path / "rows.config.yaml").read_text())
    assert (settings["samples"], settings["dataset_name"], settings["temperature"]) == (3, "digits", 1.0)
    summary = json.loads((tmp_path / "rows.summary.json").read_text())
    assert (summary["responses"], summary["prompts"], summary["settings"]) == (15, 5, settings)
    assert summary["right"] + summary["wrong"] + summary["undecided"] == 15
    assert sum(summary["share_right"].values()) == sum(list(summary["groups"].values())[:3])


def test_a_finished_file_is_left_alone(arguments, tmp_path, capsys):
    assert main(arguments()) == 0
    content = (tmp_path / "rows.jsonl").read_bytes()
    capsys.readouterr()
    assert main(arguments()) == 0
    assert "has all 15 responses: nothing is left to do" in capsys.readouterr().out
    assert (tmp_path / "rows.jsonl").read_bytes() == content


@pytest.mark.parametrize("batches", [1, 3])
def test_a_stopped_run_ends_with_the_same_file(arguments, tmp_path, capsys, monkeypatch, batches):
    """Ctrl-C in a batch; then half of a line of the next one, as a killed process leaves it."""
    assert main(arguments("whole.jsonl")) == 0
    whole, path = (tmp_path / "whole.jsonl").read_bytes(), tmp_path / "rows.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(HfEngine, "sample", stop_after(batches))
        assert main(arguments()) == 130
    assert f"has {4 * batches} responses; the same command goes on" in capsys.readouterr().out
    lines = whole.splitlines(keepends=True)
    assert path.read_bytes() == b"".join(lines[: 4 * batches])
    path.write_bytes(path.read_bytes() + lines[4 * batches] + lines[4 * batches + 1][:60])
    assert main(arguments()) == 0
    assert path.read_bytes() == whole
    summaries = [json.loads((tmp_path / f"{name}.summary.json").read_text()) for name in ("rows", "whole")]
    assert all(summary.pop("settings") for summary in summaries) and summaries[0] == summaries[1]


@pytest.mark.slow  # starts a process that imports everything
def test_a_killed_process_ends_with_the_same_file(arguments, tmp_path):
    changes = {"n": 40, "batch_size": 2}
    command = [sys.executable, "-m", "rlfr_vlm.cli", *arguments(**changes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = tmp_path / "rows.jsonl"
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 1 <= path.read_bytes().count(b"\n") < 120
    assert main(arguments(**changes)) == 0 and main(arguments("whole.jsonl", **changes)) == 0
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_run_with_other_settings_or_data_is_refused_by_name(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(HfEngine, "sample", stop_after(1))
    assert main(arguments()) == 130
    capsys.readouterr()
    assert main(arguments(temperature=0.5, max_new_tokens=7)) == 2
    assert "other settings (max_new_tokens: 6 -> 7; temperature: 1.0 -> 0.5)" in capsys.readouterr().err
    rows = rows_of(tmp_path / "rows.jsonl")
    rows[-1]["prompt"] = [{"role": "user", "content": "another"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(arguments()) == 2
    assert "the data have changed" in capsys.readouterr().err


def stop_after(batches, sample=HfEngine.sample):
    calls = []

    def stopped(self, rows, seeds):
        if len(calls) == batches:
            raise KeyboardInterrupt
        calls.append(1)
        return sample(self, rows, seeds)

    return stopped


@pytest.fixture
def right_rows(arguments, tmp_path, monkeypatch):
    """Rows of a policy that answers, as none with random weights does: the file that other commands read."""
    from rlfr_vlm.sampling.engine import Sample

    def answer(self, rows, seeds):
        texts = [f"so \\boxed{{{row['answer'] if number % 3 else 0}}}" for number, row in enumerate(rows)]
        return [Sample(text, [20, 21, 2], -1.0, False) for text in texts]

    with monkeypatch.context() as patched:
        patched.setattr(HfEngine, "sample", answer)
        assert main(arguments(n=8)) == 0
    return tmp_path / "rows.jsonl"


def test_other_commands_read_the_rows(right_rows, policy, tmp_path, capsys):
    data = ["--dataset_name", str(right_rows)]
    checked = ["check-data", *data, "--model_name_or_path", policy, "--workers", "1", "--out", str(tmp_path / "check")]
    main([*checked, "--needs", "prompt", "answer", "response"])
    report = json.loads((tmp_path / "check" / "report.json").read_text())
    assert report["rows"] == 24 and set(report["dropped"]) <= {"duplicate"} and report["images"] > 0
    capsys.readouterr()
    assert main(["grade", str(right_rows)]) == 0 and "24" in capsys.readouterr().out
    fit = [
        "fit-flow",
        *data,
        "--model_name_or_path",
        policy,
        "--output_dir",
        str(tmp_path / "flow"),
        "--max_steps",
        "1",
    ]
    assert main([*fit, "--per_device_train_batch_size", "8", "--report_to", "none", "--use_cpu", "true"]) == 0
    inspect = ["inspect", "--policy", policy, "--flow", str(tmp_path / "flow" / "flow"), "--data", str(right_rows)]
    options = ["--n", "2", "--samples", "1", "--max_new_tokens", "4", "--format", "json", "--out", str(tmp_path / "i")]
    assert main([*inspect, *options]) == 0
    read = load_rows(str(right_rows), columns=("prompt", "response"))[0]
    [original] = [load_rows("digits", split="test", limit=1)[0]["images"]]
    assert read["verdict"] == "wrong" and read["images"][0].tobytes() == original[0].tobytes()


def test_the_folder_of_the_rows_can_be_read_as_well(right_rows):
    """The summary beside the rows is no row."""
    assert len(load_rows(str(right_rows.parent), columns=("prompt", "response"))) == 24


def test_rows_that_were_sampled_can_be_sampled_again(right_rows, arguments, tmp_path):
    assert main(arguments("again.jsonl", data=right_rows, dataset_split=None, n=2, samples=1)) == 0
    rows = rows_of(tmp_path / "again.jsonl")
    assert [row["prompt_index"] for row in rows] == [0, 12] and [row["sample_index"] for row in rows] == [0, 0]


def test_columns_and_images_of_a_data_set_are_kept(arguments, tmp_path, capsys):
    """The images lie beside the data, outside the folder of the rows: the command says how to read them."""
    from PIL import Image

    (tmp_path / "data").mkdir()
    Image.new("RGB", (56, 28), (9, 8, 7)).save(tmp_path / "data" / "a.png")
    row = {"id": 5, "question": "<image>sum?", "image": "a.png", "answer": "7", "level": "hard", "response": "expert"}
    bad = {"id": 6, "question": "sum?", "image": "none.png", "answer": "7"}
    (tmp_path / "data" / "d.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(bad))
    changes = {"data": tmp_path / "data" / "d.jsonl", "dataset_split": None, "n": None, "bad_row_limit": 1}
    assert main(arguments("out/rows.jsonl", **changes)) == 0
    shown = capsys.readouterr().out
    assert f"commands that read the rows need --media_root {tmp_path / 'data'}" in shown
    assert "rows left out: 1 image missing" in shown
    assert "columns of the data that the rows replace: response" in shown
    rows = rows_of(tmp_path / "out" / "rows.jsonl")
    assert {(row["id"], row["level"], row["prompt_index"]) for row in rows} == {(5, "hard", 0)} and len(rows) == 3
    assert rows[0]["images"] == [str(tmp_path / "data" / "a.png")]
    [read, *_] = load_rows(str(tmp_path / "out" / "rows.jsonl"), media_root=str(tmp_path / "data"))
    assert read["images"][0].getpixel((0, 0)) == (9, 8, 7)


def test_a_training_configuration_gives_data_and_sampling(arguments, tmp_path):
    recipe = {"method": "rlvr", "dataset_name": "digits", "dataset_split": "test", "system_prompt": "Be brief.",
              "temperature": 0.9, "learning_rate": 1e-6}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main([*arguments(data=None, dataset_split=None, n=1), "--config", str(tmp_path / "recipe.yaml")]) == 0
    assert yaml.safe_load((tmp_path / "rows.config.yaml").read_text())["temperature"] == 0.9
    assert rows_of(tmp_path / "rows.jsonl")[0]["prompt"][0]["role"] == "system"


def test_the_settings_beside_the_rows_repeat_the_run(arguments, tmp_path):
    assert main(arguments()) == 0
    again = ["sample", "--config", str(tmp_path / "rows.config.yaml"), "--out", str(tmp_path / "again.jsonl")]
    assert main(again) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "rows.jsonl").read_bytes()


def test_a_served_policy(arguments, tmp_path, capsys, serve):  # noqa: F811
    """Every fifth request is refused: it is a row without a response, neither right nor wrong, and counted."""

    def script(body, n):
        return Reaction("too large", status=400) if n % 5 == 0 else "so \\boxed{7}"

    server = serve(script)
    assert main(arguments(engine=server.url, policy="m", batch_size=1)) == 0
    rows, summary = rows_of(tmp_path / "rows.jsonl"), json.loads((tmp_path / "rows.summary.json").read_text())
    failed = [row for row in rows if row["reason"].startswith("no response: ")]
    assert len(rows) == 15 and len(failed) == 3 == summary["failed"]
    assert {row["verdict"] for row in failed} == {"undecided"} and {row["response"] for row in failed} == {""}
    assert all(row["verdict"] == ("right" if row["answer"] == "7" else "wrong") for row in rows if row not in failed)
    assert "undecided: 3 no response" in capsys.readouterr().out
    seeds = [body["seed"] for body in server.requests]
    assert len(set(seeds)) == 15 and main(arguments(engine=server.url, policy="m", batch_size=1)) == 0


def test_a_server_gets_no_videos(arguments, capsys, serve):  # noqa: F811
    server = serve(lambda body, n: "7")
    assert main(arguments(engine=server.url, policy="m", data="digits_video", dataset_limit=2)) == 2
    assert "the row has videos, but other engines than hf draw and resize frames" in capsys.readouterr().err
    assert not [body for body in server.requests if "messages" in body]


def test_a_server_that_comes_back_gets_the_rest(arguments, tmp_path, capsys, serve, monkeypatch):  # noqa: F811
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    state = {"down": False}
    server = serve(lambda body, n: Reaction(status=503) if n > 7 and state["down"] else f"so {body['seed']}")
    settings = {"engine": server.url, "policy": "m", "batch_size": 4}
    assert main(arguments("whole.jsonl", **settings)) == 0
    server.requests.clear()
    state["down"] = True
    assert main(arguments(**settings)) == 2
    assert "The same command goes on where it stopped" in capsys.readouterr().err
    state["down"] = False
    assert len(rows_of(tmp_path / "rows.jsonl")) == 4 and main(arguments(**settings)) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "--policy is not set"),
        ({"data": None}, "--data is not set"),
        ({"data": "./nowhere.jsonl"}, "No dataset at ./nowhere.jsonl"),
        ({"policy": "./nowhere"}, "No model at ./nowhere. Give an existing folder or a hub id"),
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"samples": 0}, "samples is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"temperature": -1}, "temperature is -1.0; it must be at least 0"),
        ({"temperature": 0}, "temperature is 0, so that all 3 responses to a prompt would be alike"),
        ({"top_p": 0}, "top_p is 0, so that no token could be drawn"),
        ({"out": "rows.json"}, "rows.json'; it must end in .jsonl"),
        ({"out": __file__}, "it must end in .jsonl"),
        ({"engine": "vlm"}, "--engine is 'vlm'; it may be hf, vllm, or the address of a server such as"),
        ({"engine": "vlm"}, "Did you mean 'vllm'?"),
        ({"engine": "http://127.0.0.1:9/v1"}, "Cannot reach the server http://127.0.0.1:9/v1"),
        ({"max_prompt_tokens": 2}, "All prompts are longer than max_prompt_tokens 2"),
        (
            {"max_new_tokens": 500},
            "5 prompts do not fit the policy's context of 512 tokens beside a response of 500",
        ),
        ({"device": "cuda:99"}, "--device is cuda:99, and torch"),
        ({"sample": 3}, "Unknown option --sample. Did you mean 'samples'?"),
    ],
)
def test_mistakes_get_one_message(changes, message, arguments, tmp_path, capsys):
    assert main(arguments(**changes)) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
    assert not list(tmp_path.glob("rows.*"))  # the settings of a run that did not start bind nobody


def test_a_file_of_something_else_is_kept(arguments, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "mine"}\n')
    assert main(arguments()) == 2
    assert "exists and is no file of `rlfr sample`" in capsys.readouterr().err
    assert (tmp_path / "rows.jsonl").read_text() == '{"prompt": "mine"}\n'


def test_missing_vllm(arguments, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else find(name, *more))
    assert main(arguments(engine="vllm")) == 2
    assert "--engine is vllm, but vLLM is not installed. Run `bash scripts/setup.sh --extras vllm`" in (
        capsys.readouterr().err
    )
