"""Reading run folders, and charts of their metrics: combined seeds, separate experiments, averages per rollout."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_vlm.errors import UserError
from rlfr_vlm.report.curves import charts_of, group_by_experiment
from rlfr_vlm.report.header import facts_of, verdict_of
from rlfr_vlm.report.read_run import read_run
from rlfr_vlm.report.settings import settings_of
from tests.report.fake_run import group, response, write_run


def chart(charts, name):
    return next(chart for chart in charts if chart["id"] == name)


def log_healthy(folder, steps):
    """Write `metrics.jsonl` with all metrics that the checks of a run with flow rewards read."""
    values = {
        "outcome/accuracy": 0.5, "outcome/mean": 0.5, "outcome/undecided": 0.0, "rewards/format/mean": 1.0,
        "completions/repetitive": 0.0, "completions/clipped_ratio": 0.1, "entropy": 0.5, "frac_reward_zero_std": 0.3,
        "flow/auc_wrong_above_correct_mean": 0.6,
    }  # fmt: skip
    lines = [json.dumps({"step": step, **values}) + "\n" for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))


def test_a_run_that_is_too_short_for_the_checks_is_not_called_fine(tmp_path):
    run = read_run(write_run(tmp_path / "run", [], [0.5]))
    log_healthy(run.folder, 4)
    verdict = verdict_of([read_run(run.folder)], ["run"])
    assert (verdict.kind, verdict.findings) == ("unknown", [])
    assert verdict.title == "No alert was raised, but some checks could not judge."
    assert verdict.unjudged == [
        "Not judged yet, for want of logged steps with their metrics: format, entropy (4 of 20); "
        "repetition, truncation, flat, flow, undecided (4 of 10)."
    ]
    log_healthy(run.folder, 19)
    (sentence,) = verdict_of([read_run(run.folder)], ["run"]).unjudged
    assert sentence.endswith("metrics: format, entropy (19 of 20).")
    (run.folder / "alerts.jsonl").write_text('{"step": 9, "alert": "flat", "message": "all equal"}\n')
    verdict = verdict_of([read_run(run.folder)], ["run"])
    assert (verdict.kind, verdict.findings, verdict.unjudged) == ("trouble", ["Step 9: all equal"], [sentence])


def test_runs_that_lack_the_same_steps_share_a_sentence(tmp_path):
    runs = []
    for name, steps in (("a", 19), ("b", 19), ("c", 20), ("d", 15)):
        folder = write_run(tmp_path / name, [], [0.5])
        log_healthy(folder, steps)
        runs.append(read_run(folder))
    start = "not judged yet, for want of logged steps with their metrics: format, entropy"
    assert verdict_of(runs, list("abcd")).unjudged == [f"a, b: {start} (19 of 20).", f"d: {start} (15 of 20)."]


def test_an_outcome_that_is_no_accuracy_has_its_own_chart_and_fact(tmp_path):
    """RLPR's outcome is a probability: its mean is no share of right responses."""
    for name, method in (("a", "rlvr"), ("b", "rlpr"), ("c", "rlvr")):
        folder = write_run(tmp_path / name, [], [0.5], method=method, beta=0.1 if name == "c" else 0.0)
        line = {"step": 1, "outcome/accuracy": 0.5, "outcome/mean": 0.25, "eval_greedy": 0.125}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    runs = [read_run(tmp_path / name) for name in "abc"]
    charts = charts_of(runs)
    accuracy, probability = chart(charts, "accuracy"), chart(charts, "outcome-reference-probability")
    assert (accuracy["title"], probability["title"]) == ("Training accuracy", "Outcome: reference_probability")
    drawn = [(line["label"], line["values"], line["colour"]) for line in accuracy["lines"]]
    assert drawn == [("a", [0.5], 0), ("c", [0.5], 2)]
    drawn = [(line["label"], line["values"], line["colour"]) for line in probability["lines"]]
    assert drawn == [("b: mean of decided", [0.25], 1), ("b: share above flow_accept_threshold", [0.5], 1)]
    assert len(chart(charts, "held-out")["lines"]) == 3  # answers are graded there, whatever the outcome
    assert dict(facts_of(runs[0]))["outcome"] == "0.500 right in the first step, 0.500 in the last"
    facts = dict(facts_of(runs[1]))
    assert facts["reference_probability"] == "0.250 on average in the first step, 0.250 in the last"
    assert "outcome" not in facts


