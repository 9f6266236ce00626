"""The parts of the check in order of value: what each measures, its estimated minutes, and its command.

The estimates are for a card of the class of an H100 and were not measured; they only divide the time.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

START = 25  # seconds that a script takes to begin and to end, kept from the time in which it measures


@dataclass(frozen=True)
class Setting:
    """What a part's command depends on.

    Attributes:
        results: JSON file that the command writes.
        scratch: folder of the part.
        seconds: its time limit.
        cpu: small shapes on a CPU, which test the check itself.
        policies: part -> folder of the policy that it trains.
    """

    results: Path
    scratch: Path
    seconds: float
    cpu: bool
    policies: dict[str, Path | None]

    @property
    def measuring(self) -> str:
        """Seconds in which a script may measure."""
        return f"{max(1.0, self.seconds - START):.0f}"


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        what: one line.
        minutes: its estimated share of the time.
        keys: of its numbers in the JSON file that its command writes; the first one that is there counts.
        policy: option that names the policy which it needs; empty for none.
    """

    name: str
    what: str
    minutes: float
    keys: tuple[str, ...]
    command: Callable[[Setting], list[str]]
    policy: str = ""

    def why_not(self, policies: dict[str, Path | None]) -> str | None:
        """Why the part cannot run; None if it can."""
        if self.policy and policies.get(self.name) is None:
            return f"{self.policy} names no policy"
        return None


def tests(setting: Setting) -> list[str]:
    on_gpu = [] if setting.cpu else ["-k", "not cpu"]
    record = ["-p", "benchmarks.gpu.record_tests", "--record-json", str(setting.results)]
    return ["-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider", *record, *on_gpu]


def step(size: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        sizes = ["--size", "tiny", "--rounds", "1"] if setting.cpu else ["--size", size, "--response", "256"]
        common = ["--kinds", "trl", "rlfr", "--updates", "2", "--seconds", setting.measuring]
        return ["benchmarks/speed/step.py", *sizes, *common, "--json", str(setting.results)]

    return command


def flow_fit(setting: Setting) -> list[str]:
    small = ["--widths", "32", "--tokens", "16", "--depth", "1", "--rounds", "1"]
    sizes = small if setting.cpu else ["--widths", "2048", "3584", "--tokens", "2048"]
    return ["benchmarks/speed/fit.py", *sizes, "--json", str(setting.results)]


def prefix(setting: Setting) -> list[str]:
    sizes = ["--size", "tiny", "--cases", "320/128", "--rounds", "1"]
    if not setting.cpu:
        sizes = ["--size", "3b", "--cases", "1024/256", "--rounds", "5"]
    return ["benchmarks/speed/prefix.py", *sizes, "--steps", "--json", str(setting.results)]


def rl(name: str, task: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        options = ["--policy", str(setting.policies[name]), "--task", task, "--work", str(setting.scratch)]
        small = ["--cpu"] if setting.cpu else []
        return ["-m", "benchmarks.gpu.rl", *options, *small, "--seconds", setting.measuring, "--json",
                str(setting.results)]  # fmt: skip

    return command


PARTS = (
    Part("tests", "tests marked gpu: log-probs in bfloat16, attentions, TRL's fused pass, shared prompts, memory",
         1.5, ("tests",), tests),
    Part("step_3b", "a step of RLFR over TRL's GRPO, Qwen2.5-VL-3B, prompt 1,024, response 256",
         2.0, ("step_3b", "step_tiny"), step("3b")),
    Part("step_7b", "the same for Qwen2.5-VL-7B; fewer layers where the memory does not hold all",
         2.0, ("step_7b", "step_tiny"), step("7b")),
    Part("flow_fit", "fitting a flow field: share of the card's bfloat16 peak", 0.5, ("fit",), flow_fit),
    Part("prefix", "passes with shared prompts against TRL's, Qwen2.5-VL-3B, prompt 1,024, response 256, bfloat16",
         1.0, ("prefix",), prefix),
    Part("rl_smollm2", "RLVR against RLFR on SmolLM2-135M, one seed after the other",
         3.0, ("rl",), rl("rl_smollm2", "text"), policy="--smollm2"),
    Part("rl_smollm2_vl", "RLVR against RLFR on a vision-language policy, task digits, one seed after the other",
         3.0, ("rl",), rl("rl_smollm2_vl", "digits"), policy="--smollm2-vl"),
)  # fmt: skip
NAMES = tuple(part.name for part in PARTS)


def command_of(part: Part, setting: Setting) -> list[str]:
    """Command line of a part, with this interpreter."""
    return [sys.executable, *part.command(setting)]


def listing() -> str:
    """What `--list` prints."""
    lines = [f"{part.name:14} {part.minutes:4.1f} min  {part.what}" + (f" ({part.policy} DIR)" if part.policy else "")
             for part in PARTS]  # fmt: skip
    return "\n".join([*lines, "Minutes are estimates; they divide --minutes among the parts that run."])
