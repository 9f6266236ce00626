"""Check before the first request that prompts and answers fit the model's context."""

import sys
from collections.abc import Iterable
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark
from rlfr_eval.model.answering import Task, request_body
from rlfr_eval.schema import Selections
from rlfr_vlm.errors import UserError
from rlfr_vlm.servers.endpoint import Endpoint

PROMPTS_CHECKED = 3  # longest prompts of each benchmark whose tokens are counted


def check_lengths(benchmarks: Iterable[AnyBenchmark[Any]], context: int | None) -> None:
    """Refuse benchmarks whose answers could not fit even without a prompt.

    Args:
        context: tokens of prompt and answer together; None if unknown.

    Raises:
        UserError: max_tokens reaches the context.
    """
    for benchmark in benchmarks:
        max_tokens = benchmark.sampling.max_tokens
        if context is not None and max_tokens >= context:
            raise UserError(
                f"{benchmark.name} asks for {max_tokens} tokens, but the model's context is {context}, prompt "
                f"included. Set --max-tokens below {context}, or serve the model with a longer context."
            )


async def check_prompts(endpoint: Endpoint, selections: Selections, context: int | None) -> None:
    """Count the tokens of the longest prompts, if the server can count, and refuse those that do not fit.

    Raises:
        UserError: prompt and answer together exceed the context.
    """
    if context is None:
        print(
            "the server does not say its context length; a prompt that does not fit will stop the run", file=sys.stderr
        )
        return
    for selection in selections.values():
        benchmark = selection.benchmark
        max_tokens = benchmark.sampling.max_tokens
        by_length = sorted(selection.problems, key=lambda problem: len(problem.text))
        for problem in by_length[-PROMPTS_CHECKED:]:
            count = await endpoint.count_tokens(request_body(Task(benchmark, problem, 0), {}))
            if count is not None and count + max_tokens > context:
                room = context - count
                raise UserError(
                    f"{benchmark.name}: the prompt of problem {problem.id} has {count} tokens, which leaves {room} of "
                    f"the model's context of {context}; asked are {max_tokens}. Set --max-tokens {max(room, 1)} or "
                    "less, or serve the model with a longer context."
                )
