"""The quick start in `--fast` mode: all stages and all files that it writes."""

import contextlib
import io
import json
import math
import shlex

import pytest
import yaml
from torch.nn.modules.module import register_module_forward_hook

from rlfr_vlm.cli import main
from tests.page_data import page_data


def study_arguments(printed):
    """Arguments of the command that the quick start printed."""
    command = next(shlex.split(line) for line in printed.splitlines() if " sweep --config " in line)
    return command[command.index("sweep") :]


def study_of(printed):
    from rlfr_vlm.commands.sweep import _parser, _sweep

    return _sweep(*_parser().parse_known_args(study_arguments(printed)[1:]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One fast run with two seeds and an empty cache: its folder, how often the policy's blocks were called, and what
    it printed.
    """
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

    calls = []
    folder = tmp_path_factory.mktemp("quickstart")
    patch = pytest.MonkeyPatch()
    patch.setenv("RLFR_CACHE", str(folder / "cache"))
    hook = register_module_forward_hook(
        lambda module, inputs, output: calls.append(1) if isinstance(module, Qwen2_5_VLDecoderLayer) else None
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["quickstart", "--fast", "--seeds", "2", "--seed", "3", "--out", str(folder / "out")]) == 0
        hook.remove()
        yield folder / "out", len(calls), printed.getvalue()
    finally:
        hook.remove()
        patch.undo()


def test_contents_of_the_summary(run):
    out = run[0]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["seed"] == 3
    assert {"torch", "transformers", "trl", "rlfr-vlm"} <= set(summary["versions"])
    for name in ("base", "rlvr", "rlfr"):
        for mode in ("greedy", "sampled"):
            score = summary["runs"][name][mode]
            assert 0 <= score["ci95"][0] <= score["acc"] <= score["ci95"][1] <= 1
            assert score["n"] + score["undecided"] == 128 and score["undecided"] <= 2
    assert set(summary["seeds"]) == {"3", "4"}
    assert set(summary["seconds"]) == {"warm_start", "fit_flow", "rlvr", "rlfr", "evaluate"}
    flow = summary["flow"]
    assert 0 < flow["heldout_loss"] < flow["zero_predictor_loss"]
    assert set(flow["auc_correct_vs_wrong"]) == {"mean", "max"}
    assert 100 < summary["peak_rss_mb"] < 4096


def test_paired_difference_is_that_of_the_seeds(run):
    out = run[0]
    summary = json.loads((out / "summary.json").read_text())
    row = summary["comparison"]["rows"][1]
    assert (row["name"], row["reference"]) == ("rlfr", "rlvr")
    entry = row["differences"]["sampled"]
    by_hand = [runs["rlfr"]["sampled"]["acc"] - runs["rlvr"]["sampled"]["acc"] for runs in summary["seeds"].values()]
    assert entry["per_seed"] == pytest.approx(by_hand)
    assert entry["mean"] == pytest.approx(sum(by_hand) / 2)
    assert entry["ci95"][0] <= entry["mean"] <= entry["ci95"][1]


def test_report_and_figures_are_written(run):
    out = run[0]
    report = (out / "report.md").read_text()
    assert "the gate" in report and "within" in report and "which includes how hard prompts are" in report
    assert study_arguments(report) == study_arguments(run[2])
    assert "| rlfr | 2     |" in report and "Held-out accuracy of the trained policies; means over seeds." in report
    assert "| base |" in report and "| rlvr | 3 |" in report and "| rlfr | 4 |" in report
    for name in ("reward_curves.png", "deviation.png", "tokens.png"):
        assert f"figures/{name}" in report
        assert (out / "figures" / name).read_bytes()[:4] == b"\x89PNG"


def test_the_page_shows_all_runs_with_their_rollouts(run):
    out = run[0]
    page = (out / "report.html").read_text()
    data = page_data(page)
    assert [one["name"] for one in data["runs"]] == ["rlfr/seed-3", "rlfr/seed-4", "rlvr/seed-3", "rlvr/seed-4"]
    accuracy = next(chart for chart in data["charts"] if chart["id"] == "accuracy")
    labels = [line["label"] for line in accuracy["lines"]][::2]
    assert labels == ["rlfr: right among decided", "rlvr: right among decided"]
    assert all("low" in line for line in accuracy["lines"])  # two seeds make a band
    runs = {group["run"] for group in data["groups"]}
    assert runs == {0, 1, 2, 3} and all(group["images"] for group in data["groups"])
    assert data["layers"] == [1, 2, 3] and data["scales"]["deviation"][2] > 0
    assert "Alerts were not enabled" not in page and "rlvr/seed-4" in page


def test_each_run_leaves_config_metrics_and_a_loadable_policy(run):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from rlfr_vlm.flow import load_field

    out = run[0]
    configs = {}
    for method in ("rlvr", "rlfr"):
        folder = out / method / "seed-3"
        configs[method] = yaml.safe_load((folder / "config.yaml").read_text())
        steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [s["step"] for s in steps if "loss" in s] == [1, 2, 3, 4]
        assert all(math.isfinite(s["loss"]) for s in steps if "loss" in s)
        Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
        AutoProcessor.from_pretrained(folder)
    load_field(out / "flow" / "flow")
    load_field(out / "rlfr" / "seed-3" / "flow")
    differing = {key for key in configs["rlvr"] if configs["rlvr"][key] != configs["rlfr"][key]}
    assert differing == {"method", "flow_coef", "output_dir", "logging_dir"} & differing
    assert {"method", "flow_coef"} <= differing  # same seeds, prompts and budget otherwise


def test_policy_is_cached_and_built_the_same_from_the_same_recipe(run):
    from rlfr_vlm.quickstart.recipe import recipe_for
    from rlfr_vlm.quickstart.warm_start import WarmStartRecipe

    out = run[0]
    recipe = recipe_for("tiny", fast=True).warm_start
    assert [p.name for p in (out.parent / "cache").iterdir()] == [f"small-policy-{recipe.digest}"]
    assert recipe.digest != WarmStartRecipe().digest
    assert WarmStartRecipe().digest == WarmStartRecipe().digest


def test_warm_start_is_deterministic():
    import torch

    from rlfr_vlm.quickstart.small_policy import PolicySize
    from rlfr_vlm.quickstart.warm_start import WarmStartRecipe, train_policy

    recipe = WarmStartRecipe(
        size=PolicySize(hidden_size=32, num_layers=2, num_heads=2), steps=3, rows=64, batch_size=8
    )
    (_, first), (_, second) = train_policy(recipe), train_policy(recipe)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_fast_mode_is_fast(run):
    """Two seeds and an empty cache; benchmarks/speed/quickstart.py measures the seconds."""
    _, calls, _ = run
    assert 0 < calls < 2500  # 1870 with torch 2.13


def test_the_next_study_has_the_settings_of_the_runs(run):
    """The printed command, without a name of the program: what it trains with is what the quick start did."""
    from rlfr_vlm.commands.plan import configuration
    from rlfr_vlm.config_file import resolved

    out, printed = run[0], run[2]
    study = study_of(printed)
    assert study.seeds == (1, 2, 3, 4, 5) and study.methods == ("rlvr", "rlfr")
    for name in ("rlvr", "rlfr"):
        planned = next(one for one in study.runs if one.name == f"{name}/seed-3")
        options, args = configuration(1, planned.arguments)
        assert (options.dataset_name, options.dataset_limit, options.eval_rows) == ("digits", 256, 128)
        trained = yaml.safe_load((out / name / "seed-3" / "config.yaml").read_text())
        settings = {key: value for key, value in resolved(options, args).items() if key in trained}
        differing = {key for key, value in settings.items() if value != trained[key]}
        of_evaluation = {"eval_rows", "eval_strategy", "eval_steps", "do_eval", "per_device_eval_batch_size"}
        of_evaluation |= {"metric_for_best_model", "greater_is_better"}
        filled_in = {"ddp_find_unused_parameters"}  # by the trainer
        assert differing - of_evaluation - filled_in <= {"output_dir", "logging_dir", "rlpr_mode", "flow_path"}
        assert settings["flow_path"] == (str(out / "flow") if name == "rlfr" else "")


@pytest.mark.slow
def test_the_printed_command_trains(run, capfd, tmp_path):
    """Two updates of each run, evaluated after each."""
    arguments = study_arguments(run[2])
    place = arguments.index("--out") + 1
    arguments[place] = str(tmp_path / "study")
    arguments[arguments.index("--seeds") + 1] = "1"
    assert main([*arguments, "--max_steps", "2"]) == 0
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    assert set(results["runs"].values()) == {"finished"}
    assert results["measured"] == "Held-out accuracy at the last evaluation, update 2; means over seeds."


@pytest.mark.slow
def test_other_methods_from_the_same_start(run, tmp_path, monkeypatch):
    out = run[0]
    monkeypatch.setenv("RLFR_CACHE", str(out.parent / "cache"))
    arguments = [
        "quickstart",
        "--fast",
        "--steps",
        "2",
        "--methods",
        "rlvr,entropy,rlpr",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    references = {row["name"]: row["reference"] for row in summary["comparison"]["rows"]}
    assert references == {"rlvr": None, "entropy": "rlvr", "rlpr": "rlvr"}
    assert set(summary["runs"]) == {"base", "rlvr", "entropy", "rlpr"}
    steps = [json.loads(line) for line in (tmp_path / "out/rlpr/seed-1/metrics.jsonl").read_text().splitlines()]
    assert "rlpr/probability" in steps[0] and "rewards/accuracy/mean" in steps[0]


def test_unknown_method(capsys):
    assert main(["quickstart", "--methods", "rlvr,rlfx"]) == 2
    assert "--methods has 'rlfx'; known are rlvr, rlfr, entropy, rlpr, visual. Did you mean" in capsys.readouterr().err


def test_a_given_policy_goes_on_where_it_stopped(run, tmp_path, monkeypatch, capsys):
    from rlfr_vlm.quickstart.recipe import recipe_for
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    cache = run[0].parent / "cache"
    policy = cache / f"small-policy-{recipe_for('tiny', fast=True).warm_start.digest}"
    arguments = ["quickstart", "--fast", "--policy", str(policy), "--out", str(tmp_path / "out")]
    updates, training_step = [], RLFRTrainer.training_step

    def stop_in_the_second_run(self, *args, **kwargs):
        updates.append((self.args.method, self.state.global_step))
        if updates[-1] == ("rlfr", 1) and updates.count(("rlfr", 1)) == 1:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(RLFRTrainer, "training_step", stop_in_the_second_run)
    assert main(arguments) == 130
    assert "stopped; the same command goes on from the last checkpoint" in capsys.readouterr().err
    assert main(arguments) == 0
    assert updates == [("rlvr", 0), ("rlvr", 1), ("rlfr", 0), ("rlfr", 1), ("rlfr", 1)]
    first = (tmp_path / "out" / "summary.json").read_text()
    assert json.loads(first)["runs"]["rlvr"]["greedy"]["n"] <= 8
    assert not list((tmp_path / "out").glob("*/seed-1/checkpoint-*"))
    field = (tmp_path / "out" / "flow" / "flow" / "flow.safetensors").read_bytes()
    assert main(arguments) == 0  # nothing is trained, fitted or drawn again
    assert len(updates) == 5
    assert (tmp_path / "out" / "flow" / "flow" / "flow.safetensors").read_bytes() == field

    # killed between the last checkpoint and the mark of the finished run, or of the fitted field
    record = tmp_path / "out/rlfr/seed-1/run.json"
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "finished"}))
    (tmp_path / "out/flow/held_out.json").unlink()
    weights = (tmp_path / "out/rlfr/seed-1/model.safetensors").read_bytes()
    last = tmp_path / "out/rlfr/seed-1/checkpoint-2"
    monkeypatch.setattr("rlfr_vlm.quickstart.stages.mark_finished", lambda *_: None)
    monkeypatch.setattr("rlfr_vlm.quickstart.stages.remove", lambda *_: None)
    assert not last.exists()
    assert main(arguments) == 0  # from the start, since its checkpoints are gone
    assert last.exists() and updates[5:] == [("rlfr", 0), ("rlfr", 1)]
    monkeypatch.undo()
    monkeypatch.setenv("RLFR_CACHE", str(cache))
    monkeypatch.setattr(RLFRTrainer, "training_step", stop_in_the_second_run)
    assert main(arguments) == 0 and len(updates) == 7  # from its last checkpoint: nothing is left to train
    assert (tmp_path / "out/rlfr/seed-1/model.safetensors").read_bytes() == weights
    assert (tmp_path / "out" / "flow" / "flow" / "flow.safetensors").read_bytes() == field
    again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert again["runs"] == json.loads(first)["runs"]
    capsys.readouterr()
    assert main([*arguments, "--steps", "3"]) == 2
    assert "has results of a quick start with rl_steps 2; now it is 3" in capsys.readouterr().err
