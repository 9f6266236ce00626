"""Start VLMEvalKit's process, speak to it (see `worker/__init__.py`), and end it."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlfr_eval.settings import Settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.provenance import installed_version

HERE = Path(__file__).resolve().parent
ENVIRONMENT = ".venv-vlmeval"
PACKAGE = "ms-vlmeval"
TAIL_LINES = 15
# all that the process is told: no keys, no judge, no proxy, nobody's settings of VLMEvalKit
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def interpreter(settings: Settings) -> Path:
    """The Python that has VLMEvalKit: the one named, this one if it has it, else that of `.venv-vlmeval`.

    Raises:
        UserError: there is none.
    """
    if named := settings["VLMEVAL_PYTHON"]:
        path = Path(named).expanduser()
        if not path.is_file():
            raise UserError(
                f"VLMEVAL_PYTHON is {named!r} ({settings.origin('VLMEVAL_PYTHON')}); there is no such file. It is the "
                f"Python of an environment that has {PACKAGE}."
            )
        return path
    if installed_version(PACKAGE) is not None:
        return Path(sys.executable)
    for folder in (Path.cwd(), HERE.parents[2]):
        if (found := folder / ENVIRONMENT / "bin" / "python").is_file():
            return found
    raise UserError(
        f"VLMEvalKit is not installed. Run `bash scripts/setup_vlmeval.sh`, which makes {ENVIRONMENT}, or name the "
        f"Python of an environment that has {PACKAGE} with VLMEVAL_PYTHON."
    )


class WorkerProcess:
    """VLMEvalKit behind a pipe. Use it as a context; one request at a time, from any thread.

    Attributes:
        versions: of VLMEvalKit and of what it counts with.
    """

    def __init__(self, python: Path, log: Path) -> None:
        self.python, self.log = python, log
        self.versions: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._stream: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "WorkerProcess":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.log.open("ab")  # a file of that name may be somebody's
        compat = importlib.util.find_spec("rlfr_vlm.compat.torchvision_hook")
        hook = compat.origin if compat is not None and compat.origin else ""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._process = subprocess.Popen(
            [str(self.python), "-I", str(HERE / "worker" / "__main__.py"), hook],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stream,
            text=True,
            encoding="utf-8",
            env={**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for us; it ends with its standard input
        )
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            for stream in (self._process.stdin, self._process.stdout):
                try:
                    stream.close()
                except OSError:
                    continue
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._stream is not None:
            self._stream.close()

    def hello(self) -> dict[str, str]:
        """Wait until it has started; returns versions."""
        if not self.versions:
            self.versions = self.ask({"do": "hello"})
        return self.versions

    def open(
        self, name: str, file: Path, images: Path, groups: list[str], called: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Open a data set; yields its rows, and last `{"ok": ...}` with its family and number of rows.

        Args:
            called: what other requests call it, if not by its name in VLMEvalKit.

        Raises:
            UserError: the file is not what VLMEvalKit needs for this name.
        """
        request = {"do": "open", "name": name, "file": str(file), "images": str(images), "groups": groups,
                   "called": called or name}  # fmt: skip
        with self._lock:
            self._send(request)
            while True:
                reply = self._receive()
                yield reply
                if "ok" in reply:
                    return

    def score(self, name: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An outcome for each item, in order."""
        return self.ask({"do": "score", "name": name, "items": items})

    def evaluate(self, name: str, predictions: dict[str, str], given: dict[str, str]) -> dict[str, Any]:
        """VLMEvalKit's own evaluation of a whole set: `result`, its records, and `needs`, what it lacked."""
        found: dict[str, Any] = self.ask({"do": "evaluate", "name": name, "predictions": predictions, "given": given})
        return found

    def ask(self, request: dict[str, Any]) -> Any:
        """One request with one reply.

        Raises:
            UserError: it failed, or the process has ended; with the end of its log.
        """
        with self._lock:
            self._send(request)
            return self._receive()["ok"]

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def _receive(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            more = f" See {self.log}." if reply.get("bug") else ""
            raise UserError(f"VLMEvalKit ({self.python}): {reply['error']}{more}")
        return reply

    def _ended(self) -> UserError:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        shown = "\n".join(f"  {line}" for line in lines)
        return UserError(f"VLMEvalKit's process ({self.python}) has ended. The end of {self.log}:\n{shown}")
