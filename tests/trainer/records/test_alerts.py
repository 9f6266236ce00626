"""Each check raises one alert for its problem and none in a healthy run; the alerts file survives a resume."""

import json
from types import SimpleNamespace

import pytest

from rlfr_vlm.report.header import verdict_of
from rlfr_vlm.report.read_run import read_run
from rlfr_vlm.trainer.records.alerts import CHECKS, Alert, AlertMonitor, Unjudged, read_alerts, unjudged_checks
from rlfr_vlm.trainer.records.callbacks import AlertsFile
from tests.report.fake_run import write_run

HEALTHY = {
    "outcome/mean": 0.5, "rewards/format_boxed/mean": 0.9, "completions/repetitive": 0.0, "entropy": 0.6,
    "completions/clipped_ratio": 0.1, "rollout/effective_share": 0.99, "frac_reward_zero_std": 0.3,
    "flow/auc_within_group_mean": 0.55, "outcome/undecided": 0.01,
}  # fmt: skip


def alerts_of(steps, window=1):
    monitor = AlertMonitor(window=window)
    return [(number, *alert) for number, metrics in enumerate(steps) for alert in monitor.observe(metrics)]


def test_runs_of_earlier_versions_are_judged_by_the_auc_over_all_prompts():
    lines = [{"flow/auc_wrong_above_correct_mean": 0.4}] * 20
    assert [alert[1] for alert in alerts_of(lines)] == ["flow"]
    assert alerts_of([line | {"flow/auc_within_group_mean": 0.5} for line in lines]) == []


def test_a_healthy_run_raises_no_alert():
    assert alerts_of([HEALTHY] * 20) == []


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        (
            "format",
            {"outcome/mean": 0.3, "rewards/format_boxed/mean": 1.0},
            "fell from 0.50 to 0.30 while format_boxed",
        ),
        ("repetition", {"completions/repetitive": 0.25}, "25% of the responses repeat themselves"),
        ("truncation", {"completions/clipped_ratio": 0.75}, "75% of the responses reach max_completion_length"),
        ("entropy", {"entropy": 0.05}, "entropy fell from 0.600 to 0.050"),
        ("gap", {"rollout/effective_share": 0.5}, "only 50% of vLLM's responses count"),
        ("flat", {"frac_reward_zero_std": 1.0}, "all responses of each group got the same reward"),
        ("flow", {"flow/auc_within_group_mean": 0.4}, "(AUC 0.40)"),
        ("undecided", {"outcome/undecided": 0.2}, "20% of the answers cannot be graded"),
    ],
)
def test_a_problem_is_reported_once_and_again_after_it_has_gone(name, changes, text):
    trouble = HEALTHY | changes
    alerts = alerts_of([HEALTHY] * 6 + [trouble] * 3)
    assert [alert[1] for alert in alerts] == [name] and text in alerts[0][2]
    if name not in ("format", "entropy"):  # those compare with earlier steps
        assert len(alerts_of(([HEALTHY] * 6 + [trouble] * 6) * 2)) == 2


@pytest.mark.parametrize(
    ("name", "metric", "healthy", "problem"),
    [
        ("repetition", "completions/repetitive", 0.05, 0.051),
        ("truncation", "completions/clipped_ratio", 0.5, 0.501),
        ("gap", "rollout/effective_share", 0.9, 0.899),
        ("flat", "frac_reward_zero_std", 0.989, 0.99),
        ("flow", "flow/auc_within_group_mean", 0.45, 0.449),
        ("undecided", "outcome/undecided", 0.05, 0.051),
    ],
)
def test_limits_of_the_checks(name, metric, healthy, problem):
    check = next(check for check in CHECKS if check.name == name)
    assert (check.metric, check.test(healthy), check.test(problem)) == (metric, False, True)


def test_a_check_needs_a_full_window():
    trouble = HEALTHY | {"outcome/undecided": 1.0}
    assert alerts_of([trouble] * 3, window=4) == []
    assert [alert[0] for alert in alerts_of([trouble] * 9, window=4)] == [3]
    mild = HEALTHY | {"outcome/undecided": 0.17}
    assert [alert[0] for alert in alerts_of([HEALTHY] * 4 + [mild] * 4, window=4)] == [5]


def test_metrics_that_are_missing_or_not_a_number_raise_no_alert():
    assert alerts_of([{"loss": 1.0, "flow/auc_within_group_mean": float("nan")}] * 20) == []


