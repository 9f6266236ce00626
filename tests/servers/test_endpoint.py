"""Everything a server can do wrong has a name, is tried again where that helps, and is never an answer."""

import asyncio
import json
import time
from email.utils import formatdate
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_vlm.errors import UserError
from rlfr_vlm.servers.endpoint import Endpoint, Fault, retry_after

BODY = {"messages": [{"role": "user", "content": "1+1?"}], "max_tokens": 5}
KEY = "sk-very-secret-key-1234567890"


def reaction(**settings):
    """Keyword arguments of conftest's Reaction; the fixture below makes one of them."""
    return settings


@pytest.fixture
def react(serve, make_reaction):
    """Serves a list of reactions, the last one for ever."""
    return lambda *reactions: serve(lambda body, n: make_reaction(**reactions[min(n, len(reactions)) - 1]))


def ask(endpoint, body=BODY, **settings):
    async def run():
        client = Endpoint(
            endpoint.url, "m", KEY, **{"time_limit": 5.0, "max_tries": 3, "first_delay": 0.01, **settings}
        )
        async with client:
            try:
                return await client.ask(body), client
            except Fault as fault:
                return fault, client

    return asyncio.run(run())


GOOD = reaction(text="2")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (reaction(status=500), "server error"),
        (reaction(status=503, text="busy"), "server error"),
        (reaction(status=429), "rate limit"),
        (reaction(drop=True), "connection"),
        (reaction(delay=2.0), "time-out"),
        (reaction(text="x" * 50, drip=0.05), "time-out"),
        (reaction(cut=9), "connection"),
        (reaction(raw=b'{"choices": [{"message": {"content": "2"'), "not JSON"),
        (reaction(raw=b"<html>hello</html>", headers={"content-type": "text/html"}), "not JSON"),
        (reaction(raw=b"<html>hello</html>"), "not JSON"),
        (reaction(raw=b""), "not JSON"),
        (reaction(raw=b"[]"), "not JSON"),
        (reaction(raw=b'{"error": "no"}'), "empty"),
        (reaction(text="2", finish_reason="abort"), "aborted"),
        (reaction(text="2", model="m-mini"), "wrong model"),
        *(
            (reaction(raw=json.dumps(reply).encode()), "not JSON")
            for reply in (
                {"model": "m", "choices": [{"finish_reason": "stop", "message": None}]},
                {"model": "m", "choices": [None]},
                {"model": "m", "choices": "abc"},
                {"model": 5, "choices": [{"finish_reason": "stop", "message": {"content": "2"}}]},
                {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": {"a": "2"}}}]},
            )
        ),
        (reaction(text="", tokens=None), "empty"),
        (reaction(text=None, tokens=0), "empty"),
        (reaction(text="2", model="another"), "wrong model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_fault_is_named_and_tried_again(react, bad, kind):
    server = react(bad, GOOD)
    reply, client = ask(server, time_limit=0.5)
    assert reply.text == "2" and reply.tries == 2
    assert client.faults == {kind: 1}
    server = react(bad)
    fault, client = ask(server, time_limit=0.5)
    assert isinstance(fault, Fault) and fault.kind == kind
    assert client.faults == {kind: 3}


def test_raw_completions_and_what_a_reply_says(react):
    server = react(reaction(text="2", finish_reason="length", tokens=4, model="m-2024-08-06"))
    reply, _ = ask(server, {"prompt": "1+1?", "max_tokens": 4, "extra_body": {"top_k": 3}})
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("2", "length", 11, 4)
    assert reply.model == "m-2024-08-06"  # a dated version of what was asked
    assert server.requests == [{"model": "m", "stream": False, "prompt": "1+1?", "max_tokens": 4, "top_k": 3}]
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_an_answer_of_nothing_but_an_end_token_is_an_answer(react):
    reply, client = ask(react(reaction(text="", tokens=1)))
    assert reply.text == "" and not client.faults


def test_reasoning_that_the_server_took_away_is_kept(react):
    content = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    raw = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                      "choices": [{"index": 0, "finish_reason": "length", "message": content}]}).encode()  # fmt: skip
    reply, _ = ask(react(reaction(raw=raw)))
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "hm", "length")


