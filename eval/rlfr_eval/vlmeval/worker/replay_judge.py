"""The stand-in for VLMEvalKit's judge while one answer is scored: replays known replies, reports missing ones.

`row_scores.py` calls VLMEvalKit's functions with it, one answer at a time, from the start each time.
"""

import hashlib
import json
from collections.abc import Mapping

LONGEST_COMPARED = 300  # characters; a longer answer, such as a whole response, equals nothing

MOST_PROMPTS = 32  # prompts about one row that VLMEvalKit evaluates by itself
ROWS = "mean of rows"  # names the record of what VLMEvalKit wrote beside the rows


class ValueNeeded(BaseException):
    """Scoring needs a value that was not given. Derives from BaseException because VLMEvalKit catches Exception.

    Attributes:
        need: the need, as the worker's protocol defines it.
    """

    def __init__(self, **need: object) -> None:
        super().__init__()
        self.need = need


class Undecidable(BaseException):
    """Scoring cannot decide; the text is the reason. Derives from BaseException like `ValueNeeded`."""


class ReplayJudge:
    """Replays parsed replies of the judge by prompt; passed to VLMEvalKit as its judge model.

    Attributes:
        values: key of a need -> value.
        compare: `vlmeval`, or `grader`: what compares MathVista's free-form answers.
        reply_kind: kind of the next reply, a key of `VLM_READERS` in `judge/replies.py`.
        choices: option letter -> text, if the next question has options.
        system: system prompt of the next question.
        used: whether a judge's reply was used.
    """

    def __init__(self, values: Mapping[str, object], compare: str) -> None:
        self.values, self.compare = values, compare
        self.reply_kind, self.system = "answer", ""
        self.choices: dict[str, str] = {}
        self.used = False

    def expecting(self, reply_kind: str, choices: Mapping[str, object] | None = None) -> "ReplayJudge":
        """Set the kind of the next reply. Returns this object."""
        self.reply_kind = reply_kind
        self.choices = {letter: str(text) for letter, text in (choices or {}).items()}
        return self

    def generate(self, prompt: str, **sampling: object) -> str:
        """Return the parsed reply to a prompt; "" if the judge replied that there is no answer.

        Raises:
            ValueNeeded: the reply is not known.
        """
        key = need_key(self.system, prompt)
        if key not in self.values:
            raise ValueNeeded(
                key=key,
                kind="judge",
                prompt=prompt,
                system=self.system,
                reads=self.reply_kind,
                choices=self.choices,
            )
        self.used = True
        return str(self.values[key])

    def equal(self, answer: object, gold: object, final: bool) -> bool:
        """Return whether two answers are equal.

        Args:
            final: whether the verdict depends on this comparison; otherwise an undecided one counts as unequal.

        Raises:
            ValueNeeded: the comparison is not known.
            Undecidable: the grader could not compare the answers, and `final` is set.
        """
        answer, gold = str(answer).strip(), str(gold).strip()
        if answer.lower() == gold.lower():
            return True
        if not answer or len(answer) > LONGEST_COMPARED:
            return False
        key = need_key("equal", answer, gold)
        if key not in self.values:
            raise ValueNeeded(key=key, kind="equal", answer=answer, gold=gold)
        if self.values[key] == "undecided" and final:
            raise Undecidable("grader cannot compare the extracted answer")
        return bool(self.values[key] == "right")


def need_key(*texts: str) -> str:
    """Return the key of a need: a hash of its texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
