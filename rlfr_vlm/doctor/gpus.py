"""The GPUs that the driver sees, and whether torch sees them too."""

import os
import subprocess
from dataclasses import dataclass, field

from rlfr_vlm.doctor.checks import Check, fail, ok, warn

QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits"]
SECONDS = 20  # without its persistence daemon the driver needs several to wake
BUSY_GB = 2.0
AGAIN = "remove .venv and run `bash scripts/setup.sh` again on this machine (with the --extras you use)"


@dataclass(frozen=True)
class Card:
    """A GPU as nvidia-smi shows it; memory in GB."""

    name: str
    memory: float
    used: float
    driver: str


@dataclass(frozen=True)
class TorchView:
    """What torch says: its version, what it was built for, and the devices it can use."""

    version: str = ""
    built_for: str = ""
    names: list[str] = field(default_factory=list)
    problem: str = ""


def read_cards() -> tuple[list[Card], str]:
    """GPUs according to nvidia-smi, and what is wrong with it; no nvidia-smi means no GPU."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        return [], ""
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi does not answer within {SECONDS} s"
    except OSError as error:
        return [], f"nvidia-smi does not start: {error.strerror}"
    if done.returncode != 0:
        return [], f"nvidia-smi fails: {(done.stdout + done.stderr).strip()[:200] or f'code {done.returncode}'}"
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 3]
    return [Card(name, _gb(memory), _gb(used), driver) for name, memory, used, driver in rows], ""


def torch_view() -> TorchView:
    """Ask torch; it never raises, because a torch that does not import is a finding."""
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return TorchView(problem=f"torch does not import: {error}")
    hip = getattr(torch.version, "hip", None)
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {hip}" if hip else ""
    try:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() if built else 0)]
        problem = "" if not built or torch.cuda.is_available() else "torch.cuda.is_available() is False"
    except (RuntimeError, AssertionError) as error:
        return TorchView(torch.__version__, built, problem=str(error).splitlines()[0])
    return TorchView(torch.__version__, built, names, problem)


def check_gpus() -> list[Check]:
    """GPUs, driver, and whether torch can use them."""
    cards, smi_problem = read_cards()
    view = torch_view()
    checks = [_torch_check(cards, view)]
    if cards:
        drivers = ", ".join(sorted({card.driver for card in cards}))
        checks.insert(0, ok("GPUs", f"{len(cards)}: {_listed(cards)}; driver {drivers}"))
    if smi_problem:
        checks.append(warn("driver", smi_problem, "run `nvidia-smi` by hand; a driver that was updated while loaded "
                           "needs a restart of the machine, a container the NVIDIA container toolkit"))  # fmt: skip
    busy = [f"GPU {i} {card.used:.1f} of {card.memory:.1f} GB" for i, card in enumerate(cards) if card.used > BUSY_GB]
    if busy:
        checks.append(warn("GPU memory", f"in use already: {', '.join(busy)}", "`nvidia-smi` names the processes that "
                           "hold it; end them, or choose other GPUs with CUDA_VISIBLE_DEVICES"))  # fmt: skip
    return checks


def _torch_check(cards: list[Card], view: TorchView) -> Check:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    build = f"torch {view.version} built for {view.built_for or 'the CPU'}"
    if view.problem.startswith("torch does not import"):
        return fail("torch", view.problem, AGAIN)
    if view.names:
        return ok("torch", f"{build} sees {len(view.names)}{chosen}: {', '.join(view.names)}")
    if cards and not view.built_for:
        return fail("torch", f"{build}, so it cannot use the {len(cards)} GPUs that nvidia-smi sees",
                    f"a CPU build of torch is installed; {AGAIN}, which installs the CUDA build")  # fmt: skip
    if cards and visible is not None and visible.strip() in ("", "-1"):
        return warn("torch", f"{build}; CUDA_VISIBLE_DEVICES is {visible!r} and hides all GPUs, so training runs on "
                    "the CPU", "unset CUDA_VISIBLE_DEVICES")  # fmt: skip
    if cards:
        why = f"{view.problem}{chosen}".strip() or "it finds no device"
        return fail("torch", f"{build} cannot use the {len(cards)} GPUs that nvidia-smi sees: {why}",
                    f"driver {cards[0].driver} must be new enough for {view.built_for}: update the driver, or install "
                    "a torch built for an older CUDA")  # fmt: skip
    return warn("torch", f"no GPU; {build}; training runs on the CPU",
                "that is enough for scripts/quickstart.sh and the tests; larger policies need a GPU")  # fmt: skip


def _listed(cards: list[Card]) -> str:
    kinds: dict[tuple[str, float], int] = {}
    for card in cards:
        kinds[card.name, card.memory] = kinds.get((card.name, card.memory), 0) + 1
    return ", ".join(f"{count} x {name} with {memory:.1f} GB" for (name, memory), count in kinds.items())


def _gb(mebibytes: str) -> float:
    """GB; 0 where a GPU that is divided up shows no number."""
    return int(mebibytes) * 2**20 / 1e9 if mebibytes.isdecimal() else 0.0
