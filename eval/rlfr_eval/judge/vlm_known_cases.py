"""Known cases for a judge of VLMEvalKit's prompts, sent through the same path as real answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rlfr_eval.benchmarks.vlm import BY_ROW, OPEN
from rlfr_eval.vlmeval.scoring import Scoring
from rlfr_vlm.files import JsonMapping
from rlfr_vlm.judging.client import Judge, JudgeResult
from rlfr_vlm.judging.known_cases import KNOWN_CASES, KnownCase, KnownCases, judge_text_case


@dataclass(frozen=True)
class VlmKnownCase(KnownCase):
    """A known case with the data set row that VLMEvalKit's scoring needs.

    Attributes:
        data_set: a data set of VLMEvalKit of the case's family.
        cells: the row, column -> value.
    """

    data_set: str = ""
    cells: JsonMapping = field(default_factory=dict)


COUNT = {"question": "How many apples are in the bowl?", "question_type": "free_form", "answer_type": "integer",
         "answer": "7", "choices": "[]", "answer_option": ""}  # fmt: skip
PART = {"question": "What fraction of the shape is blue?\nChoices: (A) 3/11 (B) 8/11", "question_type": "multi_choice",
        "answer_type": "text", "answer": "8/11", "choices": "['3/11', '8/11']", "answer_option": "B"}  # fmt: skip
SIDES = {"question": "What is the perimeter of the triangle?", "answer": "12", "choices": "[]",
         "question_for_eval": "What is the perimeter of the triangle?"}  # fmt: skip
ROW = {"question": "Which figure continues the row?", "answer": "B"}
SHAPE = {"question": "Which shape has three sides", "answer": "B", "A": "the square", "B": "the triangle",
         "C": "the circle", "D": "the hexagon"}  # fmt: skip
SLOPE = {"question": "What is the slope of the line?", "answer": "2.5", "answer_type": "float"}

# VLMEvalKit's class -> data set, row, answer, whether it is right. Rules decide none of them.
VLM_KNOWN_CASES: Mapping[str, tuple[tuple[str, JsonMapping, str, bool], ...]] = {
    "MathVista": (
        ("MathVista_MINI", COUNT, "I count them one by one and see 7 apples in all.", True),
        ("MathVista_MINI", COUNT, "I count them one by one and see 5 apples in all.", False),
        ("MathVista_MINI", COUNT, "The picture does not show any bowl, so I am unable to tell.", False),
        ("MathVista_MINI", PART, "Eight of its eleven parts are blue, so it is the second option.", True),
    ),
    "MathVision": (
        ("MathVision", SIDES, "Adding up its sides I get a perimeter of 12 for the triangle.", True),
        ("MathVision", SIDES, "Adding up its sides I get a perimeter of 15 for the triangle.", False),
    ),
    "MathVerse": (
        ("MathVerse_MINI", SIDES, "Adding up its sides I get a perimeter of 12 for the triangle.", True),
        ("MathVerse_MINI", SIDES, "Adding up its sides I get a perimeter of 15 for the triangle.", False),
    ),
    "LogicVista": (
        ("LogicVista", ROW, 'The figure labeled "B" continues the row.', True),
        ("LogicVista", ROW, 'The figure labeled "C" continues the row.', False),
    ),
    "WeMath": (
        ("WeMath", SHAPE, "It is that with as many sides as a tripod has legs: a three-sided polygon.", True),
        ("WeMath", SHAPE, "It is the one that is perfectly round and has no corner at all.", False),
    ),
    "ImageMCQDataset": (
        ("MMMU_DEV_VAL", SHAPE, "It is that with as many sides as a tripod has legs: a three-sided polygon.", True),
        ("MMMU_DEV_VAL", SHAPE, "It is the one that is perfectly round and has no corner at all.", False),
    ),
    "Dynamath": (
        ("DynaMath", SLOPE, "The line rises by five while it runs two, so its slope is 2.5 there.", True),
        ("DynaMath", SLOPE, "The line rises by seven while it runs two, so its slope is 3.5 there.", False),
    ),
}


def vlm_known_cases(families: Iterable[str], scoring: Scoring) -> KnownCases:
    """Return the cases of these families.

    The cases for text are added if a family is judged by our own prompt, or has no cases.
    """
    families = list(dict.fromkeys(families))
    vlm_cases = [
        VlmKnownCase(family, str(cells["question"]), str(cells["answer"]), answer, right, data_set, cells)
        for family in families
        for data_set, cells, answer, right in VLM_KNOWN_CASES.get(family, ())
    ]
    text_cases = KNOWN_CASES if not vlm_cases or OPEN in families or BY_ROW in families else ()

    async def judge_case(judge: Judge, case: KnownCase) -> JudgeResult:
        if not isinstance(case, VlmKnownCase):
            return await judge_text_case(judge, case)
        item = {"line": dict(case.cells), "prediction": case.answer, "given": {}, "compare": "vlmeval"}
        return await scoring.judge_item(judge, case.data_set, item)

    return KnownCases((*vlm_cases, *text_cases), judge_case)
