"""Collect the answers for an evaluation page: prompt, images, gold, response, extraction, verdict, judge's reply."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import JudgeVerdict, Sample, Selections, asked_by
from rlfr_eval.score.verdicts import Standing, standings
from rlfr_vlm.files import JsonObject
from rlfr_vlm.page.thumbnails import PageImages, side_for

MAX_CHARACTERS = 20_000  # of one response on the page; the rest is cut with a note


@dataclass
class Samples:
    """The answers of all runs on a page.

    Attributes:
        limit: maximum number of answers; those of one problem stay together.
        answers: one entry per answer, for the page's script.
        problems: "benchmark/problem" -> question, golds, indices of images.
        unreadable: messages about runs whose problems could not be read again.
        other_prompts: (run, benchmark, problem) -> prompt, if it differs from the prompt of an earlier run.
        imported: (run, benchmark) -> tool that asked, where answers were imported.
        their_prompts: (run, benchmark, problem) -> prompt of that tool, where its file has it.
        total: number of answers of all runs.
    """

    limit: int
    answers: list[JsonObject] = field(default_factory=list)
    problems: dict[str, JsonObject] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    other_prompts: dict[tuple[int, str, str], str] = field(default_factory=dict)
    imported: dict[tuple[int, str], str] = field(default_factory=dict)
    their_prompts: dict[tuple[int, str, str], str] = field(default_factory=dict)
    images: PageImages = field(default_factory=PageImages)
    total: int = 0

    def add_run(self, number: int, store: RunStore, specs: Selections, selected: set[tuple[str, str]]) -> None:
        """Add a run's answers to the selected (benchmark, problem) pairs.

        Args:
            number: index of the run on the page.
            specs: benchmarks of the run; their problems may be empty.
        """
        judges = store.run.get("judges", {})
        standing = standings(store, specs, judges)
        self.imported |= {(number, name): tool for name in specs if (tool := asked_by(store.run, name))}
        # If several judges were asked about an answer, the one in force decided it.
        replies = {(line.id, line.judge): line for line in store.judge_verdicts()}
        for sample in store.answers():
            self.total += 1
            if (sample.benchmark, sample.problem) in selected:
                judged = replies.get((sample.id, judges.get(sample.benchmark) or ""))
                self.answers.append(_answer(number, sample, standing.get(sample.id), judged))
                if sample.prompt:
                    self.their_prompts[number, sample.benchmark, sample.problem] = sample.prompt

    def add_problems(self, number: int, selections: Selections, selected: set[tuple[str, str]]) -> None:
        """Add a run's problems. A prompt that differs from an earlier run's is stored in `other_prompts`."""
        entries = [
            (name, selection.benchmark, problem)
            for name, selection in selections.items()
            for problem in selection.problems
            if (name, problem.id) in selected
        ]
        self.images.side = side_for(sum(len(problem.images) for _, _, problem in entries))
        for name, benchmark, problem in entries:
            paths = problem.images
            images = [self.images.add(path, path) for path in paths]
            if tool := self.imported.get((number, name)):
                theirs = self.their_prompts.get((number, name, problem.id))
                prompt = theirs or f"[{tool} asked in words that are not known here; the question:]\n{problem.text}"
            else:
                prompt = benchmark.prompt_text(problem)
            for path in paths:
                prompt = prompt.replace(f"(image: {path})", "<image>")
            entry = {
                "title": problem.question,
                "question": prompt,
                "golds": list(problem.golds),
                "images": [image for image in images if image is not None],
                "images_missing": images.count(None),
            }
            if self.problems.setdefault(f"{name}/{problem.id}", entry)["question"] != prompt:
                self.other_prompts[number, name, problem.id] = prompt

    def data(self, names: Sequence[str]) -> JsonObject:
        """Return the data for the page's script.

        Args:
            names: names of the runs.
        """
        benchmarks = list(dict.fromkeys(answer["benchmark"] for answer in self.answers))
        for answer in self.answers:
            answer["asked"] = self.other_prompts.get((answer["run"], answer["benchmark"], answer["problem"]))
        return {
            "runs": list(names),
            "benchmarks": benchmarks,
            "answers": self.answers,
            "problems": self.problems,
            "images": self.images.uris,
        }

    def shown(self) -> str:
        """Return how many answers are on the page, and which problems could not be read."""
        part = f"All {self.total:,}" if len(self.answers) == self.total else f"{len(self.answers):,} of {self.total:,}"
        return " ".join([f"{part} answers.", *self.unreadable])


def wanted_problems(stores: Sequence[RunStore], limit: int) -> set[tuple[str, str]]:
    """Return the (benchmark, problem) pairs to show: all, or an even selection within the limit of answers."""
    counts: dict[tuple[str, str], int] = {}
    for store in stores:
        for row in store.answers():
            key = (row.benchmark, row.problem)
            counts[key] = counts.get(key, 0) + 1
    total = sum(counts.values())
    if total <= limit:
        return set(counts)
    selected, room = set(), 0.0
    for key, count in counts.items():
        room += limit / total * count
        if room >= count:
            selected.add(key)
            room -= count
    return selected


def _answer(number: int, sample: Sample, standing: Standing | None, judged: JudgeVerdict | None) -> JsonObject:
    """Return the page's entry for an answer.

    Args:
        number: index of the run on the page.
        judged: the verdict of the judge in force, if it was asked.
    """
    if standing is not None:
        sample = standing.apply(sample)
    raw = sample.raw
    if sample.only_reasoning:
        raw = f"[no text; the server's reasoning:]\n{sample.server_reasoning}"
    cut = f"\n[{len(raw) - MAX_CHARACTERS:,} more characters]" if len(raw) > MAX_CHARACTERS else ""
    return {
        "run": number,
        "benchmark": sample.benchmark,
        "problem": sample.problem,
        "sample": sample.sample,
        "verdict": "undecided" if standing is None else standing.final.value,
        "reason": "" if standing is None else standing.reason,
        "by": "judge" if standing is not None and standing.judged else "rules",
        "raw": raw[:MAX_CHARACTERS] + cut,
        "extracted": sample.extracted,
        "how": sample.how,
        "finish": sample.finish_reason,
        "tokens": sample.completion_tokens,
        "seconds": sample.seconds,
        "judge": judged and judged.judge,
        "reply": judged and judged.reply,
    }
