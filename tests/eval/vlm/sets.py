"""Small valid TSV files of eight data sets of VLMEvalKit, drawn images, and answers whose verdicts are known by hand.

`SETS[name]` lists samples: the row, what the policy answers, what a healthy judge replies, and the verdict. A question
carries its marker `[name-id]`, so that a scripted policy knows it; an answer that needs a judge carries `(name-id)`,
so that a scripted judge does.
"""

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

IMAGE_KINDS = ("RGB", "RGBA", "L", "P", "JPEG", "I;16")


@dataclass
class Sample:
    """One row, its answer, and what becomes of it.

    Attributes:
        columns: of the TSV file, without index, image and question.
        says: the policy's answer; `{mark}` becomes the marker for a judge.
        judge: a healthy judge's replies, first and second; empty: rules decide.
        right: the verdict.
    """

    question: str
    says: str
    right: bool
    judge: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)
    images: int = 1


def draw(number: int, kind: str = "RGB") -> bytes:
    """A picture of `number` discs."""
    image = Image.new("RGB", (160, 120), "white")
    for place in range(number % 12):
        x, y = 6 + 38 * (place % 4), 6 + 38 * (place // 4)
        ImageDraw.Draw(image).ellipse((x, y, x + 30, y + 30), fill=(40 * place % 256, 90, 200))
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, format="JPEG")
    elif kind == "I;16":
        Image.new("I;16", (150, 110), number).save(buffer, format="PNG")
    else:
        image.convert(kind).save(buffer, format="PNG")
    return buffer.getvalue()


def vista(kind: str, answer: Any, says: str, right: bool, judge: tuple[str, ...] = (), choices: str = "") -> Sample:
    options = bool(choices)
    names = json.loads(choices.replace("'", '"')) if options else []
    columns = {
        "question_type": "multi_choice" if options else "free_form",
        "answer_type": kind,
        "answer": answer,
        "answer_option": chr(65 + names.index(answer)) if options else "",
        "choices": choices or "[]",
        "task": "textbook question answering" if options else "figure question answering",
        "skills": "['numeric commonsense', 'statistical reasoning']",
    }
    return Sample("How much is it?", says, right, judge, columns)


COLOURS = "['red', 'blue', 'green']"
MATHVISTA = [
    vista("text", "blue", "The answer is B", True, choices=COLOURS),
    vista("text", "blue", "It is C.", False, choices=COLOURS),
    vista("text", "blue", "Of them, neither the first nor the last {mark}", True, ("B",), choices=COLOURS),
    vista("integer", 14, "14", True),
    vista("integer", 14, "I count 14 of them {mark}", True, ("14",)),
    vista("integer", 14, "I count 15 of them {mark}", False, ("15",)),
    vista("float", 0.6, "about 0.6 {mark}", True, ("0.6",)),
    vista("float", 1.45, "roughly 1.5 {mark}", False, ("1.5",)),
]


def vision(answer: str, says: str, right: bool, judge: tuple[str, ...] = (), choices: str = "[]") -> Sample:
    return Sample("Find it.", says, right, judge, {"answer": answer, "choices": choices, "category": "algebra"})


MATHVISION = [
    vision("B", "So it must be B", True, choices=COLOURS),
    vision("B", "So it must be A.", False, choices=COLOURS),
    vision("A", "It is not one of the latter two {mark}", True, ("A",), choices=COLOURS),
    vision("7", "7", True),
    vision("0.5", "0.50", True),
    vision("12", "All in all that makes 12 {mark}", True, ("12",)),
    vision("12", "All in all that makes 13 {mark}", False, ("13",)),
    vision("3", "There is no telling {mark}", False, ("none",)),
]


def verse(answer: str, says: str, right: bool, judge: tuple[str, ...], version: str = "Text Lite") -> Sample:
    columns = {
        "answer": answer,
        "question_for_eval": "{question}",
        "problem_version": version,
        "metadata": "{'split': 'testmini', 'source': 'GeoQA', 'subject': 'Plane Geometry', 'subfield': 'Area'}",
        "query_cot": "Think. {question}",
    }
    return Sample("How long is AB?", says, right, judge, columns)


