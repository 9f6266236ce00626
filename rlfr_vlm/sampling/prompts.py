"""Which prompts are sampled: rows spread over the data, without those that cannot be used."""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_vlm.data.encode import checked_prompt
from rlfr_vlm.data.lengths import plan_lengths
from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.data.load import Rows
    from rlfr_vlm.options import DataOptions


@dataclass(frozen=True)
class Draw:
    """A response to draw: the row with decoded images, its number in the data, and the number of the response."""

    row: Row
    prompt: int
    sample: int


@dataclass
class Prompts:
    """The prompts of a run.

    Attributes:
        rows: the data.
        numbers: rows to sample, in order.
        processing_class: the policy's processor; None where only a server has it.
    """

    rows: "Rows"
    numbers: Sequence[int]
    processing_class: "ProcessingClass | None"

    def load(self, number: int) -> Row:
        """Return a row with decoded images.

        Raises:
            BadRow: the row cannot be used, or the policy's chat template refuses it.
        """
        row = self.rows.load(number)
        if self.processing_class is not None:
            checked_prompt(self.processing_class, row)
        return row

    def draws(self, samples: int, after: tuple[int, int] | None = None) -> Iterator[Draw]:
        """Yield the responses to draw: all of a prompt, then those of the next one. Bad rows are left out and counted.

        Args:
            samples: responses to each prompt.
            after: prompt and number of the last response that is there already.

        Raises:
            UserError: the share of bad rows is above bad_row_limit, or no row can be used.
        """
        first = 0 if after is None else self.numbers.index(after[0])
        found, reason = after is not None, ""
        for number in self.numbers[first:]:
            start = after[1] + 1 if after is not None and number == after[0] else 0
            if start >= samples:
                continue
            try:
                row = self.load(number)
            except BadRow as error:
                self.rows.bad_rows.record(number, error, self.rows.place(number))
                reason = f"{self.rows.place(number)}: {error}"
                continue
            self.rows.bad_rows.record(number, None)
            found = True
            yield from (Draw(row, number, sample) for sample in range(start, samples))
        if not found:
            raise UserError(
                f"No row of the data can be used; {reason}. `rlfr check-data` lists the errors of all rows."
            )

    def check_unchanged(self, last: JsonObject) -> None:
        """Check that the data still have the prompt of a written row.

        Args:
            last: the row.

        Raises:
            UserError: the data have another prompt in its place, or none.
        """
        number = last["prompt_index"]
        try:
            prompt = self.rows.parse(number)["prompt"] if number in self.numbers else None
        except BadRow:
            prompt = None
        if prompt != last.get("prompt"):
            raise UserError(
                f"Row {number} of the data has another prompt than the responses that are there: the data have "
                "changed. Name another --out."
            )

    def left_out(self, sampled: Set[int]) -> Counter[str]:
        """Return the number of rows without responses by reason.

        Args:
            sampled: rows with responses.
        """
        reasons: Counter[str] = Counter()
        for number in sorted(set(self.numbers) - sampled):
            try:
                self.load(number)
            except BadRow as error:
                reasons[error.reason] += 1
        return reasons


def choose_prompts(
    rows: "Rows", options: "DataOptions", processing_class: "ProcessingClass | None", count: int | None
) -> Prompts:
    """Choose the prompts of a run: those that fit into max_prompt_tokens, or `count` of them, spread evenly.

    Args:
        processing_class: the policy's; None where only a server has it.
        count: None takes all.

    Raises:
        UserError: no prompt fits, or prompts cannot be counted because only the server has the processor.
    """
    rows.bad_rows.handling = "left out"
    if processing_class is not None:
        rows.suit(processing_class)
    numbers: Sequence[int] = rows.indices
    if options.max_prompt_tokens is not None:
        if processing_class is None:
            raise UserError(
                "max_prompt_tokens needs the policy's processor, which only the server has. Unset it, or give "
                "--engine hf or vllm."
            )
        plan = plan_lengths(rows, processing_class, options.max_prompt_tokens, options.long_prompts)
        print(f"prompts of at most {options.max_prompt_tokens} tokens: {plan.describe()}")
        numbers, rows.pixel_limits = plan.kept, plan.pixel_limits
    if count is not None and count < len(numbers):
        numbers = [numbers[index * len(numbers) // count] for index in range(count)]
    return Prompts(rows, numbers, processing_class)
