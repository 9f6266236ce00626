"""A reward model behind vLLM's pooling API: outputs in order, refusals undecided, a server that is gone."""

import json
import math

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards import build_rewards
from rlfr_vlm.rewards.served_reward_model import is_address

PROMPTS = [[{"role": "user", "content": [{"type": "text", "text": f"{n}?"}]}] for n in range(3)]
COMPLETIONS = [[{"role": "assistant", "content": text}] for text in ("a", "bb", "ccc")]


@pytest.fixture
def reward(serve, make_reaction):
    """Builds the reward on a server whose outputs are `outputs(last message)`, a list or a reaction."""

    def build(outputs):
        def script(body, n):
            found = outputs(body["messages"][-1]["content"])
            if not isinstance(found, list):
                return found
            reply = {"data": [{"index": 0, "object": "pooling", "data": found}], "model": "m", "usage": {}}
            return make_reaction(raw=json.dumps(reply).encode())

        server = serve(script)
        options = RewardOptions(rewards=["reward_model"], reward_model=server.url.removesuffix("/v1"))
        return build_rewards(["reward_model"], options, 8)[0], server

    return build


def test_outputs_in_the_order_of_the_responses(reward):
    model, server = reward(lambda text: [float(len(text))])
    assert model(prompts=PROMPTS, completions=COMPLETIONS) == [1.0, 2.0, 3.0]
    body = next(body for body in server.requests if body["messages"][0]["content"] == "1?")
    assert body["messages"] == [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "bb"}]
    assert body["use_activation"] is False and body["model"] == "m"
    assert server.paths[-1] == "/pooling"


def test_what_the_server_refuses_is_undecided(reward, make_reaction):
    answers = {"a": [0.5], "bb": make_reaction(status=400, text="context length"), "ccc": [math.inf], "Hi.": [0.0]}
    model, _ = reward(answers.__getitem__)
    assert model(prompts=PROMPTS, completions=COMPLETIONS) == [0.5, None, None]


def test_a_server_that_is_gone_stops_the_run(reward, make_reaction, monkeypatch):
    monkeypatch.setattr("rlfr_vlm.servers.endpoint.LONGEST_DELAY", 0.0)
    model, _ = reward(lambda text: [1.0] if text == "Hi." else make_reaction(status=500, text="out of memory"))
    with pytest.raises(UserError, match=r"is gone: HTTP 500: .*Start it again, and resume from the last checkpoint"):
        model(prompts=PROMPTS, completions=COMPLETIONS)


def test_what_cannot_be_used(reward):
    with pytest.raises(UserError, match="has 2 outputs, and a reward is one number"):
        reward(lambda text: [0.1, 0.9])
    with pytest.raises(UserError, match="gave no finite number"):
        reward(lambda text: [math.nan])
    model, _ = reward(lambda text: [1.0])
    with pytest.raises(UserError, match="reads text, and the prompts have images"):
        model(prompts=PROMPTS[:1], completions=COMPLETIONS[:1], images=[[object()]])
    assert is_address("https://h/v1") and not is_address("org/model") and not is_address(None)
    with pytest.raises(UserError, match="the reward model's server"):
        build_rewards(["reward_model"], RewardOptions(reward_model="http://127.0.0.1:9"), 8)
