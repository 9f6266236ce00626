"""Prompt and scores of boxed_math500.yaml. The scores are those of lm-eval's own tasks, on the same response.

`hendrycks_exact_match` is the score of `hendrycks_math500`; `minerva_exact_match` and `minerva_math_verify` are those
of `minerva_math500`. All three read the gold from a boxed solution; our file has answers only, so the answer is boxed.
"""

from typing import Any

from lm_eval.tasks.hendrycks_math import utils as hendrycks
from lm_eval.tasks.minerva_math import utils as minerva

PROMPT = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"
)


def process_docs(dataset: Any) -> Any:
    """Add what lm-eval's scores read: a solution whose box has the answer."""
    return dataset.map(lambda doc: {"solution": "\\boxed{" + doc["answer"] + "}"})


def doc_to_text(doc: dict[str, Any]) -> str:
    """Return the prompt."""
    return PROMPT % doc["problem"]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, int]:
    """Return the three scores of a response."""
    normalized = doc | {"answer": minerva.normalize_final_answer(doc["answer"])}
    scores = minerva.process_results(normalized, results)
    return {
        "hendrycks_exact_match": hendrycks.process_results(doc, results)["exact_match"],
        "minerva_exact_match": scores["exact_match"],
        "minerva_math_verify": scores["math_verify"],
    }
