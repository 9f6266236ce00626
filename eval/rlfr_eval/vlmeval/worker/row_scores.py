"""Score one answer with the functions that VLMEvalKit's evaluation calls (ms-vlmeval 0.0.20).

A family is a class of VLMEvalKit's data sets. The function of a family takes the replay judge, the row with the
prediction in it, and the table; it returns whether the answer is right, and the extracted answer.
"""

import string
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rlfr_eval.vlmeval.worker.replay_judge import ReplayJudge, Undecidable, ValueNeeded
from rlfr_eval.vlmeval.worker.tables import Table, Unusable
from rlfr_eval.vlmeval.worker.upstream_evaluation import UNREADABLE, evaluate_upstream

if TYPE_CHECKING:
    import pandas

DYNAMATH_SYSTEM = (
    "You are a helpful assistant that helps me to format free-form answers into a short answer according to the "
    "instruction.\n"
)
NUMBER_TYPES = ("integer", "float")  # MathVista's answer types whose reply must be a number
REQUIRED_COLUMNS = {  # class -> columns that its scoring reads
    "MathVista": ("question_type", "answer_type", "choices", "answer_option"),
    "MathVision": ("choices",),
    "MathVerse": ("question_for_eval",),
    "Dynamath": ("answer_type",),
    "WeMath": ("A", "B"),
    "ImageMCQDataset": ("A", "B"),
}
BY_ROW = "rows"

RowScore = tuple[bool, object]  # whether the answer is right, and the extracted answer


def score(
    table: Table, row: "pandas.Series", prediction: str, values: Mapping[str, object], compare: str
) -> dict[str, object]:
    """Return an outcome as the worker's protocol defines it: a verdict, VLMEvalKit's result, or a need.

    Args:
        values: key of a need -> value.
        compare: `vlmeval`, or `grader`: what compares MathVista's free-form answers.
    """
    row = row.copy()
    row["prediction"] = prediction.encode(errors="replace").decode()  # may hold half of a surrogate pair
    judge = ReplayJudge(values, compare)
    table_family = family(table)
    try:
        if table_family == BY_ROW:
            return _upstream_outcome(row, table, values)
        right, extracted = FAMILIES[table_family](judge, row, table)
    except ValueNeeded as error:
        return {"needs": error.need}
    except Undecidable as error:
        return {"verdict": "undecided", "reason": str(error), "asked": judge.used}
    return {"verdict": "right" if right else "wrong", "extracted": str(extracted), "asked": judge.used}


def family(table: Table) -> str:
    """Return the family of a data set: a key of `FAMILIES`, `open`, or `rows`.

    `open` is for user questions without options, `rows` for data sets that VLMEvalKit evaluates row by row.

    Raises:
        Unusable: the table lacks columns.
    """
    from vlmeval.dataset import image_mcq

    classes = type(table.dataset).__mro__
    name = next((cls.__name__ for cls in classes if cls.__name__ in FAMILIES), "")
    frame = getattr(table.dataset, "data", None)  # None for the known cases of a judge
    missing = [
        column for column in REQUIRED_COLUMNS.get(name, ()) if frame is not None and column not in frame.columns
    ]
    if missing:
        raise Unusable(f"{table.file} has no column {' and no column '.join(missing)}; {table.name} is scored by it.")
    if table.custom:
        return "ImageMCQDataset" if name else "open"
    overrides_evaluate = type(table.dataset).evaluate is not image_mcq.ImageMCQDataset.evaluate
    return BY_ROW if not name or (name == "ImageMCQDataset" and overrides_evaluate) else name


