"""Which runs a sweep has, how each is started, and the file that records it."""

from itertools import pairwise

import pytest
import yaml

from rlfr_vlm.errors import UserError
from tests.sweep.helpers import sweep_of


def names(sweep):
    return [run.name for run in sweep.runs]


def after(arguments, option):
    """Last value of an option, which is the one that counts."""
    return [value for name, value in pairwise(arguments) if name == option][-1]


def test_every_method_has_every_setting_and_seed(tmp_path):
    sweep = sweep_of(tmp_path, axes=["learning_rate=1e-5,2e-5", "beta=0,0.1"], seeds=[3, 7])
    assert len(sweep.runs) == 2 * 2 * 2 * 2
    assert names(sweep)[:3] == [
        f"rlvr-learning_rate={s}/seed-3" for s in ("1e-5-beta=0", "1e-5-beta=0.1", "2e-5-beta=0")
    ]
    assert [run.seed for run in sweep.runs] == [3] * 8 + [7] * 8  # whole pairs first
    run = sweep.runs[-1]
    assert run.name == "entropy-learning_rate=2e-5-beta=0.1/seed-7"
    assert run.arguments == (
        "--method", "entropy", "--seed", "7", "--output_dir", str(tmp_path / run.name), "--learning_rate", "2e-5",
        "--beta", "0.1",
    )  # fmt: skip


def test_an_axis_does_not_multiply_a_method_that_does_not_read_it(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1], ["flow_coef=0.01,0.1", "flow_accept_threshold=0.4,0.5"])
    thresholds = ("flow_accept_threshold=0.4", "flow_accept_threshold=0.5")
    assert [cell.name for cell in sweep.cells] == [
        *(f"rlvr-{threshold}" for threshold in thresholds),  # read by every method
        *(f"rlfr-flow_coef={coef}-{threshold}" for coef in ("0.01", "0.1") for threshold in thresholds),
    ]
    assert list(sweep.notes()) == [
        "flow_coef is read only by methods with rlfr; rlvr has no run for each of its values"
    ]


def test_settings_of_one_method_are_unset_for_the_others(tmp_path):
    """`rlfr train` refuses flow_path, flow_coef and entropy_alpha where the method does not read them."""
    config = tmp_path / "x.yaml"
    config.write_text("flow_path: fields/a\nentropy_alpha: 0.2\nbeta: 0.1\n")
    sweep = sweep_of(tmp_path, ["rlvr", "rlfr"], [1], config=config, options=["--flow_coef", "0.05"])
    rlvr, rlfr = (run.arguments for run in sweep.runs)
    assert rlvr[:4] == rlfr[:4] == ("--config", str(config), "--flow_coef", "0.05")
    assert rlvr[-6:] == ("--flow_coef", "0", "--flow_path", "", "--entropy_alpha", "0")
    assert rlfr[-2:] == ("--entropy_alpha", "0") and after(rlfr, "--flow_coef") == "0.05"
    assert "--flow_path" not in rlfr  # as in the file


def test_folders_of_values_that_no_folder_can_show(tmp_path):
    sweep = sweep_of(tmp_path, ["rlvr"], [1], ["media_root=a/b,a b,c"])
    assert [cell.name for cell in sweep.cells] == [
        "rlvr-media_root=a_b~1",
        "rlvr-media_root=a_b~2",
        "rlvr-media_root=c",
    ]
    assert len({run.folder for run in sweep.runs}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": ["--seed", "4"]}, "seed cannot be set in a sweep: seeds come from --seeds"),
        ({"options": ["--method=rlfr"]}, "method cannot be set in a sweep"),
        ({"options": ["--eval-only"]}, "eval_only cannot be set in a sweep: a sweep trains"),
        ({"axes": ["output_dir=a,b"]}, "output_dir cannot be set in a sweep"),
        ({"axes": ["beta=0,1"], "options": ["--beta", "2"]}, "beta is in --set and also given as --beta"),
    ],
)
def test_settings_that_a_sweep_sets_itself(tmp_path, settings, message):
    with pytest.raises(UserError) as error:
        sweep_of(tmp_path, **settings)
    assert message in str(error.value)


def test_the_same_definition_goes_on_and_another_is_refused_with_both_values(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("learning_rate: 1.0e-6\nhub_token: abc\nlr_scheduler_kwargs: {min_lr_rate: 0.1}\n")
    second.write_text(first.read_text().replace("1.0e-6", "2.0e-6") + "beta: 0.1\n")
    out = tmp_path / "out"
    out.mkdir()
    sweep_of(out, config=first, axes=["top_k=1,2"]).write()
    sweep_of(out, config=first, axes=["top_k=1,2"]).refuse_other()
    second.write_text(first.read_text())
    sweep_of(out, config=second, axes=["top_k=1,2"]).refuse_other()  # the name of the file does not matter
    second.write_text(first.read_text().replace("1.0e-6", "2.0e-6") + "beta: 0.1\n")
    changes = {
        "learning_rate: 1e-06 -> 2e-06; beta: unset -> 0.1": {"config": second, "axes": ["top_k=1,2"]},
        "seeds: [1, 2] -> [1, 2, 3]": {"config": first, "axes": ["top_k=1,2"], "seeds": [1, 2, 3]},
        "methods: ['rlvr', 'entropy'] -> ['rlvr']": {"config": first, "axes": ["top_k=1,2"], "methods": ["rlvr"]},
        "top_k: ['1', '2'] -> ['1', '3']": {"config": first, "axes": ["top_k=1,3"]},
        "options: [] -> ['--beta', '1']": {"config": first, "axes": ["top_k=1,2"], "options": ["--beta", "1"]},
    }
    for text, settings in changes.items():
        with pytest.raises(UserError) as error:
            sweep_of(out, **settings).refuse_other()
        assert f"holds a sweep with other settings ({text})" in str(error.value)
    assert "abc" not in (out / "sweep.yaml").read_text()
    assert yaml.safe_load((out / "sweep.yaml").read_text())["config_settings"]["hub_token"] == "<set>"


def test_runs_of_no_sweep_are_refused(tmp_path):
    (tmp_path / "rlvr" / "seed-1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"rlvr/seed-1 is there already, but .*sweep\.yaml"):
        sweep_of(tmp_path).refuse_other()
