"""The speed scripts: workloads, refusals, arithmetic of the targets, and tables of the guides against the results."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEED = ROOT / "benchmarks" / "speed"


@pytest.fixture
def script(monkeypatch):
    """Import a script by name, with its folder on sys.path as when it is run."""
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module


@pytest.fixture
def tiny(script):
    """The large workload with tiny sizes on a CPU."""
    workloads = script("workloads")
    vision = workloads.VisionShape(1, 32, 64, 2, (0,))
    sizes = {"prompt": 40, "response": 6, "image": 2}
    shape = workloads.Shape(64, 4, 2, 1, 96, 512, tied=False, field_depth=1, vision=vision, **sizes)
    return workloads.large("tiny", shape, "cpu")


# Bytes of the released bfloat16 weights, halved: 7,509,245,952 and 16,584,333,312.
@pytest.mark.parametrize(("size", "parameters"), [("3b", 3_754_622_976), ("7b", 8_292_166_656)])
def test_the_large_policies_have_the_released_sizes(script, size, parameters):
    workloads = script("workloads")
    shape = workloads.SHAPES[size]
    policy = workloads.build_policy(workloads.build_config(shape, workloads.build_processor(shape).tokenizer), "meta")
    assert sum(parameter.numel() for parameter in policy.parameters()) == parameters


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_prompts_of_the_large_policies_have_1024_tokens_784_of_them_image_tokens(script, size):
    workloads = script("workloads")
    shape = workloads.SHAPES[size]
    processor = workloads.build_processor(shape)
    row = workloads.build_rows(shape, processor, 1)[0]
    text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True)
    tokens = processor(text=[text], images=row["images"], return_tensors="pt")["input_ids"][0]
    assert len(tokens) == 1024
    assert (tokens == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() == 28 * 28


def test_parts_of_a_step_add_up(script, tiny):
    step = script("step")
    result = step.measure(tiny, 1, 2, script("measuring").Patience())
    assert set(result["over_trl"]) == set(step.KINDS) and result["over_trl"]["trl"] == 1
    for kind, (total,) in result["seconds_per_update"].items():
        parts = result["parts"][kind]
        assert sum(parts.values()) == pytest.approx(total)
        assert min(parts["generate"], parts["old log-probs"], parts["loss"]) > 0
        assert (parts["flow score"] > 0) == kind.startswith("rlfr")
        assert (parts["flow update"] > 0) == (kind == "rlfr")
    assert step.report(result).count("rlfr, no update") == 2


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_large_sizes_are_refused_without_a_gpu(script, monkeypatch, size):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["step.py", "--size", size])
    with pytest.raises(SystemExit, match=f"^step: size {size} needs a CUDA GPU, and there is none here; "):
        script("step").main()


@pytest.mark.parametrize(("limit", "left", "share"), [(10.0, 6.0, 0.05), (0.0, 0.0, 0.5)])
def test_disturbed_measurements_are_repeated(script, monkeypatch, limit, left, share):
    """Other processes use half of two CPUs for a second, nothing for three seconds, then a twentieth for a second."""
    measuring = script("measuring")
    clock, cpu_seconds = iter(range(4)), iter([7.0, 8.0, 8.0, 8.0, 8.0, 8.1])
    monkeypatch.setattr(measuring, "now", lambda: float(next(clock)))
    monkeypatch.setattr(measuring, "_other_cpu_seconds", lambda: next(cpu_seconds))
    monkeypatch.setattr(measuring.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(measuring.time, "sleep", lambda _: None)
    patience = measuring.Patience(limit)
    assert patience.run(lambda: "done") == ("done", 1.0)
    assert patience.seconds_left == left and patience.other_share == pytest.approx(share)


def test_a_policy_that_does_not_fit_runs_with_fewer_layers_and_the_result_says_so(script, capsys):
    import torch

    def run(layers):
        if layers > 15:
            raise torch.OutOfMemoryError(f"no room for {layers}")
        return {"ran": layers}

    assert script("step").fewer_layers(run, 28) == {"ran": 15, "layers": 15, "layers_of_model": 28}  # 28, 21, 15
    assert "21 of 28 decoder blocks do not fit: no room for 21" in capsys.readouterr().out
    with pytest.raises(torch.OutOfMemoryError):
        script("step").fewer_layers(lambda layers: run(99), 2)


def test_no_round_begins_for_which_there_is_no_time(script, monkeypatch):
    """A round of two kinds; the second one ends when the time is up, so that a third does not begin."""
    step, left, written = script("step"), [True, False], []
    monkeypatch.setattr(step, "build", lambda *_: None)
    monkeypatch.setattr(step, "train", lambda *_: {"total": 2.0} | dict.fromkeys(step.PARTS, 0.5))
    work = script("workloads").Workload("tiny", *[None] * 6)
    found = step.measure(
        work, 9, 1, script("measuring").Patience(), ("trl", "rlfr"), lambda seconds: not left.pop(0), written.append
    )
    assert found["seconds_per_update"] == {"trl": [2.0, 2.0], "rlfr": [2.0, 2.0]}
    assert [len(result["seconds_per_update"]["trl"]) for result in written] == [1, 2] and written[-1] == found


@pytest.mark.parametrize(
    ("card", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA GeForce RTX 9990", None),
        ("", None),
    ],
)
def test_peaks_of_cards(script, card, tera):
    """The datasheets' dense numbers; a card that is not in the table has none."""
    assert script("peaks").bf16_peak(card) == (None if tera is None else tera * 1e12)


