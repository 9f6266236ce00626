"""Tasks of reasoning-gym with checked options."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.gym.tasks import open_task, read_value

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")


def opened(task: str, **options: str):
    return open_task(task, options, seed=0, size=1)


def test_options_reach_the_task():
    config = opened("chain_sum", min_terms="3", max_terms="3", allow_negation="true").config
    assert (config.min_terms, config.max_terms, config.allow_negation, config.seed) == (3, 3, True, 0)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("chain_sun", {}, "no task 'chain_sun'. Did you mean 'chain_sum'"),
        ("chain_sum", {"min_term": "2"}, "no option 'min_term'. Did you mean 'min_terms'.*min_terms=2, max_terms=6"),
        ("chain_sum", {"min_terms": "two"}, "min_terms is 'two'; it must be a whole number"),
        ("chain_sum", {"min_terms": "2.5"}, "min_terms is '2.5'; it must be a whole number"),
        ("chain_sum", {"allow_negation": "1"}, "allow_negation is '1'; it must be true or false"),
        ("chain_sum", {"min_terms": "7"}, "refuses min_terms=7: max_terms must be >= min_terms"),
        ("chain_sum", {"seed": "1"}, "takes no option seed"),
        ("basic_arithmetic", {"operators": "+"}, 'operators is .*; it must be a list in JSON, such as \\["'),
        ("basic_arithmetic", {"format_style": "plain"}, "it must be one of simple, natural"),
        ("word_sorting", {"transformation": "upper"}, "it must be left at its default: it is no plain value"),
        ("composite", {}, "composite is not offered: it mixes other tasks"),
        ("game_of_life_halting", {}, "not offered: its scorer takes any answer for right"),
    ],
)
def test_what_the_library_does_not_take_is_one_message(task, options, message):
    with pytest.raises(UserError, match=message):
        opened(task, **options)


def test_the_refused_scorer_does_take_any_answer():
    """Read in reasoning-gym 0.1.25; once this fails, the task can be offered."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset("game_of_life_halting", seed=1, size=1)
    entry = dataset[0]
    assert dataset.score_answer("no idea", entry) == 1.0


def test_values_follow_the_types_of_the_fields():
    assert read_value("null", int | None) is None and read_value("4", int | None) == 4
    assert read_value("1", float) == 1.0 and read_value("1", str) == "1"
    assert read_value("[0.5, 1]", list[float]) == [0.5, 1]
    with pytest.raises(ValueError, match="a list in JSON"):
        read_value('["a", 1]', tuple[str, ...])
