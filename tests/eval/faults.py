"""Faulty replies of a server, for tests of policies and judges. `tests/README.md` counts them.

A reply is a function of the text that a healthy server would send, and of the request.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.eval.conftest import Reaction, completion

Asked = dict[str, Any]  # the body of a request
Fault = Callable[[str, Asked], Reaction]
HTML = b"<html><body><h1>Bad Gateway</h1></body></html>"
NOWHERE = "http://127.0.0.1:9/v1/chat/completions"
SLOW = ("no reply", "a byte now and then")  # faults that last until the time limit


def always(**reaction: Any) -> Fault:
    """The same reaction to every request."""
    return lambda text, asked: Reaction(**reaction)


def saying(**reaction: Any) -> Fault:
    """The healthy text with other fields of the reaction."""
    return lambda text, asked: Reaction(text, **reaction)


def changed(**fields: Any) -> Fault:
    """A healthy completion with other fields; a field that is None is absent."""

    def reply(text: str, asked: Asked) -> Reaction:
        body = {**completion(Reaction(text), asked), **fields}
        return Reaction(raw=json.dumps({key: value for key, value in body.items() if value is not None}).encode())

    return reply


def message(content: Callable[[str], Any] = lambda text: text, **fields: Any) -> Fault:
    """A healthy completion whose message has this content and more fields."""

    def reply(text: str, asked: Asked) -> Reaction:
        body = completion(Reaction(text), asked)
        body["choices"][0]["message"] = {"role": "assistant", "content": content(text), **fields}
        return Reaction(raw=json.dumps(body).encode())

    return reply


def choice(**fields: Any) -> Fault:
    """A healthy completion with other fields of its only choice."""

    def reply(text: str, asked: Asked) -> Reaction:
        body = completion(Reaction(text), asked)
        body["choices"][0].update(fields)
        return Reaction(raw=json.dumps(body).encode())

    return reply


def encoded(change: Callable[[bytes], bytes], **reaction: Any) -> Fault:
    """A healthy completion whose bytes are changed."""
    return lambda text, asked: Reaction(raw=change(json.dumps(completion(Reaction(text), asked)).encode()), **reaction)


STOPPING: Mapping[str, Fault] = {  # no other request can succeed, so the command stops with one message
    "HTTP 401": always(status=401),
    "HTTP 403": always(status=403),
    "HTTP 404": always(status=404),
}
FAILED: Mapping[str, Fault] = {  # a request without a reply, which a later call sends again
    "HTTP 204, no content": always(status=204, raw=b""),
    **{f"HTTP {code}, moved": always(status=code, headers={"location": NOWHERE}) for code in (301, 302, 307, 308)},
    **{f"HTTP {code}": always(status=code) for code in (400, 402, 405, 408, 409, 413, 422, 425, 500, 501, 503, 504)},
    "HTTP 429, too many requests": always(status=429, headers={"retry-after": "0"}),
    "HTTP 502, a page": always(status=502, raw=HTML, headers={"content-type": "text/html"}),
    "HTTP 529, overloaded": always(status=529, text="overloaded"),
    "connection closed": always(drop=True),
    "connection closed after the head": lambda text, asked: Reaction(raw=b"{}" * 9, cut=18),
    "connection closed within the body": saying(cut=9),
    "no reply": saying(delay=60.0),
    "a byte now and then": saying(drip=0.1),
    "compressed by name only": encoded(lambda body: body, headers={"content-encoding": "gzip"}),
    "empty body": always(raw=b""),
    "page": always(raw=HTML, headers={"content-type": "text/html"}),
    "page called JSON": always(raw=HTML),
    "plain text": lambda text, asked: Reaction(raw=text.encode(), headers={"content-type": "text/plain"}),
    "plain text called JSON": lambda text, asked: Reaction(raw=text.encode()),
    "torn JSON": encoded(lambda body: body[:-9]),
    "two JSON values": encoded(lambda body: body + body),
    "event stream": encoded(
        lambda body: b"data: " + body + b"\n\ndata: [DONE]\n\n", headers={"content-type": "text/event-stream"}
    ),
    "bytes that are no UTF-8": encoded(lambda body: body.replace(b'"assistant"', b'"\xff\xfe"')),
    "deep JSON": always(raw=b"[" * 200_000),
    "no fields": always(raw=b"{}"),
    "error with status 200": always(raw=b'{"error": {"message": "overloaded", "code": 503}}'),
    "no choices": changed(choices=[]),
    "choices are not a number": always(raw=b'{"model": "m", "choices": NaN}'),
    "message is null": choice(message=None),
    "another model": saying(model="another"),
    "aborted": saying(finish_reason="abort"),
    "finished by an error": saying(finish_reason="error"),
    "empty text without tokens": always(text="", tokens=0),
    "null without usage": always(text=None, tokens=None),
}
HARMLESS: Mapping[str, Fault] = {  # odd, but the reply is there
    "two choices, of which the first counts": lambda text, asked: two_choices(text, asked),
    "no model": changed(model=None),
    "dated model": lambda text, asked: Reaction(text, model=f"{asked['model']}-2024-08-06"),
    "no finish reason": choice(finish_reason=None),
    "unknown finish reason": saying(finish_reason="tool_calls"),
    "finish reason is a number": choice(finish_reason=5),
    "fields that nobody knows": choice(logprobs={"content": [1]}, extra=[None]),
    "usage of huge counts": changed(usage={"prompt_tokens": 10**400, "completion_tokens": 10**400}),
    "content in parts": message(lambda text: [{"type": "text", "text": part} for part in (text[:3], text[3:])]),
    "reasoning in tags": message(lambda text: f"<think>No \\boxed{{-7}}, VERDICT.</think>{text}"),
    "UTF-8 with a mark": encoded(lambda body: b"\xef\xbb\xbf" + body),
    "UTF-16": encoded(lambda body: body.decode().encode("utf-16")),
}


def two_choices(text: str, asked: Asked) -> Reaction:
    """The healthy choice, and one that contradicts it."""
    body = completion(Reaction(text), asked)
    other = {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": "\\boxed{-7}"}}
    body["choices"].append(other)
    return Reaction(raw=json.dumps(body).encode())