def test_a_users_own_outcome_is_no_accuracy_either(tmp_path):
    folder = write_run(tmp_path / "a", [], [0.5], rewards=["rewards/mine.py:even", "accuracy"])
    (folder / "metrics.jsonl").write_text('{"step": 1, "outcome/mean": 0.25, "eval_greedy": 0.125}\n')
    charts = charts_of([read_run(folder)])
    assert [(drawn["id"], drawn["title"]) for drawn in charts] == [
        ("outcome-rewards-mine-py-even", "Outcome: even"),
        ("held-out-rewards-mine-py-even", "Held-out share with even above flow_accept_threshold"),
    ]


def test_time_and_memory_are_drawn_of_each_experiment(tmp_path):
    """A part has the same colour everywhere, also where a run lacks one before it."""
    for name, parts in (("a", {"flow_update": 1.0, "rollout": 2.0}), ("b", {"rollout": 3.0})):
        folder = write_run(tmp_path / name, [], [0.5], learning_rate=1.0 if name == "a" else 2.0)
        line = {"step": 1, **{f"seconds/{part}": value for part, value in parts.items()}, "memory/host_gb": 4.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    charts = charts_of([read_run(tmp_path / name) for name in "ab"])
    drawn = {
        each["title"]: [(line["label"], line["values"], line["colour"]) for line in each["lines"]] for each in charts
    }
    assert drawn == {
        "Time per part, a": [("flow_update", [1.0], 0), ("rollout", [2.0], 1)],
        "Time per part, b": [("rollout", [3.0], 1)],
        "Peak memory, a": [("host", [4.0], 0)],
        "Peak memory, b": [("host", [4.0], 0)],
    }
    assert len({each["id"] for each in charts}) == 4


def test_a_killed_run_is_read_as_far_as_it_is(tmp_path):
    folder = write_run(tmp_path / "run", [group(2, 7, []), group(0, 8, [])], [0.5, 0.75])
    for name in ("metrics.jsonl", "rollouts/rank0.jsonl"):
        with (folder / name).open("a") as stream:
            stream.write('{"step": 3, "cut o')
    run = read_run(folder)
    assert [line["step"] for line in run.metrics] == [1, 2] and [group.step for group in run.groups] == [0, 2]
    assert run.cut_lines == 2
    assert verdict_of([run], ["run"]).findings == ["run: 2 lines of its logs could not be read, as after a kill."]
    (folder / "config.yaml").unlink()
    (folder / "run.json").write_text("{")
    again = read_run(folder)
    assert again.config == {} == again.record and verdict_of([again], ["run"]).kind == "unknown"


def test_a_group_that_two_processes_shared_is_whole_again(tmp_path):
    right, wrong = response([1], True), response([2], False)
    folder = write_run(
        tmp_path / "run", [group(0, 7, [right, wrong]), group(0, 8, [right]), group(2, 7, [wrong])], [1.0]
    )
    other = [group(0, 8, [wrong, wrong]), group(0, 9, [right])]
    (folder / "rollouts" / "rank1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in other))
    groups = {(logged.step, logged.row): logged for logged in read_run(folder).groups}
    assert {key: logged.responses for key, logged in groups.items()} == {(0, 7): 2, (0, 8): 3, (0, 9): 1, (2, 7): 1}
    assert [line["token_ids"] for line in groups[0, 8].read()["responses"]] == [[1], [2], [2]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"\xff\xfe"),
        ("config.yaml", b"flow_accept_threshold: null\nsteps_per_generation: two\n"),
        ("run.json", b'{"data": "x", "command": [1, 2], "hardware": [], "git": "y", "versions": 3}'),
        ("metrics.jsonl", b'{"step": 1, "step_time": Infinity, "entropy": NaN}\n'),
    ],
)
def test_odd_files_are_no_reason_to_fail(tmp_path, name, content):
    folder = write_run(tmp_path / "run", [group(0, 1, [response([1], True)])], [0.5])
    (folder / name).write_bytes(content)
    run = read_run(folder)
    assert facts_of(run) and isinstance(charts_of([run]), list)
    assert run.is_right({"accuracy": 0.7}) is True and run.is_right({"accuracy": None}) is None is run.is_right({})


