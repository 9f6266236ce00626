"""Start a local server, wait until it responds, and stop it with all its processes."""

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rlfr_vlm.env_settings import PREFIXES, SETTINGS, without_secrets
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.provenance import installed_version

HOST = "127.0.0.1"
POLL_INTERVAL = 0.5  # seconds between checks whether the server is ready
TAIL_LINES = 15  # lines of the log in messages
PROBE_LIMIT = 5.0  # seconds for one check whether the server is ready
READY, KEY_WANTED = 200, (401, 403)  # statuses of a server's list of models
# Secrets of other servers, so that a server started here gets none of them.
OWN_KEYS = tuple(name for name, setting in SETTINGS.items() if setting.secret and name.startswith(PREFIXES))
# With these torchrun and accelerate tell a process its place; a server that a training process starts has none.
PLACES = {
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}
LAUNCHERS = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_")
CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"  # vLLM's variable for the size of the KV cache in GB


def free_port() -> int:
    """Return a port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def fill_command(command: str, **values: str) -> list[str]:
    """Split a command as a shell would and fill in {model}, {name}, {host}, {port}; values may hold spaces.

    >>> fill_command("serve {model} --port {port}", model="/a b", port="1")
    ['serve', '/a b', '--port', '1']

    Raises:
        UserError: unbalanced quotes or, if there are values to fill in, an unknown {name}.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"Cannot read the command {without_secrets(command)!r}: {error}.") from None
    if not values:
        return words
    for placeholder in (match for word in words for match in re.findall(r"\{([A-Za-z_]+)\}", word)):
        if placeholder not in values:
            raise UserError(
                f"The command {without_secrets(command)!r} has {{{placeholder}}}; known: "
                f"{', '.join(f'{{{name}}}' for name in values)}.{nearest(placeholder, values)}"
            )
    for name, value in values.items():
        words = [word.replace(f"{{{name}}}", value) for word in words]
    return words


def check_program(command: list[str], label: str) -> None:
    """Check that the program of a command exists.

    Args:
        label: the server in messages.

    Raises:
        UserError: there is no such program.
    """
    program = without_secrets(command[0]) if command else ""
    if not command or shutil.which(command[0]) is None:
        hint = " Variables go behind `env`: env NAME=value command." if "=" in program else ""
        raise UserError(f"The command for {label} starts {program!r}, which is no program here.{hint}")


def vllm_command(model: str, name: str, port: int, extra_args: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a model with vLLM, and the environment variables it needs.

    Raises:
        UserError: vLLM is not installed.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model, "--served-model-name", name, "--host", HOST, "--port", str(port)]
    # Only the run decides about sampling, not the model's generation_config.json.
    command += ["--generation-config", "vllm"]
    if installed_version("vllm-cpu"):
        # Eager float32 is the only mode that ran on all CPUs tested.
        command += ["--dtype", "float32", "--enforce-eager", *extra_args]
        return command, {CPU_CACHE: os.environ.get(CPU_CACHE, "1")}
    if installed_version("vllm"):
        return [*command, *extra_args], {}
    raise UserError(
        "--model needs vLLM, which is not installed. Run `bash scripts/setup.sh --extras vllm`, or name a running "
        "server with --base-url, or a command that starts one with RLFR_EVAL_SERVER_CMD."
    )


def _is_ours(name: str) -> bool:
    """Whether a variable is a key of ours, or says which process of a training run this is."""
    return name in OWN_KEYS or name in PLACES or name.startswith(LAUNCHERS)


@dataclass
class Server:
    """A server started by this process; a context manager that stops the server on exit.

    Attributes:
        command: the command, run under `supervisor.py`.
        url: address of the server, up to /v1.
        log: file for the server's output.
        environment: variables added to this process's environment.
        time_limit: seconds until the server must be ready.
        label: the server in messages.
    """

    command: list[str]
    url: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    time_limit: float = 1200.0
    label: str = "the model's server"
    _supervisor: "subprocess.Popen[bytes] | None" = None
    _stream: IO[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server without waiting until it is ready.

        Raises:
            UserError: its program does not exist.
        """
        check_program(self.command, self.label)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.log.open("ab")
        inherited = {name: value for name, value in os.environ.items() if not _is_ours(name)}
        self._supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "rlfr_vlm.servers.supervisor"],
            stdin=subprocess.PIPE,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            env={**inherited, **self.environment},
            start_new_session=True,  # Ctrl-C must reach only the harness, which then stops the server
        )
        assert self._supervisor.stdin is not None
        with contextlib.suppress(OSError):  # a supervisor that ended at once is reported by `wait_ready`
            self._supervisor.stdin.write(json.dumps(self.command).encode() + b"\n")
            self._supervisor.stdin.flush()

    @property
    def alive(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    def wait_ready(self, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
        """Wait until the server lists its models.

        Args:
            on_wait: called with the seconds waited so far.

        Raises:
            UserError: the server wants a key; it ended, or was not ready in time, with the end of its log.
        """
        started = time.monotonic()
        while (status := _status(self.url)) != READY:
            waited = time.monotonic() - started
            if status in KEY_WANTED:
                raise UserError(
                    f"{self.label} wants a key (HTTP {status}). A server that is started here listens to this machine "
                    "only and is asked without one: leave the key out of its command."
                )
            if not self.alive:
                raise UserError(f"{self.label} ended before it was ready. {self.log_end()}")
            if waited > self.time_limit:
                raise UserError(f"{self.label} did not answer within {self.time_limit:g} s. {self.log_end()}")
            on_wait(waited)
            time.sleep(POLL_INTERVAL)

    def stop(self) -> None:
        """Stop the server and all its descendants; returns when all have ended."""
        if self._supervisor is not None:
            assert self._supervisor.stdin is not None
            with contextlib.suppress(OSError):
                self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def log_end(self) -> str:
        """Return the last lines of the log, for messages."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        return f"The end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)


def _status(url: str) -> int:
    """Return the status of a server's list of models, whose body must be one; 0 without a reply."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # requests to this machine bypass proxies
    try:
        with opener.open(f"{url}/models", timeout=PROBE_LIMIT) as reply:
            return READY if isinstance(json.load(reply).get("data"), list) else 0
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, AttributeError, urllib.error.URLError):
        return 0
