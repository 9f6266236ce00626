"""Trains with vLLM in this process and writes what happened, for tests of a real engine.

Run by test_patches.py: `engine_run.py RESULT.json METHODS [settings of rlfr train]`. METHODS is one, or several joined
by commas; all use the first one's engine, since starting one takes most of a run's time. An engine whose RESULT is
named `stale` is never sent anything after the first time.
"""

import json
import sys
from pathlib import Path

import torch
import trl.generation.vllm_generation as trl_engine

from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.models import VISION_TOKENS
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
    vocabulary = trainer.processing_class.tokenizer.get_vocab()
    logged = trainer.state.log_history
    named = dict(trainer.model.named_parameters())
    return {
        "gap": [h["rollout/logp_gap_mean"] for h in logged if "rollout/logp_gap_mean" in h],
        "share": [h["rollout/effective_share"] for h in logged if "rollout/effective_share" in h],
        "deviation": [h["flow/deviation_wrong"] for h in logged if "flow/deviation_wrong" in h],
        "tokens": sum(len(response) for responses in seen for response in responses),
        "sampled": sorted({token for responses in seen for response in responses for token in response}),
        "vision": [vocabulary[token] for token in VISION_TOKENS if token in vocabulary],
        "rollouts": len(seen), "moved": moved, "steps": trainer.state.global_step, "counts": counts.as_dict(),
        "base_kept": all(torch.equal(named[name], kept) for name, kept in base.items()),
        "adapters": sum(p.requires_grad for name, p in named.items() if "lora_" in name),
    }  # fmt: skip


def main():
    out, methods, settings = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    results = {}
    for method in methods:
        flow = [] if method == "rlfr" else ["--flow_path", ""]
        options, args = parse_config((ScriptArguments, RLFRConfig), [*settings, "--method", method, *flow])
        trainer = build_trainer(options, args)
        engine = trainer.vllm_generation.llm
        trl_engine.LLM = lambda engine=engine, **_: engine
        if out.stem == "stale":
            make_stale(trainer.vllm_generation)
        results[method] = train(trainer)
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
