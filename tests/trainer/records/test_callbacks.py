"""The progress bar prints held-out accuracy, once, and leaves other evaluations alone."""

from types import SimpleNamespace

from rlfr_vlm.trainer.records.callbacks import ProgressLine
from tests.trainer.test_held_out import METRICS


def printed(metrics, capsys, first=True):
    state = SimpleNamespace(is_world_process_zero=first, global_step=40, max_steps=80)
    line = ProgressLine("rlvr")
    line.on_train_begin(None, state, None)
    line.on_evaluate(None, state, None, metrics=metrics)
    line.on_train_end(None, state, None)
    return capsys.readouterr().out


def test_an_evaluation_is_one_line_with_its_step(capsys):
    expected = (
        "step 40: held-out accuracy (n = 20): greedy 0.500 [0.299, 0.701]; sampled 0.250 [0.112, 0.469]; "
        "none undecided\n"
    )
    assert printed(METRICS, capsys) == expected
    assert printed(METRICS, capsys, first=False) == ""
    assert printed({"eval_loss": 0.5}, capsys) == ""  # of a field
