"""VLMEvalKit's real package, the eight sets, and a short way to run `rlfr-eval vlm` on them."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlfr_eval.benchmarks.vlm import folder as benchmark_files
from rlfr_eval.benchmarks.vlm import shipped_vlm
from rlfr_eval.vlmeval.worker_process import WorkerProcess, interpreter
from rlfr_vlm.env_settings import load_settings
from rlfr_vlm.errors import UserError
from tests.eval.vlm.sets import SETS, judge, policy, write_tsv


@functools.cache
def vlmeval_python() -> Path:
    """The interpreter that has VLMEvalKit; skips where there is none."""
    try:
        return interpreter(load_settings({}, {}))
    except UserError:
        pytest.skip("VLMEvalKit is not installed; run `bash scripts/setup_vlmeval.sh`")


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """VLMEvalKit's process with the eight sets open; its attribute `rows` holds what it said of their rows."""
    folder = tmp_path_factory.mktemp("lmu")
    with WorkerProcess(vlmeval_python(), folder / "vlmeval.log") as process:
        process.rows = {}  # type: ignore[attr-defined]
        for name in SETS:
            columns = list(shipped_vlm()[name].columns)
            process.rows[name] = list(  # type: ignore[attr-defined]
                process.open(name, write_tsv(folder, name), folder / "images", columns)
            )
        yield process


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """One process for the runs of many tests: starting it takes eight seconds."""
    with WorkerProcess(vlmeval_python(), tmp_path_factory.mktemp("worker") / "vlmeval.log") as process:
        yield process


@pytest.fixture
def fresh() -> None:
    """Asked for by a test that wants a process of its own."""


@pytest.fixture(autouse=True)
def one_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs share a process, but those of tests that ask for `fresh`, or name another interpreter."""
    if "lmu" not in request.fixturenames or "fresh" in request.fixturenames:
        return
    shared = request.getfixturevalue("running")

    def start(python: Path, log: Path) -> Any:
        return contextlib.nullcontext(shared) if python == vlmeval_python() else WorkerProcess(python, log)

    monkeypatch.setattr("rlfr_eval.vlmeval.worker_process.WorkerProcess", start)


@pytest.fixture(scope="session")
def small_wemath(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of benchmark files in which WeMath, whose score wants the whole set, has as many rows as here."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for path in benchmark_files().glob("*.toml"):
        text = path.read_text()
        (folder / path.name).write_text(text.replace("n = 1740", f"n = {len(SETS['WeMath'])}"))
    return folder


@pytest.fixture(autouse=True)
def whole_wemath(small_wemath: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "lmu" in request.fixturenames:
        monkeypatch.setattr("rlfr_eval.benchmarks.vlm.folder", lambda: small_wemath)


@pytest.fixture
def lmu(alone: Path, run_eval: Callable[..., Any]) -> Path:
    """A folder with the eight files, accepted by its lock."""
    vlmeval_python()
    folder = alone / "lmu"
    for name in SETS:
        write_tsv(folder, name)
    code, _, err = run_eval("fetch", "--vlm", *SETS, "--relock", "--data-dir", str(folder))
    assert code == 0, err
    return folder


@pytest.fixture
def vlm(serve: Callable[..., Any], lmu: Path, run_eval: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `rlfr-eval vlm` with a scripted policy; more arguments follow. `vlm.server` is the policy's."""

    def run(*arguments: str, data: tuple[str, ...] = tuple(SETS), out: str = "run", server: Any = None) -> Any:
        return run_eval(
            "vlm", "--base-url", (server or run.server).url, "--data", *data, "--data-dir", str(lmu), "--out", out,
            *arguments,
        )  # fmt: skip

    run.server = serve(policy)  # type: ignore[attr-defined]
    return run


@pytest.fixture
def healthy(serve: Callable[..., Any]) -> Any:
    """A judge that says what a good one would."""
    return serve(judge, models=({"id": "j"},))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries, and little for a reply."""
    from rlfr_vlm.servers.endpoint import Endpoint

    real = Endpoint.__init__

    def short(self: Any, *given: Any, **settings: Any) -> None:
        real(self, *given, **settings)
        self.first_delay, self.time_limit, self.max_tries = 0.01, min(self.time_limit, 1.0), min(self.max_tries, 2)

    monkeypatch.setattr(Endpoint, "__init__", short)
