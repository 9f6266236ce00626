"""Names of data sets: weights behind a colon, labels, and combinations that make no sense."""

from fractions import Fraction

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions, RewardOptions, ScriptArguments, reward_names
from rlfr_vlm.sources import sources_of, split_of


def test_a_weight_is_a_last_part_that_is_a_number():
    names = ["data/a.jsonl:0.7", "reasoning_gym:chain_sum?max_terms=3&size=9:1e-1", "org/set:2"]
    sources = sources_of(names)
    assert [source.name for source in sources] == [name.rpartition(":")[0] for name in names]
    assert [source.weight for source in sources] == [Fraction(7, 10), Fraction(1, 10), Fraction(2)]  # not 0.7000...
    assert [source.label for source in sources] == ["a", "chain_sum", "set"]


def test_without_numbers_there_are_no_weights():
    sources = sources_of(["reasoning_gym:chain_sum", "digits"])
    assert [(source.name, source.weight) for source in sources] == [
        ("reasoning_gym:chain_sum", None),
        ("digits", None),
    ]


def test_a_file_whose_name_ends_like_a_weight_is_that_file(tmp_path):
    (tmp_path / "rows:2").write_text("{}")
    assert sources_of([f"{tmp_path}/rows:2", "digits"])[0].name == f"{tmp_path}/rows:2"
    assert DataOptions(dataset_name=f"{tmp_path}/rows:2").dataset_name == f"{tmp_path}/rows:2"


def test_labels_differ():
    names = ["a/train.jsonl", "b/train.jsonl", "train_2.json", "reasoning_gym:gcd?size=3", "reasoning_gym:gcd?size=4"]
    assert [source.label for source in sources_of(names)] == ["train", "train_3", "train_2", "gcd", "gcd_2"]


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "0.0"])
def test_a_weight_is_above_0(weight):
    with pytest.raises(
        UserError, match=rf"^The source digits has the weight {weight}; a weight is a number above 0\."
    ):
        DataOptions(dataset_name=[f"digits:{weight}", "charts:1"])


def test_all_sources_have_weights_or_none():
    with pytest.raises(UserError, match=r"^The source charts has no weight, and digits has one\."):
        DataOptions(dataset_name=["digits:1", "charts"])


def test_a_source_is_there_once(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^The source digits is there twice\. Name it once"):
        DataOptions(dataset_name=["digits:1", "charts:1", "digits:2"])
    (tmp_path / "a.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^The source \./a\.jsonl is there twice, also as a\.jsonl\."):
        DataOptions(dataset_name=["a.jsonl", "./a.jsonl"])
    tasks = ["reasoning_gym:chain_sum?max_terms=2", "reasoning_gym:chain_sum?max_terms=5"]
    assert DataOptions(dataset_name=tasks).dataset_name == tasks  # two levels of a task are two sources


def test_one_name_is_a_text_and_needs_no_weight():
    assert DataOptions(dataset_name=["digits"]).dataset_name == "digits"
    assert DataOptions().dataset_name == ""
    assert ScriptArguments(eval_dataset_name=["digits"]).eval_dataset_name == "digits"
    assert ScriptArguments().eval_dataset_name is None
    with pytest.raises(UserError, match=r"^dataset_name is digits:0\.3: a weight needs a second source\."):
        DataOptions(dataset_name="digits:0.3")
    with pytest.raises(UserError, match=r"^eval_dataset_name is \[1, 2\]; it must be the name of a data set"):
        ScriptArguments(eval_dataset_name=[1, 2])


def test_a_file_counts_as_its_training_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    assert split_of(str(tmp_path / "a.jsonl"), "test") == "train" and split_of("digits", "test") == "test"


def test_the_reward_of_a_mixture_fits_all_its_sources():
    tasks = ["reasoning_gym:chain_sum:1", "reasoning_gym:gcd:1"]
    assert reward_names(RewardOptions(), "rlvr", tasks) == ["reasoning_gym"]
    assert reward_names(RewardOptions(), "rlvr", [*tasks, "digits:2"]) == ["accuracy"]


@pytest.mark.parametrize("where", ["file", "command line"])
def test_settings_from_a_file_and_from_the_command_line(where, tmp_path):
    from rlfr_vlm.config_file import parse_config_subset

    (tmp_path / "a.yaml").write_text("dataset_name: [a.jsonl:0.7, digits:0.3]\neval_dataset_name: charts\n")
    arguments = {
        "file": ["--config", str(tmp_path / "a.yaml")],
        "command line": ["--dataset_name", "a.jsonl:0.7", "digits:0.3", "--eval_dataset_name", "charts"],
    }
    [options] = parse_config_subset((ScriptArguments,), (), arguments[where])
    assert options.dataset_name == ["a.jsonl:0.7", "digits:0.3"] and options.eval_dataset_name == "charts"
