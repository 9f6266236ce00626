"""Score one answer as VLMEvalKit scores it, by calling the functions that it calls. Read in ms-vlmeval 0.0.20.

Each family is a class of VLMEvalKit's data sets. Its function gets what is known, a row with the prediction in it, and
the table; it returns whether the answer is right, and what was extracted.
"""

import string
from collections.abc import Callable, Mapping
from typing import Any

from rlfr_eval.vlmeval.worker.own_evaluation import own_evaluation
from rlfr_eval.vlmeval.worker.stand_ins import Known, Need, Unsure
from rlfr_eval.vlmeval.worker.tables import Table, Unusable

DYNAMATH_SYSTEM = (
    "You are a helpful assistant that helps me to format free-form answers into a short answer according to the "
    "instruction.\n"
)
READS = {"integer": "integer", "float": "float"}  # MathVista's answer types whose reply must be a number
# columns of a class that its way of scoring reads
NEEDED = {"MathVista": ("question_type", "answer_type", "choices", "answer_option"), "MathVision": ("choices",),
          "MathVerse": ("question_for_eval",), "Dynamath": ("answer_type",), "WeMath": ("A", "B"),
          "ImageMCQDataset": ("A", "B")}  # fmt: skip
BY_ROW = "rows"
GROUPED = ("mmbench", "ccbench", "circular", "mmcr", "mmt", "mmsci", "mmvp")  # sets whose score is not a mean of rows


def score(table: Table, line: Any, prediction: str, given: Mapping[str, Any], compare: str) -> dict[str, Any]:
    """One outcome: a verdict, or a need.

    Args:
        line: the row.
        given: what is known, by the keys of the needs.
        compare: `vlmeval`, or `grader`: by whom MathVista's free-form answers are compared.
    """
    line = line.copy()
    line["prediction"] = prediction.encode(errors="replace").decode()  # it may hold half a character
    known = Known(given, compare)
    way = family(table)
    try:
        if way == BY_ROW:
            return {"result": _by_itself(known, line, table), "asked": known.asked}
        right, extracted = FAMILIES[way](known, line, table)
    except Need as need:
        return {"needs": need.need}
    except Unsure as error:
        return {"verdict": "undecided", "reason": str(error), "asked": known.asked}
    return {"verdict": "right" if right else "wrong", "extracted": str(extracted), "asked": known.asked}


def family(table: Table) -> str:
    """The family of a data set; `open` for questions of one's own without options, `rows` for other sets.

    Raises:
        Unusable: its score is no mean over its rows, or it lacks columns.
    """
    from vlmeval.dataset import image_mcq

    classes = type(table.dataset).__mro__
    found = next((cls.__name__ for cls in classes if cls.__name__ in FAMILIES), "")
    frame = getattr(table.dataset, "data", None)  # a judge's known cases have none
    missing = [column for column in NEEDED.get(found, ()) if frame is not None and column not in frame.columns]
    if missing:
        raise Unusable(f"{table.file} has no column {' and no column '.join(missing)}; {table.name} is scored by it.")
    if table.custom:
        return "ImageMCQDataset" if found else "open"
    if any(part in table.name.lower() for part in GROUPED):
        raise Unusable(f"{table.name} is scored over groups of rows, in a way that is not supported here")
    own = type(table.dataset).evaluate is not image_mcq.ImageMCQDataset.evaluate
    return BY_ROW if not found or (found == "ImageMCQDataset" and own) else found


