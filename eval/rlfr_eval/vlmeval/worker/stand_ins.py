"""What VLMEvalKit's scoring gets instead of its judge: what is known so far. What is not known becomes a need.

`families.py` calls VLMEvalKit's own functions with it, sample by sample, from the start each time.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

LONGEST_COMPARED = 300  # characters: a whole response longer than this equals no answer


class Need(BaseException):
    """Scoring wants to know something. No Exception: VLMEvalKit catches those."""

    def __init__(self, **need: Any) -> None:
        super().__init__()
        self.need = need


class Unsure(BaseException):
    """Scoring cannot decide, and says why."""


class Known:
    """What is known so far. VLMEvalKit takes it for its judge model.

    Attributes:
        reads: what kind of reply is wanted: `option`, `letter`, `letters`, `answer`, `integer`, `float`, `binary`.
        choices: option letter -> text, where there are options.
        asked: whether a judge's reply was used.
    """

    def __init__(self, given: Mapping[str, Any], compare: str) -> None:
        self.given, self.compare = given, compare
        self.reads, self.system = "answer", ""
        self.choices: dict[str, str] = {}
        self.asked = False

    def reading(self, reads: str, choices: Mapping[str, Any] | None = None) -> "Known":
        self.reads, self.choices = reads, {key: str(value) for key, value in (choices or {}).items()}
        return self

    def generate(self, prompt: str, **sampling: Any) -> str:
        """The judge's reply as it was read, "" where it said that there is no answer."""
        key = key_of(self.system, prompt)
        if key not in self.given:
            raise Need(key=key, kind="judge", prompt=prompt, system=self.system, reads=self.reads,
                       choices=self.choices)  # fmt: skip
        self.asked = True
        return str(self.given[key])

    def equal(self, answer: Any, gold: Any, final: bool) -> bool:
        """Whether two answers are equal.

        Raises:
            Unsure: nobody can tell, and the verdict hangs on it.
        """
        answer, gold = str(answer).strip(), str(gold).strip()
        if answer.lower() == gold.lower():
            return True
        if not answer or len(answer) > LONGEST_COMPARED:
            return False
        key = key_of("equal", answer, gold)
        if key not in self.given:
            raise Need(key=key, kind="equal", answer=answer, gold=gold)
        if self.given[key] == "undecided" and final:
            raise Unsure("grader cannot compare the extracted answer")
        return bool(self.given[key] == "right")


def key_of(*texts: str) -> str:
    """What a need is called: a hash of what is asked."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
