"""Prompt presets for questions about images. A run folder holds answers to one preset only.

`official` is VLMEvalKit's own prompt. `paper` follows the evaluation of the RLFR paper: its fork of VLMEvalKit puts
chain-of-thought instructions around the question, text before image, and samples with temperature 0.01 and top_k 1.
Its instructions for MathVision, LogicVista and multiple choice are those of InternVL's VLMEvalKit prompts; those for
MathVista and MathVerse are only described, and are composed here from the public prompts of that family. WeMath and
DynaMath are asked in VLMEvalKit's own words, since its rules read no other form.
`training` uses the prompt of `rlfr train`: its system prompt, images first, question and options unchanged.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_eval.benchmarks.text import Sampling
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonMapping
from rlfr_vlm.provenance import short_hash

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

GUESS = (
    "If you are uncertain or the problem is too complex, make a reasoned guess based on the information provided. "
    "Avoid repeating steps indefinitely—provide your best guess even if unsure. Think step by step logically, "
    "considering all relevant information before answering."
)
# the released evaluation sends the doubled backslash
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
class Instructions:
    """Text before and after a question."""

    before: str = ""
    after: str = ""


# VLMEvalKit's class -> instructions; other classes get FREE or CHOICE after the question
PAPER: Mapping[str, Instructions] = {
    "MathVista": Instructions(before=SOLVE),
    "MathVerse": Instructions(SOLVE_SHORT, STEP_BY_STEP),
    "MathVision": Instructions(after=FREE),
    "LogicVista": Instructions(after=FREE),
    "VisuLogic": Instructions(after=f"{DIRECTLY}\n{CHOICE}"),
    "WeMath": Instructions(),
    "Dynamath": Instructions(),  # VLMEvalKit reads the JSON that its own prompt asks for, and no box
}
UPSTREAM_WORDS = ("WeMath", "Dynamath")  # asked in VLMEvalKit's words


@dataclass(frozen=True)
class VlmPreset:
    """A prompt preset with its sampling.

    Attributes:
        version: increased whenever a text or the sampling changes.
        about: description for `rlfr-eval list`.
        compare: what compares MathVista's free-form answers: `vlmeval` or `grader`.
        extra_body: further fields of each request.
    """

    name: str
    version: int
    about: str
    sampling: Sampling
    compare: str = "vlmeval"
    extra_body: JsonMapping = dataclasses.field(default_factory=dict)

    def parts(self, problem: "VlmProblem", family: str) -> list[Mapping[str, str]]:
        """Return the texts and images of the user's message in order."""
        if self.name == "official":
            return list(problem.parts)
        images = [part for part in problem.parts if "image" in part]
        if self.name == "training":
            return [*images, {"text": problem.question_with_options}]
        instructions = self._instructions(problem, family)
        if family not in PAPER and len(images) > 1:
            # keep the images interleaved with the text
            return [*problem.parts, {"text": "\n" + instructions.after}]
        if family in UPSTREAM_WORDS:
            question = problem.text
        else:
            question = problem.question if family in PAPER else problem.question_with_options
        text = "\n".join(part for part in (instructions.before, question, instructions.after) if part)
        return [{"text": text}, *images]

    def _instructions(self, problem: "VlmProblem", family: str) -> Instructions:
        return PAPER.get(family) or Instructions(after=CHOICE if problem.letters else FREE)

    def digest(self, family: str, system: str) -> str:
        """Return a hash of everything that is added to a question of this family."""
        instructions = [vars(PAPER.get(family, Instructions())), FREE, CHOICE] if self.name == "paper" else []
        fields = [self.name, self.version, self.compare, dict(self.extra_body), instructions, system]
        return short_hash(fields, 12, sort_keys=False)


PRESETS = {
    preset.name: preset
    for preset in (
        VlmPreset("official", 1, "VLMEvalKit's own prompt, greedy", Sampling(max_tokens=4096)),
        VlmPreset(
            name="paper",
            version=1,
            about="chain of thought and sampling as in the RLFR paper's evaluation; context 8192",
            sampling=Sampling(temperature=0.01, top_p=0.001, top_k=1, max_tokens=0, seed=3407),
            compare="grader",
            extra_body={"repetition_penalty": 1.0, "presence_penalty": 0.0},
        ),
        VlmPreset(
            name="training",
            version=1,
            about="as `rlfr train` asked: its system prompt, images first, greedy",
            sampling=Sampling(max_tokens=4096),
        ),
    )
}


def vlm_preset(name: str) -> VlmPreset:
    """Return a preset by name.

    Raises:
        UserError: an unknown name.
    """
    if name not in PRESETS:
        raise UserError(f"Unknown preset {name!r}.{nearest(name, PRESETS)} Known: {', '.join(PRESETS)}.")
    return PRESETS[name]
