"""Trains 4 steps at once, and 2 and then 2 more from the checkpoint, in the processes that are there.

Run by test_resume.py: `resume_run.py RUNS.json`, one after the other; each has a `folder` and `arguments` of
`rlfr train`.
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
from tests.trainer.launching import skip_unused_parts


def train(folder: Path, arguments: list[str], name: str, run: str, steps: int, resume: str | None = None) -> None:
    lengths = ["--output_dir", str(folder / run), "--max_steps", str(steps), "--save_steps", "2"]
    options, args = parse_config((ScriptArguments, RLFRConfig), [*arguments, *lengths])
    trainer = build_trainer(options, args)
    trainer.train(resume_from_checkpoint=find_checkpoint(resume, args.output_dir))
    trainer.save_model(str(folder / name))
    if trainer.flow is not None:
        save_field(folder / name / f"field-{trainer.accelerator.process_index}", trainer.flow.field, trainer.flow.spec)
    if trainer.accelerator.is_main_process:
        (folder / name / "log.json").write_text(json.dumps(trainer.state.log_history))
    trainer.accelerator.free_memory()


if __name__ == "__main__":
    skip_unused_parts()
    for described in json.loads(Path(sys.argv[1]).read_text()):
        folder, arguments = Path(described["folder"]), described["arguments"]
        train(folder, arguments, "whole", "whole-run", 4)
        train(folder, arguments, "half", "parts-run", 2)
        train(folder, arguments, "parts", "parts-run", 4, resume="auto")
