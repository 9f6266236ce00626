"""Custom reward functions: loading, arguments, and validation of return values."""

import asyncio

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards import accuracy, build_rewards, wrap

ROWS = {"prompts": ["q"] * 2, "completions": ["a", "bb"], "completion_ids": [[5, 2], [5, 6, 2]]}


@pytest.fixture
def module(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def by_length(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n"
        "async def later(completions, **kwargs):\n    return [1.0] * len(completions)\n"
        "constant = 3\n"
    )
    return tmp_path / "mine.py"


def test_loading_from_a_file_and_from_a_dotted_path(module):
    by_file, by_path, by_colon = build_rewards(
        [f"{module}:by_length", "rlfr_vlm.rewards.repetition.repetition", "rlfr_vlm.rewards.repetition:repetition"],
        RewardOptions(),
        10,
    )
    assert by_file(**ROWS) == [1.0, 2.0] and by_file.__name__ == "by_length"
    assert by_path(**ROWS) == by_colon(**ROWS) == [0.0, 0.0]


def test_async_is_awaited(module):
    (later,) = build_rewards([f"{module}:later"], RewardOptions(), 10)
    assert asyncio.run(later(**ROWS)) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("no_such_package.f", "No module named 'no_such_package'"),
        ("{module}:by_lenght", r"has no function 'by_lenght'\. Did you mean 'by_length'"),
        ("{module}:constant", "has no function 'constant'"),
        ("acuracy", r"Unknown reward 'acuracy'.*Did you mean 'accuracy'\?"),
        ("format_pattern", "needs the setting format_pattern"),
    ],
)
def test_a_function_that_cannot_be_loaded(module, name, message):
    with pytest.raises(UserError, match=message):
        build_rewards([name.format(module=module)], RewardOptions(), 10)


def test_an_empty_list_of_rewards_raises_an_error():
    with pytest.raises(UserError, match="rewards is empty"):
        build_rewards([], RewardOptions(), 10)


def test_built_accuracy_uses_the_options():
    (built,) = build_rewards(["accuracy"], RewardOptions(grading_tolerance=0.1), 10)
    assert built.func is accuracy and built.__name__ == "accuracy"
    assert built(completions=[r"\boxed{3.1}"], answer=["3"]) == [1.0]


def test_named_numbers_are_summed_and_logged_separately():
    logged = {}
    reward = wrap(lambda **_: [{"style": 1.0, "depth": 0.5}, {"style": 0.0, "reward": 3.0}], "mine")
    assert reward(**ROWS, log_metric=logged.__setitem__) == [1.5, 3.0]
    assert logged == {"rewards/mine/style": 0.5, "rewards/mine/depth": 0.5, "rewards/mine/reward": 3.0}


def test_a_named_number_that_is_none_is_left_out():
    assert wrap(lambda **_: [{"a": None, "b": 1.0}, {"a": None}], "mine")(**ROWS) == [1.0, None]


def test_sums_over_tokens_are_logged():
    logged = {}
    wrap(lambda **_: [[0.5, 0.25], [1.0, 0.0, 0.0]], "mine")(**ROWS, log_metric=logged.__setitem__)
    assert logged == {"rewards/mine/sum_over_tokens": 0.875}


def test_per_token_values_are_stored_for_the_trainer():
    reward = wrap(lambda **_: [[0.5, -0.5], None], "mine")
    assert reward(**ROWS) == [0.0, None]
    assert reward.token_values == [[0.5, -0.5], None]


def test_the_step_and_all_columns_are_passed():
    class State:
        global_step = 7

    received = {}
    wrap(lambda **kwargs: received.update(kwargs) or [0.0, 0.0], "mine")(**ROWS, trainer_state=State(), column=[1, 2])
    assert received["step"] == 7 and received["column"] == [1, 2]
    assert received["completion_ids"] == ROWS["completion_ids"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0], [1.0, 2.0, 3.0]], "gave 1 values for a response of 2 tokens"),
        ([1.0], r"returned 1 values for 2 responses; return one per response"),
        (1.0, "returned float for 2 responses"),
        ([float("nan"), 0.0], "gave nan; rewards are finite numbers"),
        ([[0.0, float("inf")], None], "gave inf"),
    ],
)
def test_invalid_return_values_raise_an_error(values, message):
    with pytest.raises(UserError, match=message):
        wrap(lambda **_: values, "mine")(**ROWS)
