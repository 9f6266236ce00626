"""Rollouts ahead: which rows are read and sent when, and requests whose answers are collected later."""

import threading

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.vllm.request_ahead import RequestAhead
from rlfr_vlm.trainer.vllm.rollout_ahead import RolloutAhead


def batches(rollouts, period, log):
    """A data loader's: each rollout's rows for each of its micro-batches."""
    for rollout in rollouts:
        for _ in range(period):
            log.append(rollout)
            yield [{"prompt": rollout}]


def test_rows_of_the_next_rollout_are_known_when_one_begins():
    ahead, log = RolloutAhead(period=2), []
    loader = batches("abc", 2, log)
    reading = ahead.reading(loader)
    assert next(reading) == [{"prompt": "a"}]
    assert log == ["a", "a", "b"]  # read as far as needed, and no further
    assert ahead.next_rows(0, remaining=6) == [{"prompt": "b"}]
    assert next(ahead.reading(loader)) == [{"prompt": "a"}]  # another update, with an iterator of its own
    assert next(reading) == [{"prompt": "b"}]
    assert ahead.next_rows(2, remaining=4) == [{"prompt": "c"}]
    assert [batch[0]["prompt"] for batch in reading] == ["b", "c", "c"]
    assert ahead.next_rows(4, remaining=2) is None  # the epoch ends


def test_nothing_is_sent_beyond_the_last_update():
    ahead = RolloutAhead(period=2)
    next(ahead.reading(batches("abc", 2, [])))
    assert ahead.next_rows(0, remaining=2) is None
    assert ahead.next_rows(0, remaining=3) == [{"prompt": "b"}]


def test_batches_of_a_rollout_share_their_rows():
    ahead = RolloutAhead(period=3)
    read = list(ahead.reading(batches("ab", 3, [])))
    assert read[0] is read[1] is read[2] and read[3] is read[5] and read[0] is not read[3]


def test_age_counts_updates_since_a_rollout_was_sent():
    ahead = RolloutAhead(period=1)
    assert ahead.take_age(7) == 0
    ahead.sent_at = 7
    assert ahead.take_age(9) == 2
    assert ahead.take_age(9) == 0  # the next one was not sent ahead


def test_a_request_runs_while_others_work_and_is_known_by_its_prompts_and_settings():
    may_end = threading.Event()

    def ask():
        may_end.wait(10)
        return {"completion_ids": [[5]]}

    image = [[object()]]
    request = RequestAhead([[1, 2]], {"n": 1}, image, [{"kwargs": 1}], ask)
    assert request.fits([[1, 2]], {"n": 1})
    assert not request.fits([[1, 3]], {"n": 1}) and not request.fits([[1, 2]], {"n": 2})
    assert request.features_of(image) == [{"kwargs": 1}] and request.features_of([[object()]]) is None
    may_end.set()
    assert request.result() == {"completion_ids": [[5]]}


def test_a_request_that_fails_fails_where_its_answer_is_collected():
    def ask():
        raise UserError("the server is gone")

    request = RequestAhead([[1]], {}, None, None, ask)
    request.wait()  # does not raise: weights may be sent all the same
    with pytest.raises(UserError, match="the server is gone"):
        request.result()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout": "hf"}, "rollout 'hf': only a server of its own can generate"),
        ({"rollout": "vllm-colocate"}, "rollout 'vllm-colocate': only a server"),
        ({"vllm_importance_sampling_correction": False}, "vllm_importance_sampling_correction false"),
        ({"curriculum_band": [0.2, 0.8]}, "curriculum_band draws them by its grades"),
        ({"server_weights": "foldr"}, "server_weights is 'foldr'; choose one of auto, nccl, folder. Did you mean"),
    ],
)
def test_settings_that_do_not_go_with_it(arguments, changes, message):
    settings = {"method": "rlvr", "rollout": "vllm-server", "rollout_ahead": True} | changes
    with pytest.raises(UserError, match=message):
        RLFRConfig(**arguments(**settings))


def test_tools_do_not_go_with_it(arguments):
    args = RLFRConfig(**arguments(method="rlvr", rollout="vllm-server", rollout_ahead=True))
    RolloutAhead.refuse_turns(args, {"tools": None, "callbacks": [1]})
    with pytest.raises(UserError, match="with rollout_func a rollout takes several requests"):
        RolloutAhead.refuse_turns(args, {"rollout_func": print})
