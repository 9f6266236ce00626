"""The comparison of a sweep's runs: means, pairs of seeds, intervals, and what cannot be compared. Derived by hand."""

from pathlib import Path

import pytest

from rlfr_vlm.report.read_run import Run
from rlfr_vlm.sweep.final_values import final_values, unlike
from rlfr_vlm.sweep.results import compare, reference_of
from rlfr_vlm.sweep.table import markdown, notes_of, table_of
from tests.sweep.helpers import sweep_of

# Student's t at 97.5 %: for 2 degrees of freedom 0.95 sqrt(2 / (1 - 0.95^2)), for 1 tan(0.475 pi)
T2, T1 = 4.302652729911275, 12.706204736432095


def run_of(method, metrics, **config):
    return Run(Path(method), {"method": method, **config}, {}, metrics, [])


def evaluated(method, greedy, sampled, step=80):
    """A run with two evaluations, of which the last one counts."""
    early = {"step": 40, "eval_rows": 8.0, "eval_greedy": 0.9, "eval_sampled": 0.9}
    last = {"step": step, "eval_rows": 8.0} | ({} if greedy is None else {"eval_greedy": greedy})
    return run_of(method, [early, last | {"eval_sampled": sampled}, {"step": step, "train_runtime": 1.0}])


def compared(sweep, runs):
    comparison = compare(sweep.cells, sweep.seeds, final_values(runs), unlike(list(runs.values())))
    return {row.cell.name: row for row in comparison.rows}, comparison


def test_means_and_paired_differences(tmp_path):
    """Greedy differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, so half the interval is t 0.1 / sqrt(3)."""
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1, 2, 3])
    runs = {("rlvr", seed): evaluated("rlvr", 0.5, 0.2) for seed in (1, 2, 3)}
    runs |= {("rlfr", seed): evaluated("rlfr", 0.5 + seed / 10, 0.2) for seed in (1, 2, 3)}
    rows, comparison = compared(sweep, runs)
    assert rows["rlvr"].means == pytest.approx({"eval_greedy": 0.5, "eval_sampled": 0.2})
    assert rows["rlvr"].reference is None and rows["rlvr"].differences == {}
    assert rows["rlfr"].means["eval_greedy"] == pytest.approx(0.7)
    greedy = rows["rlfr"].differences["eval_greedy"]
    assert greedy["seeds"] == [1, 2, 3] and greedy["per_seed"] == pytest.approx([0.1, 0.2, 0.3])
    half = T2 * 0.1 / 3**0.5  # 0.248
    assert greedy["mean"] == pytest.approx(0.2) and greedy["ci95"] == pytest.approx([0.2 - half, 0.2 + half])
    header, table = table_of(comparison)
    assert header == ["runs", "seeds", "greedy", "sampled", "minus", "difference, greedy", "difference, sampled"]
    assert table == [
        ["rlvr", "3", "0.500", "0.200", "", "", ""],
        [
            "rlfr",
            "3",
            "0.700",
            "0.200",
            "rlvr",
            "+0.200 [-0.048, +0.448] (3 pairs)",
            "+0.000 [+0.000, +0.000] (3 pairs)",
        ],
    ]
    assert notes_of(comparison) == [
        "Held-out accuracy at the last evaluation, update 80; means over seeds.",
        "Differences are paired by seed, with 95 % t-intervals over the pairs.",
        "No difference is beyond noise: every interval includes 0.",
        "An interval without width comes from pairs with equal differences; it is no certainty.",
    ]


def test_differences_beyond_noise_are_named(tmp_path):
    """Greedy 0.10, 0.11, 0.12 above: 0.11 with half an interval of t 0.01 / sqrt(3) = 0.025. Sampled -0.1, 0, 0.1."""
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1, 2, 3])
    runs = {("rlvr", seed): evaluated("rlvr", 0.5, 0.5) for seed in (1, 2, 3)}
    runs |= {("rlfr", seed): evaluated("rlfr", 0.59 + seed / 100, 0.3 + seed / 10) for seed in (1, 2, 3)}
    notes = notes_of(compared(sweep, runs)[1])
    assert notes[2:] == ["Beyond noise, with an interval that excludes 0: rlfr minus rlvr, greedy."]


def test_a_seed_that_one_method_lacks_is_left_out_of_its_pairs(tmp_path):
    """Seeds 1 and 3 of both: differences 0.1 and 0.3; half the interval is t sqrt(0.02) / sqrt(2) = t / 10."""
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1, 2, 3])
    runs = {("rlvr", seed): evaluated("rlvr", 0.5, 0.2) for seed in (1, 2, 3)}
    runs |= {("rlfr", 1): evaluated("rlfr", 0.6, None), ("rlfr", 3): evaluated("rlfr", 0.8, 0.3, step=60)}
    rows, comparison = compared(sweep, runs)
    greedy = rows["rlfr"].differences["eval_greedy"]
    assert greedy["seeds"] == [1, 3] and greedy["mean"] == pytest.approx(0.2)
    assert greedy["ci95"] == pytest.approx([0.2 - T1 / 10, 0.2 + T1 / 10])
    assert rows["rlfr"].differences["eval_sampled"]["ci95"] is None  # one pair
    assert table_of(comparison)[1][1] == [
        "rlfr", "2", "0.700", "0.300", "rlvr", "+0.200 [-1.071, +1.471] (2 pairs)", "+0.100, no interval (1 pair)",
    ]  # fmt: skip
    notes = notes_of(comparison)
    assert notes[0] == "Held-out accuracy at the last evaluation, update 60 to 80; means over seeds."
    assert "rlfr lacks seed 2, left out of its mean and its pairs." in notes
    assert "rlfr has no value for seed 1: not measured, or undecided." in notes


