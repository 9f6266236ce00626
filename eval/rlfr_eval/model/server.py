"""Start a server of our own, wait until it answers, watch it, stop exactly what was started."""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rlfr_vlm.errors import UserError
from rlfr_vlm.provenance import installed_version

HOST = "127.0.0.1"
POLL = 0.5  # seconds between questions whether it is up
TAIL_LINES = 15
PROBE_LIMIT = 5.0  # seconds for one question whether it is up
CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"  # GB


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def fill(command: str, **values: str) -> list[str]:
    """Split a command as a shell would and fill in {model}, {name}, {host}, {port}; values may hold spaces.

    >>> fill("serve {model} --port {port}", model="/a b", port="1")
    ['serve', '/a b', '--port', '1']

    Raises:
        UserError: unbalanced quotes.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"Cannot read the command {command!r}: {error}.") from None
    for name, value in values.items():
        words = [word.replace(f"{{{name}}}", value) for word in words]
    return words


def vllm_command(model: str, name: str, port: int, more: list[str]) -> tuple[list[str], dict[str, str]]:
    """How vLLM serves a model here, and what its environment needs.

    Raises:
        UserError: vLLM is not installed.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
               "--served-model-name", name, "--host", HOST, "--port", str(port),
               # sampling is what the run says, never what a model's generation_config.json adds to it
               "--generation-config", "vllm"]  # fmt: skip
    if installed_version("vllm-cpu"):
        # measured: eager float32 is what runs everywhere on a CPU; the cache's size is in GB
        return [*command, "--dtype", "float32", "--enforce-eager", *more], {CPU_CACHE: os.environ.get(CPU_CACHE, "1")}
    if installed_version("vllm"):
        return [*command, *more], {}
    raise UserError(
        "--model needs vLLM, which is not installed. Run `bash scripts/setup.sh --extras vllm`, or name a server that "
        "runs with --base-url, or a command that starts one with RLFR_EVAL_SERVER_CMD."
    )


@dataclass
class Server:
    """A server that we start. Use it as a context; leaving it stops the server.

    Attributes:
        command: what to run, under the guardian.
        url: where it will answer, up to /v1.
        log: file that takes what it says.
        time_limit: seconds it has to come up.
    """

    command: list[str]
    url: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    time_limit: float = 1200.0
    what: str = "the model's server"
    _guardian: "subprocess.Popen[bytes] | None" = None
    _stream: IO[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; returns at once."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.log.open("ab")
        self._guardian = subprocess.Popen(
            [sys.executable, "-P", "-m", "rlfr_eval.model.guardian", *self.command],
            stdin=subprocess.PIPE,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            start_new_session=True,  # Ctrl-C is for us; we then stop it in order
        )

    @property
    def alive(self) -> bool:
        return self._guardian is not None and self._guardian.poll() is None

    def wait_ready(self, tick: Callable[[float], None] = lambda seconds: None) -> None:
        """Wait until it lists its models. `tick` is told the seconds waited.

        Raises:
            UserError: it ended, or did not come up in time; with the end of its log.
        """
        started = time.monotonic()
        while not _answers(self.url):
            waited = time.monotonic() - started
            if not self.alive:
                raise UserError(f"{self.what} ended before it was ready. {self.log_end()}")
            if waited > self.time_limit:
                raise UserError(f"{self.what} did not answer within {self.time_limit:g} s. {self.log_end()}")
            tick(waited)
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop it and everything it started; returns when all have ended."""
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def log_end(self) -> str:
        """The end of its log, for a message."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        return f"The end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine: never through a proxy
    try:
        with opener.open(f"{url}/models", timeout=PROBE_LIMIT) as reply:
            return isinstance(json.load(reply).get("data"), list)
    except (OSError, ValueError, AttributeError, urllib.error.URLError):
        return False