def test_lines_beyond_the_colours_get_dashes_and_the_note_counts_seeds(tmp_path):
    folder = write_run(tmp_path / "a", [], [0.5])
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **{f"memory/p{i}_gb": i for i in range(8)}}) + "\n")
    looks = [(line["colour"] % 6, line["dash"]) for line in chart(charts_of([read_run(folder)]), "memory")["lines"]]
    assert len(set(looks)) == 8
    for seed in (1, 2, 3):
        write_run(tmp_path / f"s{seed}", [], [0.5], seed=seed)
    (tmp_path / "s3" / "metrics.jsonl").write_text('{"step": 1, "outcome/accuracy": 0.5}\n')
    charts = charts_of([read_run(tmp_path / f"s{seed}") for seed in (1, 2, 3)])
    assert chart(charts, "accuracy")["note"].startswith("Line: mean of 3 seeds")
    assert chart(charts, "entropy")["note"].startswith("Line: mean of 2 seeds")


def test_what_is_no_run_says_where_runs_are(tmp_path):
    write_run(tmp_path / "seed1" / "rlfr", [], [0.5])
    with pytest.raises(UserError, match=r"has no metrics.jsonl.*Its runs are seed1/rlfr\."):
        read_run(tmp_path)
    with pytest.raises(UserError, match=r"run.json is a file"):
        read_run(tmp_path / "seed1" / "rlfr" / "run.json")
    with pytest.raises(UserError, match=r"no folder .*seed2\. Did you mean 'seed1'"):
        read_run(tmp_path / "seed2")


def test_seeds_become_one_line_with_a_band_and_experiments_stay_apart(tmp_path):
    write_run(tmp_path / "a", [], [0.2, 0.4], seed=1)
    write_run(tmp_path / "b", [], [0.6, 0.4, 0.9], seed=2)
    write_run(tmp_path / "c", [], [0.1, 0.1], method="rlvr")
    runs = [read_run(tmp_path / name) for name in "abc"]
    assert [(name, len(members)) for name, members in group_by_experiment(runs)] == [("rlfr", 2), ("c", 1)]
    accuracy = chart(charts_of(runs), "accuracy")
    seeds, alone = accuracy["lines"]
    assert accuracy["steps"] == [1, 2, 3]
    assert seeds["values"] == [pytest.approx(0.4), pytest.approx(0.4), None]  # one seed has no step 3
    assert seeds["low"] == [0.2, 0.4, None] and seeds["high"] == [0.6, 0.4, None]
    assert alone["values"] == [0.1, 0.1, None] and "low" not in alone
    assert (seeds["label"], alone["label"]) == ("rlfr", "c") and seeds["colour"] != alone["colour"]
    deviation = chart(charts_of(runs), "deviation")
    assert [line["label"] for line in deviation["lines"][:2]] == ["rlfr: right responses", "rlfr: wrong responses"]
    assert deviation["lines"][0]["colour"] == deviation["lines"][1]["colour"] and deviation["lines"][1]["dash"] == 1
    assert chart(charts_of(runs), "time")["note"].startswith("Of rlfr.")  # many parts: only the first experiment


