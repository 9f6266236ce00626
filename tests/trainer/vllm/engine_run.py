"""Trains with vLLM in this process and writes what happened, for tests of a real engine.

Run by test_patches.py: `engine_run.py RESULT.json METHODS [settings of rlfr train]`. METHODS is one, or several joined
by commas; all use the first one's engine, since starting one takes most of a run's time. The method `stale` is RLFR
with an engine that gets no weights after the first time; its result is the error message. With `--eager` among the
settings, the engine does not compile its model, which takes a third of the time.
"""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import trl.generation.vllm_generation as trl_engine

from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.errors import UserError
from rlfr_vlm.models.vision import vision_token_ids
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.vllm import follow_check
from tests.trainer.counting import Counts


def make_stale(generation):
    sync, calls = generation.sync_weights, []

    def once():
        if not calls:
            sync()
        else:
            for _ in generation._iter_named_params():
                pass
        calls.append(1)

    generation.sync_weights = once


def train(trainer):
    """What happened, as JSON takes it."""
    generation, seen, moved = trainer.vllm_generation, [], []
    refuse = follow_check.refuse_standstill

    def noted(before, after):
        moved.append(before != after)
        refuse(before, after)

    follow_check.refuse_standstill = noted
    base = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    generate = generation.generate

    def record(*arguments, **settings):
        result = generate(*arguments, **settings)
        seen.append(result[1])
        return result

    generation.generate = record
    counts = Counts(trainer)
    trainer.train()
    follow_check.refuse_standstill = refuse
    logged = trainer.state.log_history
    named = dict(trainer.model.named_parameters())
    return {
        "gap": [h["rollout/logp_gap_mean"] for h in logged if "rollout/logp_gap_mean" in h],
        "share": [h["rollout/effective_share"] for h in logged if "rollout/effective_share" in h],
        "deviation": [h["flow/deviation_wrong"] for h in logged if "flow/deviation_wrong" in h],
        "tokens": sum(len(response) for responses in seen for response in responses),
        "sampled": sorted({token for responses in seen for response in responses for token in response}),
        "vision": vision_token_ids(trainer.model, trainer.processing_class),
        "rollouts": len(seen), "moved": moved, "steps": trainer.state.global_step, "counts": counts.as_dict(),
        "base_kept": all(torch.equal(named[name], kept) for name, kept in base.items()),
        "adapters": sum(p.requires_grad for name, p in named.items() if "lora_" in name),
    }  # fmt: skip


def main():
    out, methods, settings = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    results = {}
    if "--eager" in settings:
        settings.remove("--eager")
        trl_engine.LLM = partial(trl_engine.LLM, enforce_eager=True)
    for method in methods:
        stale = method == "stale"
        if stale:
            arguments = ["--method", "rlfr", "--output_dir", f"{out.parent}/stale-run"]
        else:
            arguments = ["--method", method, *([] if method == "rlfr" else ["--flow_path", ""])]
        options, args = parse_config((ScriptArguments, RLFRConfig), [*settings, *arguments])
        trainer = build_trainer(options, args)
        engine = trainer.vllm_generation.llm
        trl_engine.LLM = lambda engine=engine, **_: engine
        if stale:
            make_stale(trainer.vllm_generation)
            with pytest.raises(UserError) as error:
                trainer.train()
            results[method] = str(error.value)
        else:
            results[method] = train(trainer)
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
