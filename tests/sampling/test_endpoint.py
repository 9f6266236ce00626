"""Responses of a server: what is asked, what is read, and what a server that fails does to a run."""

import json
import math

import pytest
from PIL import Image

from rlfr_vlm.data.images import open_image
from rlfr_vlm.errors import UserError
from rlfr_vlm.sampling.endpoint import EndpointEngine, api_key, server_address
from rlfr_vlm.sampling.engine import Sample, Sampling
from tests.eval.conftest import Reaction

KEY = "sk-Zq7secretZq7"
VLLM = ({"id": "m", "owned_by": "vllm"},)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No key of the environment, nor of a `.env` above; no waiting between tries."""
    for name in ("RLFR_API_KEY", "OPENAI_API_KEY", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)


def row(text="sum?", images=(), number=0):
    blocks = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    return {"prompt": [{"role": "user", "content": blocks if images else text}], "images": list(images),
            "row_number": number}  # fmt: skip


def completion_of(choice):
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(body).encode()


def engine(server, model="m", **sampling):
    return EndpointEngine(server.url, model, Sampling(**sampling))


def test_the_request_has_the_messages_the_image_and_the_sampling(serve):
    server = serve(lambda body, n: "so 7")
    image = Image.new("RGB", (5, 4), (1, 2, 3))
    samples = engine(server, temperature=0.7, top_p=0.9, max_new_tokens=32).sample([row(images=[image])], [11])
    assert samples == [Sample("so 7", None, None, False)]
    [asked] = server.requests
    assert {name: asked[name] for name in ("model", "temperature", "top_p", "max_tokens", "seed")} == {
        "model": "m", "temperature": 0.7, "top_p": 0.9, "max_tokens": 32, "seed": 11,
    }  # fmt: skip
    assert not {"top_k", "bad_words", "logprobs", "return_token_ids"} & asked.keys()  # which not every server knows
    picture, text = asked["messages"][0]["content"]
    assert text == {"type": "text", "text": "sum?"}
    assert open_image(picture["image_url"]["url"]).getpixel((0, 0)) == (1, 2, 3)


def test_vllm_tells_tokens_and_log_probs_and_bans_vision_tokens(serve):
    def reply(body, n):
        logprobs = [{"token": "a", "logprob": math.log(0.5), "bytes": [], "top_logprobs": []}] * 3
        choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "so"},
                  "logprobs": {"content": logprobs}, "token_ids": [5, 6, 7]}  # fmt: skip
        return Reaction(raw=completion_of(choice))

    server = serve(reply, models=VLLM)
    [sample] = engine(server).sample([row()], [1])
    assert (sample.text, sample.ids, sample.truncated) == ("so", [5, 6, 7], True)
    assert sample.logp == pytest.approx(3 * math.log(0.5))
    [asked] = server.requests
    assert asked["logprobs"] and asked["return_token_ids"] and "<|image_pad|>" in asked["bad_words"]
    assert (asked["top_k"], asked["repetition_penalty"]) == (-1, 1.0)  # not the policy's own settings


def test_lmdeploy_draws_by_the_request_alone_and_is_asked_for_nothing_it_refuses(serve):
    server = serve(lambda body, n: "so 7", models=({"id": "other"}, {"id": "m", "owned_by": "lmdeploy"}))
    engine(server).sample([row()], [1])
    engine(server, top_k=5).sample([row()], [1])
    fields = [{name: asked[name] for name in ("top_k", "repetition_penalty", "min_p")} for asked in server.requests]
    assert fields == [{"top_k": top_k, "repetition_penalty": 1.0, "min_p": 0.0} for top_k in (0, 5)]
    assert not {"bad_words", "logprobs", "return_token_ids"} & server.requests[0].keys()


def test_failures_that_pass_are_tried_again(serve):
    faults = [Reaction(status=503), Reaction(status=429), Reaction(drop=True)]
    server = serve(lambda body, n: faults[n - 1] if n <= 3 else "so 7")
    assert engine(server).sample([row()], [1])[0].text == "so 7" and len(server.requests) == 4


def test_a_refused_request_is_a_fault_of_its_response_alone(serve):
    def script(body, n):
        if body["messages"][0]["content"] == "bad?":
            return Reaction("the prompt is too long", status=400)
        return "so 7"

    samples = engine(serve(script)).sample([row(), row("bad?"), row()], [1, 2, 3])
    assert [sample.text for sample in samples] == ["so 7", "", "so 7"]
    assert "refuses the request" in samples[1].fault and "the prompt is too long" in samples[1].fault
    assert samples[1].ids is None and samples[1].logp is None and not samples[1].truncated


@pytest.mark.parametrize("reason", ["content_filter", "abort"])
def test_a_response_that_the_server_ended_is_a_fault(serve, reason):
    server = serve(lambda body, n: Reaction("half", finish_reason=reason if body["seed"] == 2 else "stop"))
    assert [sample.fault for sample in engine(server).sample([row()] * 2, [1, 2])] == [
        "", f"the server ended the response with {reason}",
    ]  # fmt: skip


def test_a_server_that_refuses_everything_stops_the_run(serve):
    server = serve(lambda body, n: Reaction("no images here", status=400))
    with pytest.raises(UserError, match=r"answers none of the first 2 requests: .*no images here"):
        engine(server).sample([row()] * 2, [1, 2])


def test_a_server_that_is_lost_stops_the_run(serve):
    server = serve(lambda body, n: Reaction(status=500))
    with pytest.raises(UserError, match=r"does not answer \(.*500.*same command goes on where it stopped"):
        engine(server).sample([row()], [1])
    assert len(server.requests) == 6


def test_no_server():
    with pytest.raises(UserError, match=r"Cannot reach the server http://127.0.0.1:9/v1 \(.*Start it, or give"):
        EndpointEngine("http://127.0.0.1:9/v1", "m", Sampling())


def test_a_model_that_is_not_served(serve):
    with pytest.raises(UserError, match=r"does not serve 'other'; it serves m. Name one of them with --policy"):
        engine(serve(lambda body, n: ""), model="other")


def test_reasoning_that_the_server_takes_out_stops_the_run(serve):
    message = {"role": "assistant", "content": "7", "reasoning_content": "let me see"}
    reply = completion_of({"index": 0, "finish_reason": "stop", "message": message})
    with pytest.raises(UserError, match="without a reasoning parser"):
        engine(serve(lambda asked, n: Reaction(raw=reply))).sample([row()], [1])


def test_the_key_is_sent_and_not_shown(serve, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")  # for OpenAI's server only
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Api-Key: Zq7header")
    server = serve(lambda body, n: Reaction(f"wrong key {KEY}", status=401))
    with pytest.raises(UserError, match=r"refuses the key .*Set RLFR_API_KEY") as caught:
        (tmp_path / ".env").write_text(f"RLFR_API_KEY={KEY}\n")
        engine(server).sample([row()], [1])
    assert KEY not in str(caught.value) and server.keys == [f"Bearer {KEY}"] * 2
    assert not any("Zq7header" in text or "sk-openai" in text for text in server.received)
    monkeypatch.setenv("RLFR_API_KEY", "from-the-environment")
    assert api_key(server.url) == "from-the-environment"  # before .env
    monkeypatch.delenv("RLFR_API_KEY")
    (tmp_path / ".env").write_text("")
    assert api_key(server.url) == "" and api_key("https://api.openai.com/v1") == "sk-openai"


def test_redirects_are_not_followed(serve):
    other = serve(lambda body, n: "so 7")
    moved = Reaction(status=307, headers={"location": f"{other.url}/chat/completions"})
    with pytest.raises(UserError):
        engine(serve(lambda body, n: moved)).sample([row()], [1])
    assert not other.requests


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://h/v1", "it may be hf, vllm, or the address of a server"),
        ("http://me:pw@h/v1", "which has a user, a password"),
        ("http://h/v1?key=abc", "which has a user, a password"),
    ],
)
def test_addresses_that_are_refused(address, message):
    with pytest.raises(UserError, match=message) as caught:
        server_address(address)
    assert "pw" not in str(caught.value) and "abc" not in str(caught.value)
