"""Types of the answers in another tool's file, before they are matched to problems."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_vlm.files import JsonObject

VLMEVAL, LM_EVAL, LMMS_EVAL = "vlmeval", "lm-eval", "lmms-eval"
FORMATS = (VLMEVAL, LM_EVAL, LMMS_EVAL)
TOOLS = {VLMEVAL: "VLMEvalKit", LM_EVAL: "lm-eval", LMMS_EVAL: "lmms-eval"}


def one_line(text: str) -> str:
    """Return a text with every run of white space as one space.

    >>> one_line(" What is\\n  1+1? ")
    'What is 1+1?'
    """
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Entry:
    """The answers to one question.

    Attributes:
        where: line or row, such as `line 7`.
        answers: one text per sample, as the model gave them.
        index: the row's index in VLMEvalKit's data; empty in logs.
        texts: texts of the question; one of them is the problem's text. Empty where the file has none.
        prompt: the whole text that the model was sent; empty where the file has none.
        target: the reference in the file; empty where it has none.
        failure: why the file has no answer, though it has the question; empty where it has one.
    """

    where: str
    answers: tuple[str, ...]
    index: str = ""
    texts: tuple[str, ...] = ()
    prompt: str = ""
    target: str = ""
    failure: str = ""

    @property
    def shown(self) -> str:
        """The question as far as the file has it, for lists and messages."""
        return one_line(self.texts[0] if self.texts else self.prompt)


@dataclass(frozen=True)
class AnswerFile:
    """A file of another tool.

    Attributes:
        format: one of `FORMATS`.
        sha256: of its bytes.
        task: what the tool calls the benchmark; empty if the file's name does not tell.
        model: the model's name; empty if neither the file's name nor a file beside it tells.
        version: version or commit of the tool; empty if no file beside it tells.
        sampling: settings of the requests; empty if the file does not tell.
        notes: remarks on the whole file for the user.
    """

    path: Path
    format: str
    sha256: str
    entries: tuple[Entry, ...]
    task: str = ""
    model: str = ""
    version: str = ""
    sampling: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> JsonObject:
        """Name and hash. Answers of another content are answers to another configuration."""
        return {"name": self.path.name, "sha256": self.sha256}

    @property
    def tool(self) -> str:
        """The tool, with its version if it is known."""
        return f"{TOOLS[self.format]} {self.version}".strip()
