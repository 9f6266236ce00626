"""Servers of our own: started, watched, and ended with everything they started, however we end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rlfr_eval.model.serving import ServingOptions, native_adapter
from rlfr_vlm.errors import UserError
from rlfr_vlm.servers.server import Server, fill_command, free_port
from tests.eval.killing import all_gone
from tests.eval.stub_server import IMPORTS

# A server that starts a child of its own, one of which leaves its process group, as vLLM's workers may.
FAMILY = (
    IMPORTS
    + """
import json, os, subprocess
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
print("started", os.getpid(), *(child.pid for child in children), flush=True)

class Handler(JsonHandler):
    def do_GET(self):
        self.reply({"object": "list", "data": [{"id": sys.argv[2], "object": "model", "created": 0, "owned_by": "x"}]})
    def do_POST(self):
        asked = self.body()
        if "die" in json.dumps(asked):
            os._exit(3)
        self.reply(completion(asked.get("model"), "so \\\\boxed{0}"))

serve(Handler, int(sys.argv[1]))
"""
)


@pytest.fixture
def family(tmp_path):
    """A server script, its command with {port} and {name}, and the pids its log tells."""
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    return f"{sys.executable} {path} {{port}} {{name}}"


def pids_in(log: Path) -> list[int]:
    return [
        int(word) for line in log.read_text().splitlines() if line.startswith("started") for word in line.split()[1:]
    ]


def test_start_wait_and_stop_leave_nothing(family, tmp_path):
    port = free_port()
    server = Server(fill_command(family, port=str(port), name="m"), f"http://127.0.0.1:{port}/v1", tmp_path / "log")
    with server:
        server.wait_ready()
        pids = pids_in(tmp_path / "log")
        assert len(pids) == 3 and server.alive and all(map(psutil.pid_exists, pids))
    assert not server.alive and all_gone(pids, 1.0)


def test_a_server_that_ends_says_why(tmp_path):
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(1)"]
    with (
        Server(command, "http://127.0.0.1:9/v1", tmp_path / "log") as server,
        pytest.raises(UserError, match=r"(?s)ended before it was ready.*no such model"),
    ):
        server.wait_ready()


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key_is_not_waited_for(tmp_path, status):
    port = free_port()
    code = (
        IMPORTS
        + f"""
class Handler(JsonHandler):
    def do_GET(self):
        self.reply({{"message": "Unauthorized."}}, {status})
