"""A reasoning-gym task from its name to trained weights and graded samples, with a tiny text-only policy."""

import json

import pytest

from rlfr_vlm.cli import main
from tests.end_to_end.train.test_train_and_fit import fit_arguments, train_arguments

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

NAME = "reasoning_gym:chain_sum?max_terms=2&max_digits=1&size=16"


@pytest.fixture
def text_policy(make_text_policy, text_tokenizer, tmp_path):
    make_text_policy().save_pretrained(tmp_path / "policy")
    text_tokenizer.save_pretrained(tmp_path / "policy")
    return str(tmp_path / "policy")


def test_a_task_is_trained_sampled_and_graded(text_policy, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "samples.jsonl"
    arguments = train_arguments(text_policy, str(run), "--method", "rlvr", "--max_steps", "1")
    assert main([*arguments, "--dataset_name", NAME]) == 0
    assert "reward: reasoning_gym, the task's own scorer; --rewards sets others\n" in capsys.readouterr().out
    [logged] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][:1]
    assert "rewards/reasoning_gym/mean" in logged
    sample = ["sample", "--policy", text_policy, "--data", NAME, "--n", "2", "--samples", "2", "--max_new_tokens", "4"]
    assert main([*sample, "--out", str(out), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["wrong"] * 4  # random weights give no answer
    assert {json.loads(row["reasoning_gym"])["task"] for row in rows} == {"chain_sum"}
    # the file is graded by the scorer, too: 7.0 is no other answer than 7
    rows[0]["response"] = f"<answer>{rows[0]['answer']}.0</answer>"
    out.write_text(json.dumps(rows[0]) + "\n")
    capsys.readouterr()
    assert main(["grade", str(out), "--json"]) == 0
    graded = json.loads(capsys.readouterr().out)
    assert (graded["verdict"], graded["path"]) == ("right", "reasoning_gym")


def test_fitting_on_a_task_is_refused_with_what_mends_it(text_policy, tmp_path, capsys):
    assert main([*fit_arguments(text_policy, str(tmp_path / "flow")), "--dataset_name", NAME]) == 2
    error = capsys.readouterr().err
    assert f"{NAME} has no expert responses" in error and "Traceback" not in error
    assert f"`rlfr sample --data '{NAME}'`" in error


def test_a_task_is_planned_and_checked(text_policy, tmp_path, capsys):
    assert main(["check-data", "--dataset_name", NAME]) == 0
    assert "16" in capsys.readouterr().out
    data = ["--model_name_or_path", text_policy, "--dataset_name", NAME]
    assert main(["preview", *data, "--rows", "1", "--html", str(tmp_path / "page.html")]) == 0
    assert main(["plan", *data]) == 0
    assert "measured in all rows" in capsys.readouterr().out


def test_without_the_library_training_is_one_message(text_policy, tmp_path, capsys, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if "gym" in name else found(name, *rest))
    assert (
        main([*train_arguments(text_policy, str(tmp_path / "run")), "--dataset_name", NAME, "--method", "rlvr"]) == 2
    )
    error = capsys.readouterr().err
    assert "pip install 'rlfr-vlm[reasoning-gym]'" in error and "Traceback" not in error