def _mathvista(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    from vlmeval.dataset.utils import mathvista

    options = line["question_type"] == "multi_choice"
    reads = "option" if options else READS.get(line["answer_type"], "answer")
    judge = known.reading(reads, mathvista.list_to_dict(_literal(line["choices"])) if options else None)
    line["res"] = mathvista.MathVista_auxeval(judge, line)["res"]
    if known.compare == "grader" and not options:
        return known.equal(line["res"], line["answer"], final=True), line["res"]
    return bool(mathvista.post_check(line, prefetch=False)), line["res"]


def _mathvision(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    from vlmeval.dataset.utils import mathv

    options = mathv.list_to_dict(_literal(line["choices"]))
    judge = known.reading("option" if options else "answer", options)
    # upstream's compares by evaluating both texts, in a forked process
    mathv.is_equal = lambda answer, gold: known.equal(answer, gold, final=False)
    line["res"] = mathv.MATH_V_auxeval(judge, line)["res"]
    mathv.is_equal = lambda answer, gold: known.equal(answer, gold, final=True)
    return bool(mathv.post_check(line, prefetch=False)), line["res"]


def _mathverse(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    from vlmeval.dataset.utils import mathverse

    line["extract"] = mathverse.MathVerse_auxeval_extract(known.reading("answer"), line)["extract"]
    if not line["extract"]:
        return False, ""
    return bool(mathverse.MathVerse_auxeval_score(known.reading("binary"), line)["score"]), line["extract"]


def _logicvista(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    from vlmeval.dataset.utils import logicvista

    logicvista.print = lambda *text: None  # it prints every prompt
    line["answer"] = str(line["answer"])
    outcome = logicvista.LogicVista_auxeval(known.reading("letters"), line)
    return bool(outcome["hit"]), outcome["res"]


def _visulogic(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    from vlmeval.dataset.utils import visulogic

    extracted, _ = visulogic.extract_answer(line["prediction"])
    return extracted == line["answer"], extracted


def _dynamath(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    from vlmeval.dataset import dynamath

    kinds = {"float": "float", "multiple choice": "letter"}
    choices = dict.fromkeys("ABCDE", "") if line["answer_type"] == "multiple choice" else None
    known.system = DYNAMATH_SYSTEM
    line["answer"] = str(line["answer"])
    outcome = dynamath.DynaMath_auxeval(known.reading(kinds.get(line["answer_type"], "answer"), choices), line)
    return bool(outcome["correct"]), outcome["extracted"]


def _options(known: Known, line: Any, table: Table) -> tuple[bool, Any]:
    """Multiple choice: VLMEvalKit's eval_vanilla, on a row as mcq_vanilla_eval and MMMU_preproc make it."""
    import pandas
    from vlmeval.dataset.utils import multiple_choice

    line.index = [key if len(key) == 1 and key in string.ascii_uppercase else key.lower() for key in line.index]
    answer = str(line["answer"])
    line["GT"] = answer
    if "MMMU" in table.name:
        line["GT"] = answer if len(answer) == 1 and answer in string.ascii_uppercase else "A"
        if pandas.isna(line["A"]):  # an open question: VLMEvalKit makes one with two options of it
            line["A"], line["B"] = answer, "Other Answers"
    judge = known.reading("letter", multiple_choice.build_choices(line))
    found = multiple_choice.extract_answer_from_item(judge, line, dataset_name=table.name)["opt"]
    return found == line["GT"], found


def _by_itself(known: Known, line: Any, table: Table) -> list[dict[str, Any]]:
    """Any other set: VLMEvalKit's whole evaluation of this one row; its records.

    Raises:
        Unsure: it fails, or wants a judge: nobody here knows what replies it takes for which verdict.
    """
    index = str(line["index"])
    found = own_evaluation(table, {index: line["prediction"]}, {})
    if found["needs"]:
        raise Unsure("VLMEvalKit asks a judge about it, whose reply only VLMEvalKit could read")
    if found["failed"]:
        raise Unsure(f"VLMEvalKit cannot evaluate it by itself ({found['failed'][:200]})")
    return list(found["result"])


def _literal(cell: Any) -> list[Any]:
    """A cell that holds a list; MathVista's free-form rows hold nothing."""
    import ast

    if not isinstance(cell, str):
        return []
    found = ast.literal_eval(cell)
    return list(found) if isinstance(found, list | tuple) else []


FAMILIES: dict[str, Callable[[Known, Any, Table], tuple[bool, Any]]] = {
    "MathVista": _mathvista,
    "MathVision": _mathvision,
    "MathVerse": _mathverse,
    "LogicVista": _logicvista,
    "VisuLogic": _visulogic,
    "Dynamath": _dynamath,
    "WeMath": _options,
    "ImageMCQDataset": _options,
}
