"""The process of VLMEvalKit: what it is given, and when it ends."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from tests.eval.killing import all_gone
from tests.eval.vlm.fixtures import vlmeval_python


def test_the_process_knows_no_key_and_no_judge(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "JUDGE_API_KEY", "LOCAL_LLM", "OPENAI_API_BASE", "http_proxy", "BOYUE"):
        monkeypatch.setenv(name, "sk-secret-value")
    with WorkerProcess(vlmeval_python(), tmp_path / "log") as process:
        inner = process._process
        assert inner is not None
        folder = Path(f"/proc/{inner.pid}")
        assert b"sk-secret-value" not in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        inner.kill()  # it imports, and would end only after that


def test_an_interpreter_without_vlmevalkit_says_so(tmp_path):
    with (
        WorkerProcess(Path(sys.executable), tmp_path / "log") as process,
        pytest.raises(UserError, match="VLMEvalKit does not import: No module named 'vlmeval'"),
    ):
        process.hello()


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