def test_times_are_averaged_over_the_updates_of_a_rollout(tmp_path):
    folder = write_run(tmp_path / "run", [], [0.5] * 4, steps_per_generation=2)
    lines = [
        {"step": 1, "step_time": 4.0, "seconds/rollout": 3.0},
        {"step": 2, "step_time": 1.0},
        {"step": 3, "step_time": 2.0, "seconds/rollout": 1.0},
        {"step": 4, "step_time": 2.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    charts = charts_of([read_run(folder)])
    assert chart(charts, "speed")["steps"] == [2, 4] and chart(charts, "speed")["lines"][0]["values"] == [2.5, 2.0]
    assert chart(charts, "time")["lines"][0]["values"] == [1.5, 0.5]
    assert "entropy" not in {drawn["id"] for drawn in charts}  # charts without values are left out


def test_head_of_a_page(tmp_path):
    folder = write_run(tmp_path / "run", [group(0, 1, [response([1], True)])], [0.25] + [0.5] * 9)
    (folder / "alerts.jsonl").write_text('{"step": 9, "alert": "entropy", "message": "entropy fell"}\n')
    run = read_run(folder)
    facts = dict(facts_of(run))
    assert facts["data"] == "digits, train, 4,096 rows" and facts["updates"] == "10 of 4"
    assert facts["outcome"] == "0.250 right in the first step, 0.500 in the last"
    assert facts["duration"] == "20 s in logged steps, not ended"
    assert facts["hardware"] == "8 x H, 2 CPU threads, 24 GB, 8 processes"
    verdict = verdict_of([run], ["run"])
    assert verdict.kind == "trouble" and verdict.findings == ["Step 9: entropy fell"]
    defaults = {"learning_rate": 1e-6, "flow_threshold": 0.6, "max_steps": -1, "flow_two_sided": False}
    assert settings_of(run, defaults) == [
        ("flow_two_sided", "true", "false"),
        ("learning_rate", "3e-06", "1e-06"),
        ("max_steps", "4", "-1"),
    ]
    (folder / "alerts.jsonl").unlink()
    log_healthy(folder, 20)
    assert verdict_of([read_run(folder)], ["run"]).kind == "fine"
    unwatched = read_run(write_run(tmp_path / "other", [], [0.5], watch=False))
    assert verdict_of([unwatched], ["other"]).title == "Alerts were not enabled for other."


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
LOGGED = st.fixed_dictionaries(
    {"step": st.integers(0, 3) | VALUES},
    optional={"row_number": st.integers(0, 2) | VALUES, "rollout": VALUES, "responses": st.lists(VALUES, max_size=2),
              "loss": VALUES, "outcome/mean": VALUES},
)  # fmt: skip
LINES = st.one_of(
    LOGGED.map(json.dumps).map(str.encode),
    VALUES.map(json.dumps).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from([b'{"step": 3, "cut o', b"[" * 3000, b'{"step": 1}{"step": 2}', b"\xff", b'{"step": 1e999}']),
)
CONFIGS = st.dictionaries(st.sampled_from(["method", "seed", "flow_accept_threshold", "watch", 1, None]), VALUES).map(
    yaml.safe_dump
)


@settings(derandomize=True, max_examples=250)
@given(
    metrics=st.lists(LINES, max_size=4),
    ranks=st.lists(st.lists(LINES, max_size=3), max_size=2),
    config=CONFIGS.map(str.encode) | st.binary(max_size=12),
    record=LINES,
)
def test_fuzz_folders(tmp_path_factory, metrics, ranks, config, record):
    """A line counts as read only if it is an object with a step, and every other one as cut."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "rollouts").mkdir()
    (folder / "metrics.jsonl").write_bytes(b"\n".join(metrics))
    (folder / "config.yaml").write_bytes(config)
    (folder / "run.json").write_bytes(record)
    for rank, lines in enumerate(ranks):
        (folder / "rollouts" / f"rank{rank}.jsonl").write_bytes(b"\n".join(lines))
    try:
        run = read_run(folder)
    except UserError:
        return
    assert all(type(line["step"]) is int for line in run.metrics)
    assert all(type(logged.step) is int and logged.read()["step"] == logged.step for logged in run.groups)
    assert facts_of(run) and isinstance(charts_of([run]), list) and isinstance(run.experiment, str)
    assert run.is_right({"accuracy": 0.5}) in (True, False)
