"""A curriculum on two real processes: both choose the same prompts, and a resumed run goes on with them."""

import json

import pytest

from tests.trainer.launching import launch, options, torchrun

TRAIN = """
import hashlib, json, sys
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from tests.trainer.launching import skip_unused_parts

skip_unused_parts()
out, arguments = sys.argv[1], json.loads(sys.argv[2])
for name, folder, steps, checkpoint in (
    ("whole", "whole", 4, None), ("first", "parts", 2, None), ("second", "parts", 4, f"{out}/parts/checkpoint-2"),
):
    own = [*arguments, "--output_dir", f"{out}/{folder}", "--max_steps", str(steps)]
    trainer = build_trainer(*parse_config((ScriptArguments, RLFRConfig), own))
    drawn, choose = [], trainer.curriculum.choose
    trainer.curriculum.choose = lambda sources: drawn.append(choose(sources)) or drawn[-1]
    trainer.train(resume_from_checkpoint=checkpoint)
    weights = b"".join(p.detach().numpy().tobytes() for p in trainer.model.parameters())
    result = {"drawn": drawn, "state": trainer.curriculum.state_dict(), "policy": hashlib.sha256(weights).hexdigest()}
    open(f"{out}/{name}.{trainer.accelerator.process_index}", "w").write(json.dumps(result))
    trainer.accelerator.free_memory()
"""


@pytest.mark.slow
def test_two_processes_choose_the_same_prompts_and_resume(make_policy, processor, tmp_path):
    """Three prompts with two responses on two processes: the second group is on both."""
    make_policy().save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    (tmp_path / "mine.py").write_text(
        "def even(completion_ids, **kwargs):\n    return [float(sum(ids) % 2 == 0) for ids in completion_ids]\n"
    )
    (tmp_path / "script.py").write_text(TRAIN)
    arguments = options({
        "model_name_or_path": tmp_path / "policy", "dataset_name": "digits", "dataset_limit": 8, "method": "rlvr",
        "use_cpu": "true", "bf16": "false", "report_to": "none", "save_steps": 2, "per_device_train_batch_size": 3,
        "num_generations": 2, "max_completion_length": 8, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
        "rewards": f"{tmp_path / 'mine.py'}:even", "curriculum_decay": 1,
    })  # fmt: skip
    arguments += ["--curriculum_band", "0.2", "0.8"]
    launch(torchrun(), [str(tmp_path / "script.py"), str(tmp_path), json.dumps(arguments)])
    whole, first, second = (
        [json.loads((tmp_path / f"{name}.{rank}").read_text()) for rank in (0, 1)]
        for name in ("whole", "first", "second")
    )
    for ranks in (whole, first, second):
        assert ranks[0] == ranks[1]
    assert whole[0]["drawn"] == first[0]["drawn"] + second[0]["drawn"] and len(whole[0]["drawn"]) == 4
    assert all(len(set(places)) == 3 for places in whole[0]["drawn"])
    assert (whole[0]["state"], whole[0]["policy"]) == (second[0]["state"], second[0]["policy"])
    assert sum(decided for _, _, decided in whole[0]["state"]["counts"]) == 4 * 6  # the responses of both processes
