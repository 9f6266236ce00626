"""Names of reasoning-gym tasks as data sets."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.gym import GymName, check_installed, is_gym_name, parse_name


def test_a_name_has_a_task_options_and_a_size():
    assert parse_name("reasoning_gym:chain_sum") == GymName("chain_sum", {}, None)
    name = "reasoning_gym:chain_sum?min_terms=2&max_terms=3&size=2000"
    assert parse_name(name) == GymName("chain_sum", {"min_terms": "2", "max_terms": "3"}, 2000)
    assert is_gym_name(name) and not is_gym_name("digits") and not is_gym_name("data/reasoning_gym:x.jsonl")


def test_a_value_may_have_the_separator():
    """`&` is an operator of some tasks; only one before `name=` separates."""
    assert parse_name('reasoning_gym:t?ops=["&","="]&size=3') == GymName("t", {"ops": '["&","="]'}, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reasoning_gym:", "names no task"),
        ("reasoning_gym:t?min_terms", "has 'min_terms'; options are written reasoning_gym:t"),
        ("reasoning_gym:t?a=1&a=2", "has the option a twice"),
        ("reasoning_gym:t?size=0", "size is '0'; it is a number of rows, at least 1"),
        ("reasoning_gym:t?size=1e3", "size is '1e3'"),
    ],
)
def test_a_malformed_name_is_one_message(name, message):
    with pytest.raises(UserError, match=message):
        parse_name(name)


def test_a_missing_library_is_one_message_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as raised:
        check_installed("reasoning_gym:chain_sum")
    assert str(raised.value) == (
        "reasoning_gym:chain_sum needs the package reasoning-gym, which is not installed. "
        "Run: pip install 'rlfr-vlm[reasoning-gym]'"
    )
