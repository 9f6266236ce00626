"""Match the answers in another tool's files to the problems of a benchmark; what does not match is listed.

An entry of VLMEvalKit belongs to the problem with its index, if the question is the same. An entry of a log with a
document belongs to the problem whose text is one of the document's texts, white space aside. One without a document
(lmms-eval) belongs to the problem whose text stands in its prompt. Where several problems have this text, the
reference in the file tells them apart; where it does not, the entry is listed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from string import ascii_uppercase

from rlfr_eval.importing.entries import AnswerFile, Entry, one_line
from rlfr_eval.schema import AnyProblem
from rlfr_vlm.files import JsonObject

SHOWN = 200  # characters of a question in a list
LONG_QUESTION = 40  # characters from which a question that stands in a prompt needs no reference to confirm it


class Remark(StrEnum):
    """Why an entry's answers are not used, or a problem has none."""

    NO_PROBLEM = "no such problem"
    OTHER_QUESTION = "another question at this index"
    SEVERAL = "several problems fit"
    DOUBLE = "second answer, the first counts"
    FAILED = "no answer in the file"
    MISSING = "problem without an answer"


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry that is not used, or a problem without an answer.

    Attributes:
        remark: why.
        problem: id of the problem; empty if none is known.
        place: file and line; empty for a problem without an answer.
        text: beginning of the question, or the reason why there is no answer.
    """

    remark: Remark
    problem: str
    place: str
    text: str

    def write(self) -> JsonObject:
        """The JSON line."""
        return {"remark": self.remark.value, "problem": self.problem, "place": self.place, "text": self.text}

    def line(self) -> str:
        """One line for the terminal."""
        return ", ".join(part for part in (self.remark.value, self.problem, self.place, self.text[:80]) if part)


@dataclass
class Matches:
    """The outcome for one benchmark.

    Attributes:
        found: problem id -> the entry with its answers.
        listed: everything else.
        entries: number of entries in the files.
    """

    found: dict[str, Entry] = field(default_factory=dict)
    listed: list[Listed] = field(default_factory=list)
    entries: int = 0

    @property
    def samples(self) -> int:
        """The largest number of answers to one problem."""
        return max((len(entry.answers) for entry in self.found.values()), default=0)

    def counts(self) -> dict[str, int]:
        """Number of entries by remark, without the remarks that there are none of."""
        return dict(Counter(one.remark.value for one in self.listed))


def match(
    problems: Sequence[AnyProblem], files: Iterable[AnswerFile], expected: Sequence[AnyProblem] | None = None
) -> Matches:
    """Match the entries of files to problems.

    Args:
        expected: problems that are listed where they have no answer; all by default.
    """
    index, matches = _Index(problems), Matches()
    failed: list[Listed] = []
    for file in files:
        for entry in file.entries:
            matches.entries += 1
            place = f"{file.path.name}, {entry.where}"
            problem, remark = index.find(entry, matches.found)
            if problem is None:
                matches.listed.append(Listed(remark, "", place, _shown(entry)))
            elif entry.failure:
                failed.append(Listed(Remark.FAILED, problem.id, place, entry.failure))
            elif problem.id in matches.found:
                matches.listed.append(Listed(Remark.DOUBLE, problem.id, place, _shown(entry)))
            else:
                matches.found[problem.id] = entry
    matches.listed += failed
    matches.listed += [
        Listed(Remark.MISSING, problem.id, "", one_line(problem.question)[:SHOWN])
        for problem in (problems if expected is None else expected)
        if problem.id not in matches.found
    ]
    return matches


def _shown(entry: Entry) -> str:
    index = f"index {entry.index}: " if entry.index else ""
    return f"{index}{entry.shown}"[:SHOWN]


class _Index:
    """The problems of a benchmark by id and by text."""

    def __init__(self, problems: Sequence[AnyProblem]) -> None:
        self.by_id = {problem.id: problem for problem in problems}
        self.by_text: dict[str, list[AnyProblem]] = {}
        for problem in problems:
            for text in dict.fromkeys([one_line(problem.question), one_line(problem.text)]):
                if text:
                    self.by_text.setdefault(text, []).append(problem)

    def find(self, entry: Entry, taken: Mapping[str, Entry]) -> tuple[AnyProblem | None, Remark]:
        """Return the problem of an entry, or None with the reason.

        Args:
            taken: ids of problems that have answers.
        """
        if entry.index:
            return self._with_index(entry)
        if entry.texts:
            fitting = {problem.id: problem for text in entry.texts for problem in self.by_text.get(one_line(text), ())}
            return _only(list(fitting.values()), entry, taken)
        return self._in_prompt(entry, taken)

    def _with_index(self, entry: Entry) -> tuple[AnyProblem | None, Remark]:
        problem = self.by_id.get(entry.index) or self.by_id.get(entry.index.removesuffix(".0"))
        if problem is None:
            return None, Remark.NO_PROBLEM
        # VLMEvalKit's prompt may have a hint before the question, and the question is then part of it
        ours = (one_line(problem.question), one_line(problem.text))
        if entry.texts and not any(one_line(entry.texts[0]) in text for text in ours):
            return None, Remark.OTHER_QUESTION
        return problem, Remark.NO_PROBLEM

    def _in_prompt(self, entry: Entry, taken: Mapping[str, Entry]) -> tuple[AnyProblem | None, Remark]:
        prompt = one_line(entry.prompt)
        texts = [text for text in self.by_text if _stands_in(text, prompt)]
        # a question that is part of another one is not what was asked
        longest = [text for text in texts if not any(text != other and text in other for other in texts)]
        if len(longest) > 1:
            return None, Remark.SEVERAL
        problems = [problem for text in longest for problem in self.by_text[text]]
        if longest and len(longest[0]) < LONG_QUESTION and entry.target:
            problems = [problem for problem in problems if _has_reference(problem, entry.target)]
        return _only(problems, entry, taken)


def _stands_in(text: str, prompt: str) -> bool:
    """Return whether a text is part of a prompt and does not begin or end inside of a word.

    >>> _stands_in("2 + 2", "What is 12 + 2?"), _stands_in("2 + 2", "What is 2 + 2?")
    (False, True)
    """
    start = prompt.find(text)
    while start >= 0:
        before, after = prompt[:start][-1:], prompt[start + len(text) :][:1]
        if not (before.isalnum() and text[0].isalnum()) and not (after.isalnum() and text[-1].isalnum()):
            return True
        start = prompt.find(text, start + 1)
    return False


def _only(
    problems: Sequence[AnyProblem], entry: Entry, taken: Mapping[str, Entry]
) -> tuple[AnyProblem | None, Remark]:
    """Return the one problem that fits.

    Of problems that are alike in all that a model is asked and an answer is graded by, the first without an answer.
    """
    if len(problems) > 1 and entry.target:
        agreeing = [problem for problem in problems if _has_reference(problem, entry.target)]
        problems = agreeing or problems
    if len(problems) > 1 and len({(one.text, one.golds, one.images) for one in problems}) == 1:
        problems = [problem for problem in problems if problem.id not in taken][:1] or problems[:1]
    if len(problems) == 1:
        return problems[0], Remark.SEVERAL
    return None, Remark.SEVERAL if problems else Remark.NO_PROBLEM


def _has_reference(problem: AnyProblem, target: str) -> bool:
    """Return whether a file's reference is a problem's: as text, or as the letter or the text of its option."""
    return one_line(target) in {one_line(text) for text in _references(problem)}


def _references(problem: AnyProblem) -> Iterator[str]:
    for gold in problem.golds:
        yield gold
        for letter, option in zip(ascii_uppercase, problem.options, strict=False):
            if gold == letter:
                yield option
            elif gold == option:
                yield letter
