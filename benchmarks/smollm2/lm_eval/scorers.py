"""Prompt and scores of the tasks of this folder. The scores are those of lm-eval's own tasks, on the same response.

`hendrycks_exact_match` is the score of `hendrycks_math500`; `minerva_exact_match` and `minerva_math_verify` are those
of `minerva_math500`. All three read one gold from a boxed solution; our files have answers only, so each is boxed.
A response is right if it is right by one of the golds.
"""

import re
from typing import Any

from lm_eval.tasks.hendrycks_math import utils as hendrycks
from lm_eval.tasks.minerva_math import utils as minerva

PROMPT = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"
)


def process_docs(dataset: Any) -> Any:
    """Add the golds as texts that lm-eval's scores read."""
    return dataset.map(lambda doc: {"golds": golds(doc["answer"])})


def golds(answer: str | float | list[str]) -> list[str]:
    """Return each gold once, without dollar signs, which a box does not have; 142.0 is 142."""
    if isinstance(answer, float):
        return [f"{answer:.0f}" if answer.is_integer() else str(answer)]
    texts = answer if isinstance(answer, list) else [answer]
    return list(dict.fromkeys(re.sub(r"(?<!\\)\$", "", text).strip() for text in texts))


def doc_to_text(doc: dict[str, Any]) -> str:
    """Return the prompt."""
    return PROMPT % doc["problem"]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, int]:
    """Return the three scores of a response, each the best over the golds."""
    by_gold = [scores(gold, results) for gold in doc["golds"]]
    return {name: max(one[name] for one in by_gold) for name in by_gold[0]}


def scores(gold: str, results: list[str]) -> dict[str, int]:
    """Return the three scores by one gold."""
    doc = {"solution": "\\boxed{" + gold + "}", "answer": minerva.normalize_final_answer(gold)}
    minerva_scores = minerva.process_results(doc, results)
    return {
        "hendrycks_exact_match": hendrycks.process_results(doc, results)["exact_match"],
        "minerva_exact_match": minerva_scores["exact_match"],
        "minerva_math_verify": minerva_scores["math_verify"],
    }