MATHVERSE = [
    verse("5", "AB is 5 {mark}", True, ("5",)),
    verse("5 cm", "AB is 50 mm {mark}", True, ("50 mm", "1")),
    verse("5", "AB is 6 {mark}", False, ("6", "0")),
    verse("B", "So option C {mark}", False, ("C", "0"), "Vision Only"),
    verse("B", "So option B {mark}", True, ("B",), "Vision Only"),
]


def wemath(key: str, name: int, says: str, right: bool, judge: tuple[str, ...] = (), answer: str = "B") -> Sample:
    columns = {
        "answer": answer, "A": "square", "B": "triangle", "C": "circle", "D": "hexagon", "key": key, "ID": name,
        "knowledge concept": "Understanding Triangles", "requirement": "Answer briefly.",
    }  # fmt: skip
    return Sample("Which is it?", says, right, judge, columns)


# of the six multi-step problems: 1 all right; 2 steps right, whole wrong; 3 a step wrong, whole right; 4 both wrong;
# 5 all right (three steps); 6 no step right, whole right
WEMATH = [
    wemath("2steps_1", 1, "B", True), wemath("2steps_2", 1, "B", True), wemath("2steps_multi", 1, "B", True),
    wemath("2steps_1", 2, "B", True), wemath("2steps_2", 2, "As many sides as a tripod has legs {mark}", True, ("B",)),
    wemath("2steps_multi", 2, "C", False, answer="D"),
    wemath("2steps_1", 3, "A", False), wemath("2steps_2", 3, "B", True), wemath("2steps_multi", 3, "B", True),
    wemath("2steps_1", 4, "A", False, answer="D"),
    wemath("2steps_2", 4, "The round one, I believe {mark}", False, ("C",), answer="D"),
    wemath("2steps_multi", 4, "D", False, answer="A"),
    wemath("3steps_1", 5, "B", True), wemath("3steps_2", 5, "B", True), wemath("3steps_3", 5, "B", True),
    wemath("3steps_multi", 5, "I choose B", True),
    wemath("2steps_1", 6, "A", False), wemath("2steps_2", 6, "A", False), wemath("2steps_multi", 6, "B", True),
]  # fmt: skip


def logic(answer: str, says: str, right: bool, judge: str, skill: str) -> Sample:
    return Sample("Which comes next? A, B, C or D", says, right, (judge,), {"answer": answer, "skill": skill})


LOGICVISTA = [
    logic("B", "It is B {mark}", True, "B", "inductive"),
    logic("B", "It is C {mark}", False, "C", "deductive"),
    logic("A, D", "Both D and A fit {mark}", True, "DA", "numerical"),
    logic("A", "None does {mark}", False, "Z", "spatial"),
    logic("C", "The third one {mark}", True, "C", "mechanical"),
]

CATEGORIES = ("Quantitative Reasoning", "Spatial Reasoning", "Positional Reasoning", "Attribute Reasoning",
              "Stylistic Reasoning", "Other")  # fmt: skip
VISULOGIC = [
    Sample("Which fits?", says, right, (), {"answer": answer, "category": category})
    for category, (answer, says, right) in zip(
        CATEGORIES,
        [("A", "Answer: \\boxed{A}", True), ("A", "Answer: \\boxed{B}", False), ("A", "I say \\boxed{A}.", True),
         ("A", "The answer is A", True), ("B", "hard to say", False), ("B", "Answer: \\boxed{C}", False)],
        strict=True,
    )
]  # fmt: skip


def dyna(kind: str, answer: str, says: str, right: bool, judge: tuple[str, ...], qid: int, varid: int) -> Sample:
    columns = {
        "answer_type": kind, "answer": answer, "subject": "algebra", "knowledge_level": "high school", "varid": varid,
        "qid": qid,
    }  # fmt: skip
    return Sample("Work it out.", says, right, judge, columns)


def short(answer: str) -> str:
    return json.dumps({"solution": "by looking", "short answer": answer})


# qid is the index of the question's first variant: rows 0 and 1 are one question, 2 to 3 another, 4 to 5 a third
DYNAMATH = [
    dyna("float", "2.500", short("2.500"), True, (), 0, 1),
    dyna("float", "3.500", "Its slope is then 3.5 {mark}", True, ("3.500",), 0, 2),
    dyna("multiple choice", "B", short("B"), True, (), 2, 1),
    dyna("multiple choice", "B", short("C"), False, (), 2, 2),
    dyna("float", "4.000", "Its slope is then 5 {mark}", False, ("5.000",), 4, 1),
    dyna("multiple choice", "C", "the third choice fits it best {mark}", True, ("C",), 4, 2),
]


