"""Versioned prompt presets for text benchmarks. Every result stores the hash of its preset's text.

Raw templates are sent to `/v1/completions`, so that a base model receives exactly these characters; the server adds a
beginning-of-text token if the tokenizer has one. Chat presets are sent to `/v1/chat/completions`, where the server
applies the model's chat template.
"""

import dataclasses
from dataclasses import dataclass

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonObject
from rlfr_vlm.provenance import short_hash

BOX = r"Please reason step by step, and put your final answer within \boxed{}."
TAG = "Please reason step by step, and put your final answer within <answer> </answer>."
R1 = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think> <answer> answer here </answer>."
)


def _qwen(system: str) -> str:
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{{question}}<|im_end|>\n<|im_start|>assistant\n"


LLAMA3 = (
    f"<|start_header_id|>system<|end_header_id|>\n\n{BOX}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "{question}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


@dataclass(frozen=True)
class Preset:
    """A prompt preset.

    Attributes:
        version: increased whenever the text changes.
        about: description for `rlfr-eval list`.
        template: raw text with `{question}`; empty for chat presets.
        system, user: messages of a chat preset; `user` contains `{question}`.
        stop: strings that end a raw response.
    """

    name: str
    version: int
    about: str
    template: str = ""
    system: str = ""
    user: str = "{question}"
    stop: tuple[str, ...] = ()

    @property
    def is_chat(self) -> bool:
        return not self.template

    @property
    def digest(self) -> str:
        """Hash of all fields that the model's input depends on."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key != "about"}
        return short_hash(fields, 12)

    def body(self, question: str) -> JsonObject:
        """Return the part of a request that holds the prompt."""
        if self.is_chat:
            messages = [{"role": "system", "content": self.system}] if self.system else []
            user = self.user.replace("{question}", question)
            return {"messages": [*messages, {"role": "user", "content": user}]}
        return {"prompt": self.template.replace("{question}", question), "stop": list(self.stop)}

    def text(self, question: str) -> str:
        """Return the raw prompt, or all messages, as text for display."""
        body = self.body(question)
        if "prompt" in body:
            return str(body["prompt"])
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in body["messages"])


QWEN_STOP = ("<|im_end|>", "<|endoftext|>")
LLAMA3_STOP = ("<|eot_id|>", "<|end_of_text|>")
TAG_AFTER = "{question}\n" + TAG
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("qwen-box", 1, "Qwen-Math's template, answer in a box", template=_qwen(BOX), stop=QWEN_STOP),
        Preset("qwen-tag", 1, "Qwen's template, answer in <answer> tags", template=_qwen(TAG), stop=QWEN_STOP),
        Preset("llama3-box", 1, "Llama 3's template, answer in a box", template=LLAMA3, stop=LLAMA3_STOP),
        Preset("r1", 1, "chat; <think> and <answer> tags, as RLPR trains Qwen", system=R1),
        Preset("r1-nothink", 1, "chat; answer in <answer> tags, as RLPR asks Llama and Gemma", user=TAG_AFTER),
        Preset("chat", 1, "the model's own chat template, answer in a box, as `rlfr train` asks", system=BOX),
        Preset("bare-chat", 1, "chat; the question alone, as `rlfr train` asks tasks of reasoning-gym"),
        Preset("none", 1, "the bare question, no template", template="{question}"),
    )
}


def preset(name: str, system: str = "") -> Preset:
    """Return a preset by name.

    Args:
        system: system prompt that replaces the preset's; "" for no change.

    Raises:
        UserError: an unknown name, or a system prompt for a raw template.
    """
    if name not in PRESETS:
        raise UserError(f"Unknown prompt preset {name!r}.{nearest(name, PRESETS)} Known: {', '.join(PRESETS)}.")
    result = PRESETS[name]
    if system and not result.is_chat:
        raise UserError(f"Preset {name} is a raw template; a system prompt goes with chat, r1 or r1-nothink.")
    return dataclasses.replace(result, system=system) if system else result
