"""Three ways to ask a question about an image. A run folder holds one of them; they are never mixed.

`official` is VLMEvalKit's own prompt. `paper` follows the evaluation of the RLFR paper: its fork of VLMEvalKit puts
chain-of-thought instructions around the question, text before image, and samples at temperature 0.01 from one token.
Its instructions for MathVision, LogicVista and multiple choice are those of InternVL's VLMEvalKit prompts; those for
MathVista and MathVerse are known from a description only and were put together from the public prompts of that family.
`training` asks as `rlfr train` did: its system prompt, images first, question and options as they stand.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlfr_eval.benchmarks.text import Sampling
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.provenance import short_hash

GUESS = (
    "If you are uncertain or the problem is too complex, make a reasoned guess based on the information provided. "
    "Avoid repeating steps indefinitely—provide your best guess even if unsure. Think step by step logically, "
    "considering all relevant information before answering."
)
# the doubled backslash is on the wire in the released evaluation
FREE = (
    "Answer the preceding question. The last line of your response should follow this format: 'Answer: "
    r"\\boxed{$FINAL_ANSWER}' (without quotes), where 'FINAL_ANSWER' is your conclusion based on the reasoning "
    "provided. " + GUESS
)
CHOICE = (
    "Answer the preceding multiple choice question. The last line of your response should follow this format: "
    r"'Answer: \\boxed{$LETTER}' (without quotes), where LETTER is one of the options. " + GUESS
)
SOLVE = (
    "Solve the question. The user asks a question, and you solves it. You first thinks about the reasoning process in "
    "the mind and then provides the user with the answer. The answer is in latex format and wrapped in $...$. The "
    r"final answer must be wrapped using the \\boxed{} command. The reasoning process and answer are enclosed within "
    "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> Since $1+1=2$, so the answer is $2$. "
    r"</think><answer> The answer is $\\boxed{2}$ </answer>, which means assistant's output should start with <think> "
    "and end with </answer>."
)
SOLVE_SHORT = (
    "Solve the question. You first think about the reasoning process and then provide the answer. The final answer "
    r"must be wrapped using the \\boxed{} command."
)
STEP_BY_STEP = "Think step by step logically, considering all relevant information before answering."
DIRECTLY = "Answer the question directly."


@dataclass(frozen=True)
class Around:
    """What stands before and after a question."""

    before: str = ""
    after: str = ""


# by VLMEvalKit's class; what is not here gets FREE or CHOICE
PAPER: Mapping[str, Around] = {
    "MathVista": Around(before=SOLVE),
    "MathVerse": Around(SOLVE_SHORT, STEP_BY_STEP),
    "MathVision": Around(after=FREE),
    "LogicVista": Around(after=FREE),
    "VisuLogic": Around(after=f"{DIRECTLY}\n{CHOICE}"),
    "WeMath": Around(),
}


@dataclass(frozen=True)
class VlmPreset:
    """A way to ask.

    Attributes:
        version: raised whenever a text or the sampling changes.
        compare: by whom MathVista's free-form answers are compared: `vlmeval`, or `grader`.
        extra_body: of each request.
    """

    name: str
    version: int
    about: str
    sampling: Sampling
    compare: str = "vlmeval"
    extra_body: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def parts(self, problem: Any, family: str) -> list[dict[str, str]]:
        """Texts and images of the user's message, in order."""
        if self.name == "official":
            return list(problem.parts)
        images = [part for part in problem.parts if "image" in part]
        if self.name == "training":
            return [*images, {"text": problem.with_options}]
        if family not in PAPER and len(images) > 1:
            return [
                *problem.parts,
                {"text": "\n" + self._around(problem, family).after},
            ]  # images stand where they must
        around = self._around(problem, family)
        # WeMath is asked in VLMEvalKit's own words, the others by their bare question
        asked = problem.text if family == "WeMath" else problem.question if family in PAPER else problem.with_options
        text = "\n".join(part for part in (around.before, asked, around.after) if part)
        return [{"text": text}, *images]

    def _around(self, problem: Any, family: str) -> Around:
        return PAPER.get(family) or Around(after=CHOICE if problem.letters else FREE)

    def digest(self, family: str, system: str) -> str:
        """Hash of everything that is added to a question of this family."""
        around = [vars(PAPER.get(family, Around())), FREE, CHOICE] if self.name == "paper" else []
        told = [self.name, self.version, self.compare, dict(self.extra_body), around, system]
        return short_hash(told, 12, sort_keys=False)


PRESETS = {
    preset.name: preset
    for preset in (
        VlmPreset("official", 1, "VLMEvalKit's own prompt, greedy", Sampling(max_tokens=4096)),
        VlmPreset(
            "paper", 1, "chain of thought and sampling as in the RLFR paper's evaluation; context 8192",
            Sampling(temperature=0.01, top_p=0.001, top_k=1, max_tokens=0, seed=3407), "grader",
            {"repetition_penalty": 1.0, "presence_penalty": 0.0},
        ),
        VlmPreset("training", 1, "as `rlfr train` asked: its system prompt, images first, greedy",
                  Sampling(max_tokens=4096)),
    )
}  # fmt: skip


def vlm_preset(name: str) -> VlmPreset:
    """The preset of this name.

    Raises:
        UserError: there is none.
    """
    if name not in PRESETS:
        raise UserError(f"Unknown preset {name!r}.{nearest(name, PRESETS)} Known: {', '.join(PRESETS)}.")
    return PRESETS[name]
