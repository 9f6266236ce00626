"""Client of the VLMEvalKit process: start it, send requests (see `worker/__init__.py`), end it."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rlfr_vlm.env_settings import Settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.provenance import installed_version

HERE = Path(__file__).resolve().parent
ENVIRONMENT = ".venv-vlmeval"
PACKAGE = "ms-vlmeval"
TAIL_LINES = 15  # lines of the log in messages
# The only variables the process gets: no keys, no judge, no proxy, no settings of VLMEvalKit.
INHERITED_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def interpreter(settings: Settings) -> Path:
    """Return the Python that has VLMEvalKit: VLMEVAL_PYTHON, this one if it has it, else that of `.venv-vlmeval`.

    Raises:
        UserError: VLMEvalKit is not installed, or VLMEVAL_PYTHON is no file.
    """
    if setting := settings["VLMEVAL_PYTHON"]:
        path = Path(setting).expanduser()
        if not path.is_file():
            raise UserError(
                f"VLMEVAL_PYTHON is {setting!r} ({settings.origin('VLMEVAL_PYTHON')}); there is no such file. Set it "
                f"to the Python of an environment that has {PACKAGE}."
            )
        return path
    if installed_version(PACKAGE) is not None:
        return Path(sys.executable)
    for folder in (Path.cwd(), HERE.parents[2]):
        if (python := folder / ENVIRONMENT / "bin" / "python").is_file():
            return python
    raise UserError(
        f"VLMEvalKit is not installed. Run `bash scripts/setup_vlmeval.sh`, which makes {ENVIRONMENT}, or name the "
        f"Python of an environment that has {PACKAGE} with VLMEVAL_PYTHON."
    )


class WorkerProcess:
    """A VLMEvalKit process behind a pipe; a context manager. Any thread may call it; requests run one at a time.

    Attributes:
        versions: package -> version, for VLMEvalKit, pandas and numpy.
    """

    def __init__(self, python: Path, log: Path) -> None:
        self.python, self.log = python, log
        self.versions: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None
        self._stream: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "WorkerProcess":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.log.open("ab")  # append: the file may exist already
        compat = importlib.util.find_spec("rlfr_vlm.compat.torchvision_hook")
        hook = compat.origin if compat is not None and compat.origin else ""
        environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            [str(self.python), "-I", str(HERE / "worker" / "__main__.py"), hook],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stream,
            text=True,
            encoding="utf-8",
            env={**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C must reach only the harness; the worker ends with its standard input
        )
        return self

    def __exit__(self, *exception: object) -> None:
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
        """Wait until the process is ready. Returns package -> version."""
        if not self.versions:
            self.versions = self.ask({"do": "hello"})
        return self.versions

    def open(self, name: str, file: Path, images: Path, groups: list[str], alias: str = "") -> Iterator[JsonObject]:
        """Open a data set. Yields `{"row": ...}` per row, then `{"ok": ...}` with its family and number of rows.

        Args:
            name: the data set's name in VLMEvalKit.
            images: folder for unpacked images.
            groups: columns whose values are part of the rows.
            alias: name of the data set in other requests; `name` by default.

        Raises:
            UserError: VLMEvalKit cannot use the file as this data set.
        """
        request = {
            "do": "open",
            "name": name,
            "file": str(file),
            "images": str(images),
            "groups": groups,
            "called": alias or name,
        }
        with self._lock:
            self._send(request)
            while True:
                reply = self._receive()
                yield reply
                if "ok" in reply:
                    return

    def score(self, name: str, items: list[JsonObject]) -> list[JsonObject]:
        """Return an outcome for each item in order."""
        outcomes: list[JsonObject] = self.ask({"do": "score", "name": name, "items": items})
        return outcomes

    def sets(self) -> list[JsonObject]:
        """Return VLMEvalKit's classes of data sets.

        Each has `class`, `names`, `images`: whether it asks about still images, and `build_judge`: whether the class
        that defines its `evaluate` calls it.
        """
        classes: list[JsonObject] = self.ask({"do": "sets"})
        return classes

    def probe(self, name: str, row: str) -> list[JsonObject]:
        """Return trials of VLMEvalKit's evaluation of a row; see `worker/probe.py`."""
        trials: list[JsonObject] = self.ask({"do": "probe", "name": name, "id": row})
        return trials

    def evaluate(self, name: str, predictions: dict[str, str], replies: dict[str, str]) -> JsonObject:
        """Run VLMEvalKit's own evaluation of a whole data set.

        Args:
            predictions: row id -> response.
            replies: key of a judge prompt -> parsed reply.

        Returns:
            `result`: VLMEvalKit's table, `needs`: judge prompts without a reply, `failed`: why there is no result.
        """
        request = {"do": "evaluate", "name": name, "predictions": predictions, "given": replies}
        evaluation: JsonObject = self.ask(request)
        return evaluation

    def ask(self, request: JsonObject) -> Any:
        """Send a request and return its single reply.

        Raises:
            UserError: the request failed, or the process has ended; with the end of its log.
        """
        with self._lock:
            self._send(request)
            return self._receive()["ok"]

    def _send(self, request: JsonObject) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended_error() from None

    def _receive(self) -> JsonObject:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended_error()
        reply: JsonObject = json.loads(line)
        if "error" in reply:
            hint = f" See {self.log}." if reply.get("bug") else ""
            raise UserError(f"VLMEvalKit ({self.python}): {reply['error']}{hint}")
        return reply

    def _ended_error(self) -> UserError:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        log_end = "\n".join(f"  {line}" for line in lines)
        return UserError(f"VLMEvalKit's process ({self.python}) has ended. The end of {self.log}:\n{log_end}")
