"""Answers as an evaluation page shows them: prompt, images, gold, raw answer, extraction, verdict, judge's reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlfr_eval.run.folder import RunStore
from rlfr_eval.score.verdicts import Chosen, Standing, standings
from rlfr_vlm.page.thumbnails import PageImages, side_for

LONGEST = 20_000  # characters of one answer; what is beyond is cut, and said so


@dataclass
class Samples:
    """The answers of all runs of a page.

    Attributes:
        problems: by "benchmark/problem": question, golds, numbers of images.
        limit: at most so many answers are shown; those of one problem stay together.
        unknown: runs whose problems could not be read again, and why.
        otherwise: (run, benchmark, problem) -> what was asked, where it is not the problem's question.
    """

    limit: int
    answers: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    otherwise: dict[tuple[int, str, str], str] = field(default_factory=dict)
    images: PageImages = field(default_factory=PageImages)
    total: int = 0

    def add_run(self, number: int, store: RunStore, specs: Chosen, wanted: set[tuple[str, str]]) -> None:
        """Add a run's answers to the wanted (benchmark, problem) pairs.

        Args:
            specs: benchmarks of the run, whose problems may be empty.
        """
        judges = store.run.get("judges", {})
        standing = standings(store, specs, judges)
        # of several judges that were asked about an answer, the one in force decided it
        replies = {(row["id"], row.get("judge")): row for row in store.verdicts
                   if row.get("by") == "judge" and row.get("id")}  # fmt: skip
        for row in store.answers():
            self.total += 1
            if (row["benchmark"], row["problem"]) in wanted:
                self.answers.append(
                    _answer(
                        number, row, standing.get(row["id"]), replies.get((row["id"], judges.get(row["benchmark"])))
                    )
                )

    def add_problems(self, number: int, chosen: Chosen, wanted: set[tuple[str, str]]) -> None:
        """What a run was asked; where an earlier run was asked otherwise, its answers say so."""
        found = [(name, benchmark, problem) for name, (benchmark, problems) in chosen.items() for problem in problems
                 if (name, problem.id) in wanted]  # fmt: skip
        self.images.side = side_for(sum(len(getattr(problem, "images", ())) for _, _, problem in found))
        for name, benchmark, problem in found:
            paths = getattr(problem, "images", ())
            images = [self.images.add(path, path) for path in paths]
            question = benchmark.asked(problem)
            for path in paths:
                question = question.replace(f"(image: {path})", "<image>")
            known = self.problems.setdefault(f"{name}/{problem.id}", {
                "title": problem.question, "question": question, "golds": list(problem.golds),
                "images": [one for one in images if one is not None], "images_missing": images.count(None),
            })  # fmt: skip
            if known["question"] != question:
                self.otherwise[number, name, problem.id] = question

    def data(self, names: Sequence[str]) -> dict[str, Any]:
        """For the page's script."""
        benchmarks = list(dict.fromkeys(one["benchmark"] for one in self.answers))
        for one in self.answers:
            one["asked"] = self.otherwise.get((one["run"], one["benchmark"], one["problem"]))
        return {"runs": list(names), "benchmarks": benchmarks, "answers": self.answers, "problems": self.problems,
                "images": self.images.uris}  # fmt: skip

    def shown(self) -> str:
        """How much of it is on the page, and what could not be read."""
        part = f"All {self.total:,}" if len(self.answers) == self.total else f"{len(self.answers):,} of {self.total:,}"
        return " ".join([f"{part} answers.", *self.unknown])


def wanted_problems(stores: Sequence[RunStore], limit: int) -> set[tuple[str, str]]:
    """(benchmark, problem) pairs to show: all of them, or as many as the limit allows, spread evenly."""
    counts: dict[tuple[str, str], int] = {}
    for store in stores:
        for row in store.answers():
            key = (row["benchmark"], row["problem"])
            counts[key] = counts.get(key, 0) + 1
    total = sum(counts.values())
    if total <= limit:
        return set(counts)
    wanted, room = set(), 0.0
    for key, count in counts.items():
        room += limit / total * count
        if room >= count:
            wanted.add(key)
            room -= count
    return wanted


def _answer(
    number: int, row: Mapping[str, Any], standing: Standing | None, judged: Mapping[str, Any] | None
) -> dict[str, Any]:
    raw = row["raw"] or ""
    final = "undecided" if standing is None else standing.final.value
    return {
        "run": number, "benchmark": row["benchmark"], "problem": row["problem"], "sample": row["sample"],
        "verdict": final, "reason": "" if standing is None else standing.reason,
        "by": "judge" if standing is not None and standing.judged else "rules",
        "raw": raw[:LONGEST] + (f"\n[{len(raw) - LONGEST:,} more characters]" if len(raw) > LONGEST else ""),
        "extracted": row["extracted"], "how": row["how"], "finish": row["finish_reason"],
        "tokens": row["completion_tokens"], "seconds": row["seconds"],
        "judge": (judged or {}).get("judge"), "reply": (judged or {}).get("reply"),
    }  # fmt: skip
