"""Summary of sampled responses: counts, accuracy, pass@k, and how hard the prompts are."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.sampling.sample_file import Outcome
from rlfr_vlm.stats import clustered_interval, pass_at_k

BINS = 5  # of the histogram, besides those of prompts that are all wrong and all right
TRUNCATED_SHARE = 0.01  # share of responses at the limit above which it is too low
BAR = 40  # characters of the longest bar


@dataclass
class PromptTally:
    """Verdicts on the responses to one prompt."""

    right: int = 0
    wrong: int = 0

    @property
    def decided(self) -> int:
        return self.right + self.wrong

    @property
    def share(self) -> float:
        """Share of right responses among the decided ones, of which there must be some."""
        return self.right / self.decided


@dataclass
class Summary:
    """Counts of a file's rows.

    Attributes:
        samples: responses to each prompt.
        prompts: verdicts by prompt.
        reasons: number of undecided responses by reason.
        left_out: number of rows of the data without responses by reason.
    """

    samples: int
    prompts: dict[int, PromptTally] = field(default_factory=dict)
    responses: int = 0
    truncated: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], samples: int, left_out: Mapping[str, int]) -> "Summary":
        """Count rows."""
        summary = cls(samples, left_out=left_out)
        for outcome in outcomes:
            tally = summary.prompts.setdefault(outcome.prompt, PromptTally())
            tally.right += outcome.verdict == Verdict.RIGHT.value
            tally.wrong += outcome.verdict == Verdict.WRONG.value
            summary.responses += 1
            summary.truncated += outcome.truncated
            summary.failed += outcome.failed
            if outcome.verdict == Verdict.UNDECIDED.value:
                summary.reasons[outcome.reason.split(": ")[0]] += 1
        return summary

    @property
    def decided(self) -> list[PromptTally]:
        """Prompts with a decided response."""
        return [tally for tally in self.prompts.values() if tally.decided]

    def accuracy(self) -> JsonObject:
        """Mean over prompts of the share of right responses, with Wilson's interval adjusted for clusters."""
        shares = [tally.share for tally in self.decided]
        mean = sum(shares) / len(shares) if shares else None
        return {"acc": mean, "ci95": list(clustered_interval(shares, self.samples)), "prompts": len(shares)}

    def pass_at(self) -> JsonObject:
        """pass@k for powers of two up to the number of samples, over prompts with k decided responses or more."""
        sizes = sorted({min(2**power, self.samples) for power in range(self.samples.bit_length() + 1)})
        result: JsonObject = {}
        for k in sizes:
            enough = [tally for tally in self.prompts.values() if tally.decided >= k]
            values = [pass_at_k(tally.decided, tally.right, k) for tally in enough]
            result[str(k)] = {"pass": sum(values) / len(values) if values else None, "prompts": len(values)}
        return result

    def groups(self) -> dict[str, int]:
        """Number of prompts whose decided responses are all right, all wrong, or mixed: GRPO learns from these."""
        kinds = Counter(
            "all_right" if not tally.wrong else "all_wrong" if not tally.right else "mixed" for tally in self.decided
        )
        names = ("all_right", "all_wrong", "mixed")
        return {name: kinds[name] for name in names} | {"undecided": len(self.prompts) - len(self.decided)}

    def histogram(self) -> dict[str, int]:
        """Number of prompts by the share of right responses: none, bins of equal width, all."""
        edges = [100 * place // BINS for place in range(BINS + 1)]
        counts = dict.fromkeys(["0 %", *(f"{low}-{high} %" for low, high in itertools.pairwise(edges)), "100 %"], 0)
        names = list(counts)
        for tally in self.decided:
            if not tally.right or not tally.wrong:
                counts[names[-1 if tally.right else 0]] += 1
            else:
                counts[names[1 + tally.right * BINS // tally.decided]] += 1
        return counts

    def to_dict(self) -> JsonObject:
        right, wrong = (sum(getattr(tally, name) for tally in self.prompts.values()) for name in ("right", "wrong"))
        return {
            "prompts": len(self.prompts),
            "samples": self.samples,
            "responses": self.responses,
            "right": right,
            "wrong": wrong,
            "undecided": self.responses - right - wrong,
            "undecided_reasons": dict(self.reasons.most_common()),
            "failed": self.failed,
            "truncated": self.truncated,
            "accuracy": self.accuracy(),
            "pass_at": self.pass_at(),
            "groups": self.groups(),
            "share_right": self.histogram(),
            "left_out_rows": dict(self.left_out),
        }


def render(values: JsonObject) -> str:
    """Render `Summary.to_dict` as text."""
    lines = [
        f"{values['responses']} responses to {values['prompts']} prompts: {values['right']} right, {values['wrong']} "
        f"wrong, {values['undecided']} undecided; {values['truncated']} reached the limit of tokens"
    ]
    if values["truncated"] > TRUNCATED_SHARE * values["responses"]:
        share = values["truncated"] / values["responses"]
        lines.append(f"  {share:.1%} are cut off, and count as wrong without an answer: raise --max_new_tokens")
    if values["undecided_reasons"]:
        lines.append(f"  undecided: {_counts(values['undecided_reasons'])}")
    if values["left_out_rows"]:
        lines.append(f"  rows left out: {_counts(values['left_out_rows'])}; `rlfr check-data` shows them")
    accuracy = values["accuracy"]
    if accuracy["acc"] is None:
        return "\n".join([*lines, "nothing is decided, so there is no accuracy"])
    low, high = accuracy["ci95"]
    lines.append(f"accuracy {accuracy['acc']:.3f} [{low:.3f}, {high:.3f}], over {accuracy['prompts']} prompts")
    passes = [
        f"pass@{k} {found['pass']:.3f}"
        + (f" ({found['prompts']} prompts)" if found["prompts"] < values["prompts"] else "")
        for k, found in values["pass_at"].items()
        if found["pass"] is not None
    ]
    groups = values["groups"]
    lines += [
        ", ".join(passes),
        f"prompts: {groups['mixed']} mixed, which GRPO learns from; {groups['all_right']} all right, "
        f"{groups['all_wrong']} all wrong" + (f", {groups['undecided']} undecided" if groups["undecided"] else ""),
        "prompts by share of right responses:",
    ]
    largest = max(values["share_right"].values())
    lines += [
        f"  {name:>8}  {count:>6}  {'#' * (max(1, round(BAR * count / largest)) if count else 0)}".rstrip()
        for name, count in values["share_right"].items()
    ]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