def test_retry_after_is_obeyed(react, monkeypatch):
    slept, sleep = [], asyncio.sleep

    async def record(seconds):
        slept.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", record)
    reply, _ = ask(react(reaction(status=429, headers={"retry-after": "0.4"}), GOOD))
    assert reply.text == "2" and 0.4 <= max(slept) <= 0.4 * 1.1  # the server's own waits are of 0 seconds


def test_retry_after_may_be_a_date(monkeypatch):
    now = float(int(time.time()))  # dates have whole seconds
    monkeypatch.setattr(time, "time", lambda: now)
    assert retry_after(formatdate(now + 60, usegmt=True)) == 60.0
    assert retry_after("-5") == 0.0


def test_a_request_the_server_refuses_is_not_repeated(react):
    for text, kind in (("bad", "refused"), ("This model's maximum context length is 10 tokens", "too long")):
        server = react(reaction(status=400, text=text))
        fault, client = ask(server)
        assert fault.kind == kind and len(server.requests) == 1 and client.faults == {kind: 1}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (reaction(status=401, text=f"Incorrect API key provided: {KEY}"), r"refuses the key .*rlfr-eval settings"),
        (reaction(status=403), "refuses the key"),
        (reaction(status=404), "does not know 'm'"),
    ],
)
def test_what_no_repetition_can_mend_stops_with_one_message(react, bad, message):
    with pytest.raises(UserError, match=message) as error:
        ask(react(bad))
    assert KEY not in str(error.value)


def test_settling_which_model_is_asked(serve):
    async def settle(models, wanted=""):
        server = serve(lambda body, n: "", models=models)
        async with Endpoint(server.url, wanted) as client:
            return (await client.resolve_model("--model")), client.model

    both = ({"id": "base", "max_model_len": 10}, {"id": "adapter", "parent": "base"})
    assert asyncio.run(settle(both[:1]))[1] == "base"
    card, name = asyncio.run(settle(both, "adapter"))
    assert name == "adapter" and card["max_model_len"] == 10  # an adapter's context is its base's
    with pytest.raises(UserError, match=r"serves 2 models \(adapter, base\)\. Name one with --model"):
        asyncio.run(settle(both))
    with pytest.raises(UserError, match="does not serve 'gpt'; it serves base"):
        asyncio.run(settle(both[:1], "gpt"))


def test_half_a_key_is_not_left_by_cutting(react):
    with pytest.raises(UserError) as error:
        ask(react(reaction(status=401, text="x" * (500 - 30) + KEY)))
    assert KEY[:8] not in str(error.value)


def test_a_reply_is_unchanged_even_if_it_holds_the_key(react):
    """A key may be a word or a number that is an answer."""
    assert ask(react(reaction(text=f"your key is {KEY}")))[0].text == f"your key is {KEY}"


def test_a_key_that_cannot_be_one(react):
    with pytest.raises(UserError, match="has characters that no key has"):
        asyncio.run(Endpoint("http://h/v1", "m", "sk-\u00e4").__aenter__())


def test_a_server_that_is_not_there():
    async def run():
        async with Endpoint("http://127.0.0.1:9/v1") as client:
            await client.models()

    with pytest.raises(UserError, match=r"Cannot ask .* at http://127\.0\.0\.1:9/v1 what it serves: connection lost"):
        asyncio.run(run())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_fault_and_is_not_followed(react, serve, status):
    """Another server would get the request, with keys in its body, and answer under the first one's name."""
    other = serve(lambda body, n: "2")
    place = f"{other.url}/chat/completions"
    fault, client = ask(react(reaction(status=status, headers={"location": f"{place}?key=Zq7"})))
    assert fault.kind == "redirect" and f"HTTP {status}: the server redirects to {place}?(secret); give" in str(fault)
    assert client.faults == {"redirect": 1}
    assert other.received == []