def test_exponents_by_hand(script):
    exponent = script("flow").exponent
    assert exponent([128, 256, 512], [1.0, 2.0, 4.0]) == pytest.approx(1)
    assert exponent([1, 10], [3.0, 300.0]) == pytest.approx(2)


def test_growth_is_fitted_over_tokens_layers_and_samples(script, monkeypatch):
    from argparse import Namespace

    flow = script("flow")

    def squares(works, *_):
        return {name: [float(name.split()[-1]) ** 2] for name in works if works[name]() is not None}

    monkeypatch.setattr(flow, "alternate", squares)
    grown = flow.measure_growth(Namespace(width=8, depth=1, rounds=1), "cpu", None)
    assert list(grown) == ["response tokens", "layers", "samples"]
    assert [growth["exponent"] for growth in grown.values()] == pytest.approx([2, 2, 2])


def test_targets_by_hand(script):
    summary = script("summary")
    seconds = {"trl": [1.0, 1.0, 1.0], "rlvr": [0.9, 1.1, 1.2], "rlfr": [1.2, 1.3, 1.4]}
    rlfr, rlvr = summary.step_lines({"seconds_per_update": seconds, "over_trl": {"rlfr": 1.3}})
    assert (rlfr.target, rlfr.measured, rlfr.met) == ("≤ 1.05", "1.30 (of minima 1.20)", False)
    assert (rlvr.measured, rlvr.met) == ("1.10 [0.90, 1.20]", True)
    empty, cached = summary.quickstart_lines({"empty cache": 240.0, "cached": 216.0})
    assert (empty.measured, empty.met, cached.measured, cached.met) == ("4.0 min", True, "3.6 min", False)


def test_ratios_are_unsure_on_a_disturbed_machine_but_counts_are_not(script):
    summary = script("summary")
    step, memory = summary.at_most("", 1.15, 1.1, "a"), summary.at_most("", 0.3, 0.2, "a", sure=True)
    not_run = summary.NOT_RUN[0]
    quiet, disturbed = ({"noise": {"a": {"load_before": 0.1, "others": share}}} for share in (0.05, 0.5))
    assert [summary.verdict(quiet, line) for line in (step, memory, not_run)] == ["yes", "yes", ""]
    assert [summary.verdict(disturbed, line) for line in (step, memory, not_run)] == ["unsure", "yes", ""]
    assert summary.verdict(quiet, summary.at_most("", 1.15, 1.2, "a")) == "**no**"


def test_the_guide_shows_what_the_results_file_holds(script):
    """After new measurements: `summary.py FILE --write`."""
    summary = script("summary")
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"speed/results/([a-z0-9-]+\.json)", text))
    shown = {}
    for file in named:
        shown |= summary.blocks(json.loads((SPEED / "results" / file).read_text(encoding="utf-8")), file)
    assert shown.keys() == {"targets", "prefix", "step", "flow", "rest"}
    assert summary.with_blocks(text, shown) == text
    assert text.count("<!-- speed ") == 5


@pytest.mark.parametrize("path", sorted(SPEED.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_are_valid(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
