"""A model's context is read first: what cannot fit is an error before anything is asked, never a silent cut."""

import sys
from collections.abc import Iterable

from rlfr_eval.benchmarks.text import AnyBenchmark
from rlfr_eval.model.answering import Task, request_body
from rlfr_eval.model.endpoint import Endpoint
from rlfr_eval.score.verdicts import Chosen
from rlfr_vlm.errors import UserError

LONGEST_CHECKED = 3  # prompts of each benchmark whose tokens are counted


def check_lengths(benchmarks: Iterable[AnyBenchmark], context: int | None) -> None:
    """Refuse answers that could not fit even without a prompt.

    Args:
        context: tokens of prompt and answer together; None when it is not known.
    """
    for benchmark in benchmarks:
        wanted = benchmark.sampling.max_tokens
        if context is not None and wanted >= context:
            raise UserError(
                f"{benchmark.name} asks for {wanted} tokens, but the model's context is {context}, prompt included. "
                f"Set --max-tokens below {context}, or serve the model with a longer context."
            )


async def check_prompts(endpoint: Endpoint, chosen: Chosen, context: int | None) -> None:
    """Count the longest prompts, where the server can count, and refuse what cannot fit."""
    if context is None:
        print("the server does not say its context length; a prompt that does not fit will stop the run",
              file=sys.stderr)  # fmt: skip
        return
    for benchmark, problems in chosen.values():
        wanted = benchmark.sampling.max_tokens
        for problem in sorted(problems, key=lambda problem: len(problem.asked))[-LONGEST_CHECKED:]:
            count = await endpoint.count_tokens(request_body(Task(benchmark, problem, 0), {}))
            if count is not None and count + wanted > context:
                room = context - count
                raise UserError(
                    f"{benchmark.name}: the prompt of problem {problem.id} has {count} tokens, which leaves {room} of "
                    f"the model's context of {context}; asked are {wanted}. Set --max-tokens {max(room, 1)} or less, "
                    "or serve the model with a longer context."
                )