def test_checks_that_lack_logged_steps_could_not_judge():
    """A window is 10 logged steps; `format` and `entropy` compare two. RLPR's metrics are not in this run at all."""
    names = [check.name for check in CHECKS if check.name not in ("no answer", "reference")]
    two = {"format": 20, "entropy": 20}
    assert unjudged_checks([HEALTHY] * 9) == [Unjudged(name, 9, two.get(name, 10)) for name in names]
    assert unjudged_checks([HEALTHY] * 10) == [Unjudged("format", 10, 20), Unjudged("entropy", 10, 20)]
    assert unjudged_checks([HEALTHY] * 20) == []
    assert [check.name for check in unjudged_checks([])] == ["entropy", "flat"]  # of the others, no group is logged


def test_what_can_raise_an_alert_counts_as_judged():
    """Each check raises its alert at the step from which on it is not unjudged."""
    trouble = {"completions/repetitive": 1.0, "completions/clipped_ratio": 1.0, "frac_reward_zero_std": 1.0}
    monitor, lines = AlertMonitor(), []
    for step in range(1, 31):
        lines.append(trouble | {"entropy": 1.0 if step <= 10 else 0.01})
        unjudged = {check.name for check in unjudged_checks(lines)}
        raised = {name for name, _ in monitor.observe(lines[-1])}
        assert not raised & unjudged
        if step in (9, 10, 19, 20):
            at_this_step = {10: {"repetition", "truncation", "flat"}, 20: {"entropy"}}.get(step, set())
            assert raised == at_this_step
            assert unjudged == {9: {"repetition", "truncation", "flat", "entropy"}, 20: set()}.get(step, {"entropy"})


def test_a_check_whose_metric_is_never_a_number_could_not_judge():
    """The AUC needs right and wrong responses; the run has flow rewards, but never both."""
    lines = [HEALTHY | {"flow/auc_within_group_mean": float("nan"), "flow/share_rewarded": 0.1}] * 40
    assert unjudged_checks(lines) == [Unjudged("flow", 0, 10)]
    without_flow = [{name: value for name, value in HEALTHY.items() if not name.startswith("flow/")}] * 40
    assert unjudged_checks(without_flow) == []


def state(step):
    return SimpleNamespace(is_world_process_zero=True, global_step=step)


def test_alerts_are_appended_and_read_back(tmp_path):
    callback = AlertsFile(str(tmp_path / "run"))
    callback.on_train_begin(None, state(0), None)
    assert not (tmp_path / "run").exists()
    for step in range(1, 11):
        callback.on_log(None, state(step), None, logs={"outcome/undecided": 0.5})
    line = json.loads((tmp_path / "run" / "alerts.jsonl").read_text())
    assert set(line) == {"step", "alert", "message"}
    (alert,) = read_alerts(tmp_path / "run")
    assert alert == Alert(10, "undecided", line["message"]) and "50% of the answers" in alert.message


@pytest.fixture
def old_folder(tmp_path):
    """A run folder of an earlier version: `watchdogs.jsonl` with the key "dog", cut off by a kill."""
    folder = write_run(tmp_path / "run", [], [0.5] * 4)
    lines = [{"step": step, "dog": "flow", "message": f"text {step}"} for step in (2, 4)]
    (folder / "watchdogs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "do')
    return folder


def test_reports_read_the_alerts_of_old_folders(old_folder):
    run = read_run(old_folder)
    assert run.alerts == [Alert(2, "flow", "text 2"), Alert(4, "flow", "text 4")]
    assert verdict_of([run], ["run"]).findings == ["Step 2: text 2", "Step 4: text 4"]


def test_resuming_an_old_folder_converts_its_alerts(old_folder):
    AlertsFile(str(old_folder)).on_train_begin(None, state(3), None)
    assert json.loads((old_folder / "alerts.jsonl").read_text()) == {"step": 2, "alert": "flow", "message": "text 2"}
    assert not (old_folder / "watchdogs.jsonl").exists() and read_alerts(old_folder) == [Alert(2, "flow", "text 2")]


def test_a_new_run_in_an_old_folder_starts_without_alerts(old_folder):
    AlertsFile(str(old_folder)).on_train_begin(None, state(0), None)
    assert read_alerts(old_folder) == [] and not (old_folder / "watchdogs.jsonl").exists()
