"""Trains in one process or several with the same responses and noise, so that the results can be compared.

Run by test_many_processes.py: `parity_run.py RUNS.json`, one run after the other in the same processes; each has
`arguments` of `rlfr train`, a result `folder` and environment variables. Sampling takes its random numbers by a
response's place in the global batch; the flow's noise and times are constants.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import accelerate.state
import torch
import transformers.training_args
from accelerate.utils import DistributedType

import rlfr_vlm.flow.path as path
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.flow import save_field
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from tests.trainer.launching import skip_unused_parts

calls = {"rollout": 0, "token": 0}
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def multinomial(probabilities: torch.Tensor, num_samples: int = 1, **_: object) -> torch.Tensor:
    rows, vocabulary = probabilities.shape
    generator = torch.Generator().manual_seed(1000 * calls["rollout"] + calls["token"])
    uniform = torch.rand(rows * world, vocabulary, generator=generator)[rank * rows : (rank + 1) * rows]
    calls["token"] += 1
    return (probabilities.log() - (-uniform.log()).log()).argmax(dim=1, keepdim=True)


def pretend_accelerator() -> None:
    """Accelerate uses FSDP only on accelerators: tell it that it is on one."""
    started = accelerate.state.PartialState.__init__

    def start(self: object, *arguments: object, **settings: object) -> None:
        started(self, *arguments, **settings)
        if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    accelerate.state.PartialState.__init__ = start


@contextmanager
def patched_randomness() -> Iterator[None]:
    """Inside, responses and noise depend neither on the number of processes nor on earlier runs."""
    calls.update(rollout=0, token=0)

    def normal(shape: tuple[int, ...], device: object, generator: object = None) -> torch.Tensor:
        return torch.linspace(-1.5, 1.5, shape[-1]).expand(shape)

    with (
        patch.object(torch, "multinomial", multinomial),
        patch.object(path, "standard_normal", normal),
        patch.object(path, "logit_normal", lambda shape, device, generator=None: torch.full(shape, 0.6)),
        # checked for bf16 without --use_cpu
        patch.object(transformers.training_args, "is_torch_bf16_gpu_available", lambda: True),
    ):
        yield


def train(folder: Path, arguments: list[str]) -> None:
    """Train, and write policy, field and log to `folder`."""
    with patched_randomness():
        options, args = parse_config((ScriptArguments, RLFRConfig), arguments)
        trainer = build_trainer(options, args)
        generate = trainer._generate

        def counted(prompts: list) -> object:
            calls["rollout"], calls["token"] = calls["rollout"] + 1, 0
            return generate(prompts)

        trainer._generate = counted
        trainer.train()
    trainer.save_model(str(folder))
    if trainer.flow is not None:
        save_field(folder / f"field-{rank}", trainer.flow.field, trainer.flow.spec)
    if rank == 0:
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))
        (folder / "distributed_type").write_text(trainer.accelerator.distributed_type.value)
    trainer.accelerator.free_memory()


def main() -> None:
    skip_unused_parts()
    for run in json.loads(Path(sys.argv[1]).read_text()):
        os.environ.update(run["environment"])
        if run["environment"].get("ACCELERATE_USE_FSDP"):
            pretend_accelerator()
        train(Path(run["folder"]), run["arguments"])


if __name__ == "__main__":
    main()
