"""Commands on a mixture of a file with images and a built-in task: what they print and write."""

import json

import pytest
from PIL import Image

from rlfr_vlm.cli import main
from rlfr_vlm.flow.storage import SPEC_FILE
from tests.end_to_end.train.test_train_and_fit import fit_arguments, policy_folder, train_arguments  # noqa: F401


@pytest.fixture
def rows(tmp_path) -> str:
    """Eight rows with an image beside them, and responses."""
    Image.new("RGB", (56, 28), "red").save(tmp_path / "a.png")
    made = [
        {"prompt": f"<image> sum {n}?", "images": ["a.png"], "answer": str(n), "response": f"the sum is {n}"}
        for n in range(8)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, made)))
    return str(tmp_path / "mine.jsonl")


def test_a_mixture_is_trained_measured_and_recorded(policy_folder, rows, tmp_path, capsys):  # noqa: F811
    """Two prompts a rollout, half of each source: 8 + 16 rows are 24 prompts an epoch, 12 for each source."""
    run, names = tmp_path / "run", [f"{rows}:1", "digits:1"]
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_text(
            '{"prompt": "sum?", "answer": "1"}\n{"prompt": "product?", "answer": "2"}'
        )
    others = [f"{tmp_path}/one.jsonl:1", f"{tmp_path}/two.jsonl:1"]
    held_out = ["--eval_dataset_name", *others, "--eval_strategy", "steps", "--eval_steps", "2"]
    arguments = train_arguments(policy_folder, str(run), "--method", "rlvr", *held_out, "--eval_rows", "4")
    assert main([*arguments, "--dataset_name", *names]) == 0
    out = capsys.readouterr().out
    assert f"mixture, 24 prompts an epoch: mine ({rows}) 8 rows, weight 1, share 50.0%, 1.50 passes an epoch; " in out
    assert (
        "digits 16 rows, weight 1, share 50.0%, 0.75 passes an epoch\n" in out and "left out of each epoch" not in out
    )
    assert "; greedy by source: one " in out and "(n = 2), two " in out
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in logged if "source/mine/rows" in line]
    assert [(line["source/mine/rows"], line["source/digits/rows"]) for line in trained] == [(4, 4)] * 2
    assert [line["eval_source/two/rows"] for line in logged if "eval_source/two/rows" in line] == [2]
    data = json.loads((run / "run.json").read_text())["data"]
    assert (data["name"], data["rows"], data["rows_by_source"]) == (names, 24, {"mine": 8, "digits": 16})
    groups = [json.loads(line) for line in (run / "rollouts" / "rank0.jsonl").read_text().splitlines()]
    assert [group["source"] for group in groups] == ["mine", "digits"] * 2
    assert "- Data: mine.jsonl:1, digits:1, split train" in (run / "README.md").read_text()
    capsys.readouterr()
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0


def test_a_field_is_fitted_on_all_sources_without_weights(policy_folder, rows, tmp_path, capsys):  # noqa: F811
    arguments = fit_arguments(policy_folder, str(tmp_path / "flow"))
    assert main([*arguments, "--dataset_name", f"{rows}:1", "digits:1"]) == 2
    assert f"The source {rows} has a weight, and a fit takes each row once" in capsys.readouterr().err
    assert main([*arguments, "--dataset_name", rows, "digits"]) == 0
    spec = json.loads((tmp_path / "flow" / "flow" / SPEC_FILE).read_text())
    assert spec["data"] == f"{rows}, digits (train, 48 rows, all)"


def test_responses_are_sampled_of_all_sources(policy_folder, rows, tmp_path, capsys):  # noqa: F811
    """Four of 8 + 8 rows, spread evenly: rows 0, 4, 8 and 12."""
    out = tmp_path / "samples.jsonl"
    arguments = ["sample", "--policy", policy_folder, "--data", rows, "digits", "--dataset_limit", "8", "--n", "4"]
    settings = ["--samples", "1", "--max_new_tokens", "2", "--device", "cpu", "--out", str(out)]
    assert main([*arguments, *settings]) == 0
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["prompt_index"], row["mixture_source"]) for row in written] == [
        (0, "mine"), (4, "mine"), (8, "digits"), (12, "digits")
    ]  # fmt: skip
    assert [row["images"][0][:5] for row in written] == ["a.png", "a.png", "data:", "data:"]
    given = ["inspect", "--policy", policy_folder, "--flow", "flow", "--data", str(out), rows, "--given"]
    assert main(given) == 2
    assert "--given takes one file of `rlfr sample`, and 2 are named" in capsys.readouterr().err