def mmmu(answer: str, says: str, right: bool, judge: tuple[str, ...] = (), **more: Any) -> Sample:
    columns = {"answer": answer, "A": "cat", "B": "dog", "C": "cow", "D": "hen", "category": "Biology",
               "l2-category": "Science", "split": "validation"}  # fmt: skip
    images = more.pop("images", 1)
    return Sample("What is in <image 1>", says, right, judge, {**columns, **more}, images)


MMMU = [
    mmmu("B", "B", True),
    mmmu("B", "A", False),
    mmmu("C", "It gives milk, I suppose {mark}", True, ("C",)),
    mmmu("D", "It barks, I suppose {mark}", False, ("B",)),
    mmmu("A", "The answer is A", True, split="dev"),
    mmmu("seven", "It is seven.", True, A="", B="", C="", D=""),
    mmmu("B", "B.", True, images=2),
]

SETS: dict[str, list[Sample]] = {
    "MathVista_MINI": MATHVISTA,
    "MathVision_MINI": MATHVISION,
    "MathVerse_MINI": MATHVERSE,
    "WeMath": WEMATH,
    "LogicVista": LOGICVISTA,
    "VisuLogic": VISULOGIC,
    "DynaMath": DYNAMATH,
    "MMMU_DEV_VAL": MMMU,
}
KNOWN = {  # part of a known case's answer -> a healthy judge's replies
    "see 7 apples": "7", "see 5 apples": "5", "unable to tell": "none", "second option": "B",
    "perimeter of 12": "12", "perimeter of 15": "15", 'labeled "B"': "B", 'labeled "C"': "C",
    "three-sided polygon": "B", "perfectly round": "C", "slope is 2.5": "2.500", "slope is 3.5": "3.500",
}  # fmt: skip
MARKER = re.compile(r"[\[(](\w+)-(\d+)[\])]")


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Rows of a TSV file."""
    for index, sample in enumerate(SETS[name]):
        question = f"{sample.question} [{name}-{index}]"
        pictures = [
            base64.b64encode(draw(index + place, IMAGE_KINDS[(index + place) % len(IMAGE_KINDS)])).decode()
            for place in range(sample.images)
        ]
        columns = {
            key: value.replace("{question}", question) if isinstance(value, str) else value
            for key, value in sample.columns.items()
        }
        image = pictures[0] if len(pictures) == 1 else repr(pictures)
        yield {"index": index, "image": image, "question": question, **columns}


def write_tsv(folder: Path, name: str) -> Path:
    """Write a data set; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.tsv"
    everything = list(rows(name))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(everything[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(everything)
    return path


def says(name: str, index: int) -> str:
    """The policy's answer to a row."""
    return SETS[name][index].says.replace("{mark}", f"({name}-{index})")


def text_of(body: dict[str, Any]) -> str:
    """All text of a request's last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def policy(body: dict[str, Any], number: int = 0) -> str:
    """A scripted policy: answers by the marker in the question."""
    found = re.search(r"\[(\w+)-(\d+)\]", text_of(body))
    assert found, text_of(body)
    return says(found[1], int(found[2]))


def judge_reply(prompt: str) -> str:
    """A healthy judge's reply to a prompt of VLMEvalKit."""
    if "Judgement:" in prompt and "[Standard Answer]" in prompt:  # MathVerse's second question
        found = re.search(r"\[(\w+)-(\d+)\]\s*\n\s*\[Standard Answer\]", prompt)
        if found and len(replies := SETS[found[1]][int(found[2])].judge) > 1:
            return replies[1]
        answers = re.search(r"\[Standard Answer\]: (.*)\n\s*\[Model_answer\] : (.*)", prompt)
        assert answers
        return "1" if answers[1] == answers[2] else "0"
    found = re.search(r"\((\w+)-(\d+)\)", prompt)
    if found:
        return SETS[found[1]][int(found[2])].judge[0]
    return next(reply for part, reply in KNOWN.items() if part in prompt)


def judge(body: dict[str, Any], number: int = 0) -> str:
    """A scripted, healthy judge."""
    return judge_reply(text_of(body))