serve(Handler, {port})
"""
    )
    command = [sys.executable, "-c", code, "--api-keys", "sk-not-shown"]
    url, label = f"http://127.0.0.1:{port}/v1", "the judge's server"
    with Server(command, url, tmp_path / "log", time_limit=60.0, label=label) as server:
        with pytest.raises(UserError) as refused:
            server.wait_ready()
        assert server.alive
    assert str(refused.value).startswith(f"the judge's server wants a key (HTTP {status}).")
    assert "leave the key out of its command" in str(refused.value) and "sk-not" not in str(refused.value)


def test_a_server_is_no_process_of_a_training_run(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ACCELERATE_USE_FSDP"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OTHER_RANK", "kept")
    shown = "('RANK', 'WORLD', 'MASTER', 'TORCHELASTIC', 'ACCELERATE')"
    code = f"import os; print(sorted(name for name in os.environ if any(part in name for part in {shown})))"
    with (
        Server([sys.executable, "-c", code], "http://127.0.0.1:9/v1", tmp_path / "log") as server,
        pytest.raises(UserError, match=r"\['OTHER_RANK'\]"),
    ):
        server.wait_ready()


def test_a_server_that_never_answers_is_given_up(tmp_path):
    command = [sys.executable, "-c", "import time; print('hm', flush=True); time.sleep(60)"]
    server = Server(command, "http://127.0.0.1:9/v1", tmp_path / "log", time_limit=1.0)
    with server, pytest.raises(UserError, match=r"did not answer within 1 s"):
        server.wait_ready()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_us_ends_the_server(family, tmp_path, how):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from rlfr_vlm.servers.server import Server, fill_command, free_port\n"
        "port = free_port()\n"
        f"command = fill_command({family!r}, port=str(port), name='m')\n"
        "server = Server(command, f'http://127.0.0.1:{port}/v1', Path('log'))\n"
        "with server:\n    server.wait_ready(); print('ready', flush=True); time.sleep(60)\n"
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert ours.stdout.readline() == b"ready\n"
    pids = pids_in(tmp_path / "log")
    assert len(pids) == 3 and all(map(psutil.pid_exists, pids))
    ours.send_signal(how)
    ours.wait(timeout=20)
    assert all_gone(pids)


def test_a_supervisor_that_is_killed_takes_the_server_along(family, tmp_path):
    port = free_port()
    server = Server(fill_command(family, port=str(port), name="m"), f"http://127.0.0.1:{port}/v1", tmp_path / "log")
    with server:
        server.wait_ready()
        first = pids_in(tmp_path / "log")[0]
        os.kill(server._supervisor.pid, signal.SIGKILL)
        assert all_gone([first], 5.0)
        for pid in pids_in(tmp_path / "log")[1:]:  # its own children are beyond us then; tidy up
            os.kill(pid, signal.SIGKILL)


def test_a_model_of_our_own_is_served_by_any_command(family, toy, run_eval, scores, alone):
    model = alone / "my model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    arguments = (
        "lm",
        "--model",
        str(model),
        "--suite",
        toy(),
        "--data-dir",
        "data",
        "--out",
        "run",
        "--server-cmd",
        family,
    )
    assert run_eval(*arguments)[0] == 0
    assert scores(alone / "run")["benchmarks"]["toy"]["right"] == 1
    assert all_gone(pids_in(alone / "run" / "server.log"), 1.0)
    before = (alone / "run" / "server.log").read_bytes()
    assert run_eval(*arguments)[0] == 0
    assert (alone / "run" / "server.log").read_bytes() == before  # nothing to ask: not even started
    (model / "model.safetensors").write_bytes(b"trained further")
    code, _, err = run_eval(*arguments)
    assert code == 2 and "model.fingerprint" in err  # another checkpoint at the same path
    code, _, err = run_eval(
        "lm", "--model", str(model), "--suite", toy(), "--data-dir", "data", "--out", "run", "--max-tokens", "4096"
    )
    assert code == 2 and "the model's context is 4096" in err  # known before vLLM is started


def test_a_server_that_dies_is_started_once_more_and_then_left(family, toy, run_eval, scores, alone):
    model = alone / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    rows = [{"id": f"p{i}", "problem": "die" if i == 2 else f"{i}?", "answer": "0"} for i in range(6)]
    code, _, err = run_eval(
        "lm", "--model", "model", "--suite", toy(rows=rows), "--data-dir", "data", "--out", "run", "--server-cmd",
        family.replace("{model}", ""), "--concurrency", "1", "--max-tries", "2",
    )  # fmt: skip
    assert code == 3 and err.count("the model's server is gone (it ended)") == 2
    assert len([line for line in (alone / "run" / "server.log").read_text().splitlines() if "started" in line]) == 2
    assert scores(alone / "run")["benchmarks"]["toy"]["answered"] == 2
    assert all_gone(pids_in(alone / "run" / "server.log"), 1.0)


def test_adapters(alone):
    adapter = alone / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 24, "base_model_name_or_path": "org/base"}))
    options = ServingOptions(str(adapter))
    assert options.is_adapter() and options.base() == "org/base" and options.name == "adapter"
    assert native_adapter(options) == [
        "--enable-lora",
        "--max-lora-rank",
        "32",
        "--lora-modules",
        f"adapter={adapter}",
    ]
    assert options.identity()["base_model"] == "org/base"
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"does not name its base model\. Give it with --base-model"):
        options.base()
    assert ServingOptions(str(adapter), base_model="x/y").base() == "x/y"
    with pytest.raises(UserError, match=r"cannot be told of an adapter\. Add --adapter merged"):
        ServingOptions(str(adapter), command="serve {model}")
    with pytest.raises(UserError, match="--server-args are for vLLM"):
        ServingOptions(str(adapter), command="serve {model}", arguments=("--x",), adapter="merged")
    (adapter / "adapter_config.json").write_text("[")
    with pytest.raises(UserError, match="must be a JSON object"):
        options.base()


def test_context_is_read_only_where_nothing_else_can_change_it(alone):
    model = alone / "model"
    model.mkdir()
    config = {"text_config": {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default"}}}
    (model / "config.json").write_text(json.dumps(config))
    assert ServingOptions(str(model)).context() == 512
    assert ServingOptions(str(model), arguments=("--max-model-len", "9")).context() is None
    config["text_config"]["rope_parameters"]["factor"] = 4.0
    (model / "config.json").write_text(json.dumps(config))
    assert ServingOptions(str(model)).context() is None
    assert ServingOptions(str(model)).label == "work--model"
    assert ServingOptions(url="http://h:1/v1", model="a/b").label == "h-1--a--b"


def test_merged_adapter_is_the_base_plus_the_adapter(make_text_policy, processor, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from rlfr_eval.model.serving import merge_adapter

    base = make_text_policy()
    base.save_pretrained(tmp_path / "base")
    processor.tokenizer.save_pretrained(tmp_path / "base")
    policy = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    policy.save_pretrained(tmp_path / "adapter")
    merged = str(tmp_path / "merged")
    merge_adapter(ServingOptions(str(tmp_path / "adapter"), base_model=str(tmp_path / "base")), merged)
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        expected = policy.eval()(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")(ids).logits
        found = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(plain, expected, atol=1e-2)


@pytest.mark.parametrize("command", ["serve 'x", 'serve "'])
def test_commands_with_open_quotes(command):
    with pytest.raises(UserError, match="Cannot read the command"):
        fill_command(command)


def test_a_command_with_an_unknown_placeholder():
    with pytest.raises(UserError, match=r"has \{modle\}; known: \{model\}, \{port\}\. Did you mean"):
        fill_command("serve {modle}", model="m", port="1")
    assert fill_command("serve --config '{\"a\": 1}'", model="m")[-1] == '{"a": 1}'


@pytest.mark.parametrize(
    ("command", "hint"), [("no-such-program {model}", "no program"), ("A=1 serve", "behind `env`")]
)
def test_a_program_that_does_not_exist_is_one_message(toy, run_eval, alone, command, hint):
    code, _, err = run_eval(
        "lm", "--model", "m", "--server-cmd", command, "--suite", toy(1), "--data-dir", "data", "--out", "run"
    )
    assert code == 2 and hint in err and "Traceback" not in err
    judge = ("--judge-local", "j", "--base-url", "http://127.0.0.1:9/v1")
    (alone / ".env").write_text(f"JUDGE_CMD={command}\n")
    code, _, err = run_eval("lm", *judge, "--suite", toy(1), "--data-dir", "data", "--out", "run2")
    assert code == 2 and hint in err and "Traceback" not in err
