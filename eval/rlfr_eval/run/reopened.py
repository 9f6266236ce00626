"""A run that was made before, with its problems: of text or of images, for commands that work on stored answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rlfr_eval.judge.phase import Prompts, compare_prompts
from rlfr_eval.run.folder import RunStore
from rlfr_eval.run.restore import is_vlm, restore
from rlfr_eval.score.verdicts import Chosen, grade_by_rules
from rlfr_eval.settings import Settings
from rlfr_vlm.files import cache_root


@dataclass
class Reopened:
    """What stored answers are graded with.

    Attributes:
        planned: problems that each benchmark has in all.
        grade: gives verdicts by rules to what has none.
        prompts: what a judge would be asked about answers.
        judging: how a judge decides an answer and is checked, as `judge_undecided` takes it.
    """

    chosen: Chosen
    planned: dict[str, int]
    grade: Callable[[RunStore], Any]
    prompts: Prompts
    judging: dict[str, Any] = field(default_factory=dict)


@contextmanager
def reopen(
    store: RunStore, settings: Settings, data_dir: Path | None = None, whole: bool = False
) -> Iterator[Reopened]:
    """Read a run's problems again.

    Args:
        data_dir: where the data are now, instead of where they were.
        whole: all problems, also those beyond the limit of the last call.

    Raises:
        UserError: they are gone, or others than the answers were given to; VLMEvalKit is not installed.
    """
    if not is_vlm(store):
        chosen, planned = restore(store, data_dir, whole)
        yield Reopened(chosen, planned, partial(grade_by_rules, chosen=chosen), compare_prompts(chosen))
        return
    from rlfr_eval.run.vlm_evaluation import judging, restore_vlm
    from rlfr_eval.vlmeval.scoring import Scoring
    from rlfr_eval.vlmeval.worker_process import WorkerProcess, interpreter

    with WorkerProcess(interpreter(settings), cache_root() / "logs" / "vlmeval.log") as worker:
        chosen, planned = restore_vlm(store, worker, data_dir=data_dir, whole=whole)
        scoring = Scoring(worker, chosen)
        yield Reopened(chosen, planned, scoring.grade_by_rules, scoring.prompts, judging(scoring))
