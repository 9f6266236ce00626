"""Write matched answers into a run folder: the records that a run of the harness has, and where they are from."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlfr_eval.benchmarks.text import with_overrides
from rlfr_eval.importing.entries import AnswerFile, one_line
from rlfr_eval.importing.matching import Matches, match
from rlfr_eval.kinds.kind import AnyOpenBenchmark, Kind
from rlfr_eval.model.answering import Task, sample_of
from rlfr_eval.run.folder import RunStore
from rlfr_eval.run.restore import configuration, describe, session
from rlfr_eval.schema import ImportRecord, Sample
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_text
from rlfr_vlm.servers.endpoint import Reply

NOT_KNOWN = "not known"
SHOWN = 80  # characters of a question in the message that nothing matches


@dataclass(frozen=True)
class ImportedBenchmark:
    """A benchmark with the answers to it.

    Attributes:
        opened: the benchmark with its problems; its samples are those of the files.
        files: the files that the answers are from, all of one format.
    """

    opened: AnyOpenBenchmark
    files: tuple[AnswerFile, ...]
    matches: Matches

    @property
    def name(self) -> str:
        return self.opened.benchmark.name

    @property
    def list_file(self) -> str:
        """Name of the file that lists what was not used."""
        return f"import-{self.name}.jsonl"

    @property
    def tool(self) -> str:
        """The tool, with its versions as far as they are known."""
        return ", ".join(dict.fromkeys(file.tool for file in self.files))

    def configuration(self, kind: str) -> JsonObject:
        """How the answers were asked for, as far as the files tell: nothing of our own prompt and sampling."""
        benchmark, first = self.opened.benchmark, self.files[0]
        ours = configuration(benchmark, self.opened.data, {})
        versions = ", ".join(dict.fromkeys(file.version for file in self.files if file.version))
        return {
            **ours,
            "prompt": {"name": first.format, "version": versions or "?", "hash": NOT_KNOWN},
            "sampling": {
                key: value
                for key, value in first.sampling.items()
                if all(file.sampling.get(key) == value for file in self.files)
            },
            **({"images": NOT_KNOWN, "scored_as": benchmark.prompt} if kind == "vlm" else {}),
            "imported": {"tool": self.tool, "files": [file.identity for file in self.files]},
        }

    def record(self) -> ImportRecord:
        """Where the answers are from, and what was not used."""
        files = [{"path": str(file.path.resolve()), **file.identity} for file in self.files]
        return {
            "tool": self.tool,
            "files": files,
            "entries": self.matches.entries,
            "matched": len(self.matches.found),
            "listed": self.matches.counts(),
            "list_file": self.list_file,
        }


def match_benchmark(opened: AnyOpenBenchmark, files: Sequence[AnswerFile], limit: int | None) -> ImportedBenchmark:
    """Match the answers in files to a benchmark's problems.

    Raises:
        UserError: none is to one of its problems.
    """
    name, problems = opened.benchmark.name, opened.data.problems
    matches = match(problems, files, opened.select(limit).problems)
    if not matches.found:
        names = ", ".join(str(file.path) for file in files)
        counts = ", ".join(f"{count} x {remark}" for remark, count in matches.counts().items())
        raise UserError(
            f"No answer in {names} is to a problem of {name} ({counts}). The first is to "
            f"{_beginning(files[0].entries[0].shown)}, and the first problem is {_beginning(problems[0].question)}. "
            "Name the benchmark that was asked with --benchmark, or its data with --data-dir."
        )
    return ImportedBenchmark(_with_samples(opened, matches.samples), tuple(files), matches)


def _beginning(text: str) -> str:
    return repr(one_line(text)[:SHOWN])


def _with_samples(opened: AnyOpenBenchmark, samples: int) -> AnyOpenBenchmark:
    """Return the benchmark with a number of samples.

    Its own temperature may forbid several; it is no part of an imported run's configuration.
    """
    free = {"temperature": 1.0, "top_k": -1} if samples > 1 else {}
    return dataclasses.replace(opened, benchmark=with_overrides(opened.benchmark, samples=samples, **free))


def write_answers(
    store: RunStore, kind: Kind, imported: Sequence[ImportedBenchmark], model: str, data_dir: Path, limit: int | None
) -> None:
    """Begin or continue a run folder, and append the answers that it does not have.

    Raises:
        UserError: the folder holds other answers.
    """
    benchmarks = [one.opened.benchmark for one in imported]
    store.begin(
        {"name": model, "asked_by": imported[0].files[0].format},
        {one.name: one.configuration(kind.name) for one in imported},
        {**describe(benchmarks, data_dir, limit, kind.name), "base_url": "", "context": None},
        session(),
    )
    store.save_run({"imported": {**store.run.get("imported", {}), **{one.name: one.record() for one in imported}}})
    done = {sample.id for sample in store.answers()}
    for one in imported:
        lines = [json.dumps(listed.write()) + "\n" for listed in one.matches.listed]
        write_text(store.folder / one.list_file, "".join(lines))
        for sample in _samples(one, model, store.config_of(one.name)):
            if sample.id not in done:
                store.add_sample(sample)


def _samples(imported: ImportedBenchmark, model: str, config: str) -> Iterator[Sample]:
    """Yield the answers as records; how they ended and what they took is not known."""
    problems = {problem.id: problem for problem in imported.opened.data.problems}
    for problem_id, entry in imported.matches.found.items():
        for number, text in enumerate(entry.answers):
            task = Task(imported.opened.benchmark, problems[problem_id], number)
            reply = Reply(text, "", "", None, None, 0.0, model, 1)
            sample = sample_of(task, reply, config)
            yield dataclasses.replace(sample, seed=0, time=0.0, prompt=entry.prompt)
