"""Choose sharding, micro-batch and rollout of a configuration so that they fit a GPU and divide evenly."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_vlm.options import ModelOptions

GENERATIONS = 8  # responses to a prompt, as in the papers
MICRO_BATCHES = (8, 4, 2, 1)
GOOD_ROWS = 4  # of a micro-batch: fewer leave a GPU idle, and are worth spreading the policy more
# Responses of an update and updates of a rollout, the papers' sizes first.
ROLLOUTS = ((128, 8), (128, 4), (64, 4), (64, 2), (64, 1), (32, 1), (16, 1), (8, 1))
ROLLOUTS_OF_AN_EPOCH = 4  # at least, so that a small set is not used up by one rollout
USABLE = 0.92  # share of a GPU's memory, as `rlfr plan` takes it
ENGINE_SHARE = 0.3  # of a GPU's memory, for vLLM
ASSUMED_MEMORY = 80.0  # GB, where there is no GPU


@dataclass(frozen=True)
class Machine:
    """Where the run will be.

    Attributes:
        processes: GPUs that train.
        memory: GB of one GPU.
        vllm, deepspeed, peft: whether these packages can be used.
        origin: where processes and memory come from, for the reader.
    """

    processes: int = 1
    memory: float = ASSUMED_MEMORY
    vllm: bool = False
    deepspeed: bool = False
    peft: bool = False
    origin: str = "assumed: no GPU was found"


@dataclass(frozen=True)
class Layout:
    """How the policy is held on the GPUs.

    Attributes:
        sharding: as `rlfr plan --sharding` names it.
        lora: train adapters.
        sleeps: vLLM gives its memory back in updates.
    """

    sharding: str = "none"
    lora: bool = False
    sleeps: bool = False


@dataclass(frozen=True)
class Batches:
    """Batch arithmetic of a rollout.

    Attributes:
        processes: that train.
        rows: of a micro-batch.
        accumulation: micro-batches of an update.
        updates: of a rollout.
    """

    processes: int
    rows: int
    accumulation: int
    updates: int

    @property
    def update(self) -> int:
        """Responses of an update."""
        return self.processes * self.rows * self.accumulation

    @property
    def prompts(self) -> int:
        """Prompts of a rollout."""
        return self.update * self.updates // GENERATIONS


@dataclass(frozen=True)
class Fit:
    """A layout, its largest micro-batch, and the bytes that they take; `needed` is None where it is unknown."""

    layout: Layout
    rows: int
    needed: float | None
    fits: bool = True


@dataclass(frozen=True)
class Workload:
    """What decides the memory of an update, besides the layout.

    Attributes:
        model_name: folder or hub id, whose configuration can be read; empty if it cannot.
        prompt, response: tokens.
        uses_flow: flow rewards are on.
        whole_weights: the method or the data needs whole weights on each process.
        uses_vllm: vLLM generates in the trainer's process.
    """

    model_name: str
    prompt: int
    response: int
    uses_flow: bool = False
    whole_weights: bool = False
    uses_vllm: bool = False


def find_machine(processes: int | None, memory: float | None) -> Machine:
    """Return the GPUs of this machine, or those that the user names; one GPU of `ASSUMED_MEMORY` where there is none.

    Raises:
        UserError: a number is not above 0.
    """
    import torch

    for name, value in (("processes", processes), ("gpu-memory", memory)):
        if value is not None and value <= 0:
            raise UserError(f"--{name} is {value}; it must be above 0.")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = torch.cuda.get_device_properties(0).total_memory / 1e9 if found else ASSUMED_MEMORY
    named = " and ".join(
        name for name, value in (("--processes", processes), ("--gpu-memory", memory)) if value is not None
    )
    rest = "found on this machine" if found else "assumed: no GPU was found"
    packages = {name: find_spec(name) is not None for name in ("vllm", "deepspeed", "peft")}
    return Machine(
        processes or found or 1,
        round(memory or own, 1),
        packages["vllm"] and found > 0,
        packages["deepspeed"],
        packages["peft"],
        rest if not named else f"from {named}" if processes and memory else f"{named}, the other {rest}",
    )


def choose_fit(work: Workload, machine: Machine) -> Fit:
    """Return the first layout in which a micro-batch of `GOOD_ROWS` fits, else the one with the largest that fits.

    Whole weights come before adapters. Where nothing fits, the layout that needs least is returned. Without a
    configuration of the model its memory is unknown, and the most careful sizes are taken.
    """
    whole = [Layout(name, sleeps=sleeps) for sleeps in _sleeping(work) for name in _shardings(work, machine)]
    adapters = [Layout(lora=True, sleeps=sleeps) for sleeps in _sleeping(work)] if machine.peft else []
    if not work.model_name:
        return Fit(whole[-1], 1, None)
    tried: list[Fit] = []
    for layouts in (whole, adapters):
        for layout in layouts:
            tried.append(_largest_that_fits(work, machine, layout))
            if tried[-1].fits and tried[-1].rows >= GOOD_ROWS:
                return tried[-1]
        if fitting := [fit for fit in tried if fit.fits]:
            return max(fitting, key=lambda fit: fit.rows)
    return min(tried, key=lambda fit: fit.needed or 0.0)


def _shardings(work: Workload, machine: Machine) -> list[str]:
    """Return the ways to spread the policy, those that spread less first."""
    if machine.processes == 1:
        return ["none"]
    if machine.deepspeed:
        return ["none", "zero2", *([] if work.whole_weights else ["zero3"])]
    return ["none", *([] if work.whole_weights else ["fsdp2"])]


def _sleeping(work: Workload) -> tuple[bool, ...]:
    """Return whether vLLM sleeps in updates: only if it has to, as it costs time."""
    return (False, True) if work.uses_vllm else (False,)


def _largest_that_fits(work: Workload, machine: Machine, layout: Layout) -> Fit:
    """Return the largest micro-batch of a layout that fits, else the smallest one."""
    for rows, needed in _needed(work, machine, layout):
        fit = Fit(layout, rows, needed, needed < USABLE * machine.memory * 1e9)
        if fit.fits:
            return fit
    return fit


def _needed(work: Workload, machine: Machine, layout: Layout) -> Iterator[tuple[int, float]]:
    """Yield micro-batches, large ones first, with the bytes of an update on one GPU."""
    from rlfr_vlm.meta_policy import assumed_spec, policy_on_meta
    from rlfr_vlm.plan import BFLOAT16, FLOAT32, MemorySettings, estimate_memory

    policy = policy_on_meta(model_options(work.model_name, layout), freeze_vision=True)
    engine = work.uses_vllm and not layout.sleeps
    for rows in MICRO_BATCHES:
        settings = MemorySettings(
            processes=machine.processes,
            sharding=layout.sharding,
            weight_bytes=BFLOAT16 if layout.lora else FLOAT32,
            bf16=True,
            checkpointing=True,
            rows=rows,
            positions=work.prompt + work.response,
            response=work.response,
            flow=assumed_spec(policy) if work.uses_flow else None,
            engine=machine.memory * 1e9 * ENGINE_SHARE if engine else 0.0,
        )
        yield rows, estimate_memory(policy, settings).total


def model_options(name: str, layout: Layout) -> "ModelOptions":
    """Return the settings of the policy in a layout."""
    from rlfr_vlm.options import ModelOptions

    if not layout.lora:
        return ModelOptions(model_name_or_path=name)
    return ModelOptions(model_name_or_path=name, use_peft=True, lora_r=64, lora_alpha=128, dtype="bfloat16")


def choose_batches(processes: int, most_rows: int, data_rows: int | None) -> Batches:
    """Return the largest rollout of `ROLLOUTS` of which the data fills several.

    A process's rollout is a multiple of `GENERATIONS`, so the configuration is valid for any number of processes.

    Args:
        processes: that train.
        most_rows: largest micro-batch.
        data_rows: rows of the training set; None if unknown.

    Raises:
        UserError: the data has fewer rows than there are processes.

    >>> choose_batches(8, 4, 55_000), choose_batches(1, 8, 30)
    (Batches(processes=8, rows=4, accumulation=4, updates=8), Batches(processes=1, rows=8, accumulation=4, updates=1))
    """
    prompts = ROLLOUTS[0][0] * ROLLOUTS[0][1] // GENERATIONS
    most = prompts if data_rows is None else data_rows // ROLLOUTS_OF_AN_EPOCH
    for update, updates in ROLLOUTS:
        rows = most_rows
        while rows > 1 and rows * processes > update:
            rows //= 2
        batches = Batches(processes, rows, max(1, round(update / (rows * processes))), updates)
        if rows * batches.accumulation * updates % GENERATIONS == 0 and batches.prompts <= most:
            return batches
    batches = Batches(processes, 1, GENERATIONS, 1)
    if data_rows is not None and data_rows < batches.prompts:
        raise UserError(
            f"The data has {data_rows} rows, fewer than the {batches.prompts} prompts that a rollout of {processes} "
            "processes takes at least. Use more rows, or fewer --processes."
        )
    return batches