def test_one_seed_has_no_interval_and_it_is_said(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [4])
    runs = {("rlvr", 4): evaluated("rlvr", 0.5, 0.2), ("rlfr", 4): evaluated("rlfr", 0.4, 0.3)}
    _, comparison = compared(sweep, runs)
    assert table_of(comparison)[1][1][-2:] == ["-0.100, no interval (1 pair)", "+0.100, no interval (1 pair)"]
    assert notes_of(comparison)[1:] == [
        "One seed: no difference has an interval, and none can be told from noise; `--seeds 5` gives intervals."
    ]


def test_no_finished_run_of_a_method(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1])
    _, comparison = compared(sweep, {("rlfr", 1): evaluated("rlfr", 0.4, 0.3)})
    assert table_of(comparison)[1] == [
        ["rlvr", "0", "none", "none", "", "", ""],
        ["rlfr", "1", "0.400", "0.300", "rlvr", "no pair", "no pair"],
    ]


def training_only(method, means, **config):
    return run_of(method, [{"step": step, "outcome/mean": mean} for step, mean in enumerate(means, 1)], **config)


def test_without_held_out_rows_the_outcome_of_the_last_tenth_of_the_steps_counts(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr", "entropy"], [1])
    runs = {
        ("rlvr", 1): training_only("rlvr", [0.0] * 18 + [0.2, 0.4]),
        ("entropy", 1): training_only("entropy", [0.0] * 18 + [0.5, 0.5]),
    }
    rows, comparison = compared(sweep, runs)
    assert rows["rlvr"].means == pytest.approx({"outcome/mean": 0.3})  # of 20 steps the last 2
    assert rows["entropy"].differences["outcome/mean"]["mean"] == pytest.approx(0.2)
    assert comparison.measured == (
        "Outcome in training (accuracy), mean of the last 2 logged steps and over seeds. It is no held-out accuracy: "
        "--eval_strategy steps measures one."
    )


def test_outcomes_of_different_kinds_are_not_subtracted(tmp_path):
    """RLPR's outcome is a probability. Its held-out answers are graded like those of the other methods."""
    sweep = sweep_of(tmp_path, ["rlvr", "rlpr"], [1])
    rows, comparison = compared(sweep, {(m, 1): training_only(m, [0.5]) for m in ("rlvr", "rlpr")})
    assert rows["rlpr"].differences == {"outcome/mean": None}
    assert any(
        note.startswith("rlpr measures reference_probability and rlvr accuracy, which are not subtracted.")
        for note in notes_of(comparison)
    )
    rows, _ = compared(sweep, {(m, 1): evaluated(m, 0.5, 0.5) for m in ("rlvr", "rlpr")})
    assert rows["rlpr"].differences["eval_greedy"]["mean"] == 0.0


def test_settings_are_compared_with_the_same_setting_of_the_first_method(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1], ["flow_coef=0.01,0.1", "beta=0,1"])
    references = {cell.name: reference_of(cell, sweep.cells) for cell in sweep.cells}
    assert {name: cell and cell.name for name, cell in references.items()} == {
        "rlvr-beta=0": None,
        "rlvr-beta=1": "rlvr-beta=0",
        "rlfr-flow_coef=0.01-beta=0": "rlvr-beta=0",
        "rlfr-flow_coef=0.01-beta=1": "rlvr-beta=1",
        "rlfr-flow_coef=0.1-beta=0": "rlvr-beta=0",
        "rlfr-flow_coef=0.1-beta=1": "rlvr-beta=1",
    }
    other = sweep_of(tmp_path, ["rlfr", "rlvr"], [1], ["flow_coef=0.01,0.1"])
    assert reference_of(other.cells[-1], other.cells).name == "rlfr-flow_coef=0.01"  # the first one that there is


def test_many_intervals_are_said_to_be_many(tmp_path):
    methods = ["rlvr", "rlfr", "entropy"]
    sweep = sweep_of(tmp_path, methods, [1, 2])
    runs = {(m, seed): evaluated(m, seed / 10 * i, 0.5 * seed * i) for i, m in enumerate(methods) for seed in (1, 2)}
    _, comparison = compared(sweep, runs)
    assert notes_of(comparison)[-1] == (
        "Of 4 intervals, one in twenty excludes 0 by chance even if no method differs."
    )


def test_runs_of_several_commits_or_machines_are_said_to_be(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr"], [1, 2])
    record = {
        "git": {"commit": "a"},
        "versions": {"torch": "2"},
        "hardware": {"gpus": ["H"], "cpus": 4},
        "processes": 1,
    }

    def notes(change):
        runs = {("rlvr", seed): evaluated("rlvr", 0.5, 0.5) for seed in (1, 2)}
        runs["rlvr", 1].record, runs["rlvr", 2].record = record, record | change
        return notes_of(compared(sweep, runs)[1])[1:]

    assert notes({"hardware": {"gpus": ["H"], "cpus": 8}, "started": "later"}) == []
    start = "The runs differ in more than the sweep's settings: "
    assert notes({"git": {"commit": "b"}}) == [f"{start}commit (see their run.json)."]
    assert notes({"processes": 2}) == [f"{start}GPUs or number of processes (see their run.json)."]


def test_a_cell_with_a_bar_does_not_break_the_table():
    assert markdown(["a|b"], [["c"]]) == "| a\\|b |\n|------|\n| c    |"