def test_no_header_of_the_environment_is_sent(react, monkeypatch):
    """openai 3.57 reads these variables by itself, for whatever server it talks to."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Api-Key: Zq7header\nAuthorization: Bearer Zq7header")
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "Zq7variable")
    server = react(GOOD)
    assert ask(server)[0].text == "2"
    assert set(server.keys) == {f"Bearer {KEY}"} and "Zq7" not in "".join(server.received)


def test_no_proxy_stands_between_us_and_this_machine(react, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask(react(GOOD))[0].text == "2"


def test_headers_and_api_version_go_with_every_request(serve):
    server = serve(lambda body, n: "2")

    async def run():
        headers = {"X-Team": "blue", "Authorization": "Basic abc"}
        async with Endpoint(f"{server.url}?api-version=2024-06-01", "m", KEY, headers=headers) as client:
            assert client.url == server.url and client.query == {"api-version": "2024-06-01"}
            await client.resolve_model("--model")
            return await client.ask(BODY)

    assert asyncio.run(run()).text == "2"
    assert server.paths == ["/v1/models?api-version=2024-06-01", "/v1/chat/completions?api-version=2024-06-01"]
    assert [(one["x-team"], one["authorization"]) for one in server.headers] == [("blue", "Basic abc")] * 2


def test_values_of_headers_are_in_no_message(serve, make_reaction):
    server = serve(lambda body, n: make_reaction("you sent hunter22 to me", status=400))
    fault, _ = ask(server, headers={"X-Secret": "hunter22"})
    assert str(fault) == "HTTP 400: Error code: 400 - you sent (secret) to me"
    assert "hunter22" not in repr(Endpoint("http://h", headers={"X-Secret": "hunter22"}))


def test_azure_gets_its_key_header_and_may_call_the_model_otherwise_but_not_twice(serve, make_reaction, monkeypatch):
    """A deployment has a name of its own; the model behind it must stay the same."""
    server = serve(lambda body, n: make_reaction("2", model="gpt-4o-2024-08-06" if n < 2 else "gpt-4o-mini"))
    assert ask(server)[0].kind == "wrong model"
    monkeypatch.setattr("rlfr_vlm.servers.endpoint.is_azure", lambda url: True)

    async def run():
        async with Endpoint(server.url, "my-deployment", KEY, max_tries=1, first_delay=0.01) as client:
            assert (await client.resolve_model("--model"))["id"] == "my-deployment"  # the list is not asked for
            first = await client.ask(BODY)
            with pytest.raises(Fault, match="asked 'gpt-4o-2024-08-06', 'gpt-4o-mini' answered"):
                await client.ask(BODY)
            return first

    count = len(server.paths)
    server.requests.clear()
    assert asyncio.run(run()).model == "gpt-4o-2024-08-06"
    assert {headers.get("api-key") for headers in server.headers[count:]} == {KEY}
    assert {headers.get("api-key") for headers in server.headers[:count]} == {None}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)
CONTENTS = st.text(max_size=5) | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()})) | VALUES
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "message": st.fixed_dictionaries({}, optional={"content": CONTENTS, "reasoning": VALUES}) | VALUES,
        "text": CONTENTS,
        "finish_reason": st.sampled_from(["stop", "length", "abort", None, 7]),
    },
)
COMPLETIONS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(CHOICES | VALUES, max_size=2) | VALUES,
        "model": st.just("m") | VALUES,
        "usage": st.fixed_dictionaries({"prompt_tokens": VALUES, "completion_tokens": st.integers(0, 3) | VALUES})
        | VALUES,
    },
)


@settings(derandomize=True, max_examples=500)
@given(reply=COMPLETIONS | VALUES, chat=st.booleans())
def test_fuzz_replies(reply, chat):
    """A reply of the server is an answer with a text of its own, or a fault by name."""
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

    client = Endpoint("http://127.0.0.1:9", "m")
    built = (ChatCompletion if chat else Completion).construct(**reply) if isinstance(reply, dict) else reply
    create = AsyncMock(return_value=built)
    client._client = SimpleNamespace(
        chat=SimpleNamespace(completions=SimpleNamespace(create=create)), completions=SimpleNamespace(create=create)
    )
    try:
        answer = asyncio.run(client._try({"messages": []} if chat else {"prompt": "q"}, 1))
    except Fault as fault:
        assert fault.kind in ("not JSON", "empty", "wrong model", "aborted")
        return
    assert isinstance(answer.text, str) and answer.model == "m"
    assert answer.text or answer.reasoning or answer.completion_tokens
    choice = reply["choices"][0]
    given_text = (choice["message"] or {}).get("content") if chat else choice.get("text")
    parts = given_text if isinstance(given_text, list) else [{"text": given_text or ""}]
    assert answer.text == "".join(part["text"] for part in parts)