def _mathvista(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    from vlmeval.dataset.utils import mathvista

    has_options = row["question_type"] == "multi_choice"
    if has_options:
        judge.expecting("option", mathvista.list_to_dict(_literal(row["choices"])))
    else:
        judge.expecting(row["answer_type"] if row["answer_type"] in NUMBER_TYPES else "answer")
    row["res"] = mathvista.MathVista_auxeval(judge, row)["res"]
    if judge.compare == "grader" and not has_options:
        return judge.equal(row["res"], row["answer"], final=True), row["res"]
    return bool(mathvista.post_check(row, prefetch=False)), row["res"]


def _mathvision(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    from vlmeval.dataset.utils import mathv

    options = mathv.list_to_dict(_literal(row["choices"]))
    judge.expecting("option" if options else "answer", options)
    # VLMEvalKit's is_equal evaluates both texts in a forked process.
    mathv.is_equal = lambda answer, gold: judge.equal(answer, gold, final=False)
    row["res"] = mathv.MATH_V_auxeval(judge, row)["res"]
    mathv.is_equal = lambda answer, gold: judge.equal(answer, gold, final=True)
    return bool(mathv.post_check(row, prefetch=False)), row["res"]


def _mathverse(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    from vlmeval.dataset.utils import mathverse

    row["extract"] = mathverse.MathVerse_auxeval_extract(judge.expecting("answer"), row)["extract"]
    if not row["extract"]:
        return False, ""
    return bool(mathverse.MathVerse_auxeval_score(judge.expecting("binary"), row)["score"]), row["extract"]


def _logicvista(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    from vlmeval.dataset.utils import logicvista

    logicvista.print = lambda *text: None  # it prints every prompt
    row["answer"] = str(row["answer"])
    outcome = logicvista.LogicVista_auxeval(judge.expecting("letters"), row)
    return bool(outcome["hit"]), outcome["res"]


def _visulogic(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    from vlmeval.dataset.utils import visulogic

    extracted, _ = visulogic.extract_answer(row["prediction"])
    return extracted == row["answer"], extracted


def _dynamath(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    from vlmeval.dataset import dynamath

    reply_kinds = {"float": "float", "multiple choice": "letter"}
    choices = dict.fromkeys("ABCDE", "") if row["answer_type"] == "multiple choice" else None
    judge.system = DYNAMATH_SYSTEM
    row["answer"] = str(row["answer"])
    judge.expecting(reply_kinds.get(row["answer_type"], "answer"), choices)
    outcome = dynamath.DynaMath_auxeval(judge, row)
    return bool(outcome["correct"]), outcome["extracted"]


def _options(judge: ReplayJudge, row: "pandas.Series", table: Table) -> RowScore:
    """Multiple choice: VLMEvalKit's eval_vanilla on a row prepared as in mcq_vanilla_eval and MMMU_preproc."""
    import pandas
    from vlmeval.dataset.utils import multiple_choice

    row.index = [key if len(key) == 1 and key in string.ascii_uppercase else key.lower() for key in row.index]
    answer = str(row["answer"])
    row["GT"] = answer
    if "MMMU" in table.name:
        row["GT"] = answer if len(answer) == 1 and answer in string.ascii_uppercase else "A"
        if pandas.isna(row["A"]):  # VLMEvalKit turns an open question into one with two options
            row["A"], row["B"] = answer, "Other Answers"
    judge.expecting("letter", multiple_choice.build_choices(row))
    option = multiple_choice.extract_answer_from_item(judge, row, dataset_name=table.name)["opt"]
    return option == row["GT"], option


def _upstream_outcome(row: "pandas.Series", table: Table, values: Mapping[str, object]) -> dict[str, object]:
    """Return the records of VLMEvalKit's evaluation of this row alone, for all other data sets.

    Raises:
        ValueNeeded: the evaluation asks its judge something that has no reply yet.
        Undecidable: the evaluation fails, or could not read a reply.
    """
    evaluation = evaluate_upstream(table, {str(row["index"]): row["prediction"]}, values, one_row=True)
    if evaluation["needs"]:
        raise ValueNeeded(**evaluation["needs"][0], kind="judge", reads="vlmevalkit", choices={})
    if evaluation["failed"] == UNREADABLE:
        raise Undecidable(UNREADABLE)
    if evaluation["failed"] and not evaluation["result"]:
        raise Undecidable(f"VLMEvalKit cannot evaluate it by itself ({str(evaluation['failed'])[:200]})")
    return {"result": evaluation["result"], "failed": evaluation["failed"], "asked": bool(values)}


def _literal(cell: object) -> list[object]:
    """Return the list in a cell; empty if the cell holds none, as in MathVista's free-form rows."""
    import ast

    if not isinstance(cell, str):
        return []
    value = ast.literal_eval(cell)
    return list(value) if isinstance(value, list | tuple) else []


FAMILIES: dict[str, Callable[[ReplayJudge, "pandas.Series", Table], RowScore]] = {
    "MathVista": _mathvista,
    "MathVision": _mathvision,
    "MathVerse": _mathverse,
    "LogicVista": _logicvista,
    "VisuLogic": _visulogic,
    "Dynamath": _dynamath,
    "WeMath": _options,
    "ImageMCQDataset": _options,
}
