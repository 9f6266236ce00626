"""Trains 4 steps at once, and 2 and then 2 more from the checkpoint, in the processes that are there.

Run by test_resume.py: `resume_run.py FOLDER [settings of rlfr train]`.
"""

import json
import sys
from pathlib import Path

from rlfr_vlm.commands.run_trainer import find_checkpoint
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.flow import save_field
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig


def train(folder: Path, name: str, run: str, steps: int, resume: str | None = None) -> None:
    arguments = [*sys.argv[2:], "--output_dir", str(folder / run), "--max_steps", str(steps), "--save_steps", "2"]
    options, args = parse_config((ScriptArguments, RLFRConfig), arguments)
    trainer = build_trainer(options, args)
    trainer.train(resume_from_checkpoint=find_checkpoint(resume, args.output_dir))
    trainer.save_model(str(folder / name))
    if trainer.flow is not None:
        save_field(folder / name / f"field-{trainer.accelerator.process_index}", trainer.flow.field, trainer.flow.spec)
    if trainer.accelerator.is_main_process:
        (folder / name / "log.json").write_text(json.dumps(trainer.state.log_history))
    trainer.accelerator.free_memory()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    train(place, "whole", "whole-run", 4)
    train(place, "half", "parts-run", 2)
    train(place, "parts", "parts-run", 4, resume="auto")
