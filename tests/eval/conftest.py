"""A scripted OpenAI-style endpoint that answers, or misbehaves, as a test says; and small benchmarks."""

import asyncio
import contextlib
import copy
import functools
import json
import os
import ssl
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.eval.vlm.fixtures import (  # noqa: F401
    fresh,
    healthy,
    impatient,
    lmu,
    one_process,
    vlm,
    whole_wemath,
)

JSON_HEADER = b"content-type: application/json\r\n"


@dataclass
class Reaction:
    """What the endpoint does with one request."""

    text: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # instead of a JSON reply
    finish_reason: str = "stop"
    model: str | None = None  # None: the one that was asked
    tokens: int | None = 7
    delay: float = 0.0
    drop: bool = False  # close the connection without a reply
    drip: float = 0.0  # seconds between the bytes
    cut: int = 0  # bytes missing at the end of the body


Script = Callable[[dict[str, Any], int], "Reaction | str"]


class ScriptedEndpoint:
    """Serves `models` on a port, by default a free one.

    `script(body, n)` is asked for the n-th POST; `requests` keeps the bodies, `received` all that came, as text.
    """

    def __init__(
        self, script: Script, models: tuple[dict[str, Any], ...] = ({"id": "m", "max_model_len": 9000},), port: int = 0
    ) -> None:
        self.script, self.models, self.port = script, models, port
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []  # of each request, by names in lower case
        self.paths: list[str] = []
        self.received: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "ScriptedEndpoint":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._request(reader, writer):
                pass
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
        head = text.split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.keys.append(headers.get("authorization", ""))
        self.headers.append(headers)
        self.paths.append(head[0].split()[1])
        self.received.append(text + body.decode())
        if head[0].startswith("GET"):
            cards = [{"object": "model", "created": 0, "owned_by": "test", **card} for card in self.models]
            return await self._send(writer, Reaction(raw=json.dumps({"object": "list", "data": cards}).encode()))
        asked = json.loads(body)
        if self.paths[-1].endswith("/tokenize"):
            return await self._send(writer, Reaction(raw=json.dumps({"count": 100}).encode()))
        self.requests.append(asked)
        reaction = self.script(asked, len(self.requests))
        return await self._send(writer, Reaction(reaction) if isinstance(reaction, str) else reaction, asked)

    async def _send(
        self, writer: asyncio.StreamWriter, reaction: Reaction, asked: dict[str, Any] | None = None
    ) -> bool:
        await asyncio.sleep(reaction.delay)
        if reaction.drop:
            return False
        content = reaction.raw if reaction.raw is not None else json.dumps(completion(reaction, asked or {})).encode()
        head = f"HTTP/1.1 {reaction.status} X\r\ncontent-length: {len(content)}\r\n".encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in reaction.headers.items()).encode()
        kind = b"" if "content-type" in reaction.headers else JSON_HEADER
        writer.write(head + kind + lines + b"\r\n")
        if reaction.cut:
            writer.write(content[: -reaction.cut])
            await writer.drain()
            return False
        for start in range(0, len(content), 1 if reaction.drip else len(content) or 1):
            writer.write(content[start : start + 1] if reaction.drip else content)
            await writer.drain()
            await asyncio.sleep(reaction.drip)
        return True


def completion(reaction: Reaction, asked: dict[str, Any]) -> dict[str, Any]:
    """A reply as OpenAI's API has it."""
    if reaction.status != 200:
        return {"error": {"message": reaction.text or "scripted", "type": "x"}}
    choice: dict[str, Any] = {"index": 0, "finish_reason": reaction.finish_reason}
    if "messages" in asked:
        choice["message"] = {"role": "assistant", "content": reaction.text}
    else:
        choice["text"] = reaction.text
    usage = None if reaction.tokens is None else {
        "prompt_tokens": 11, "completion_tokens": reaction.tokens, "total_tokens": 11 + reaction.tokens}  # fmt: skip
    return {"id": "x", "object": "chat.completion", "created": 0, "model": reaction.model or asked.get("model", "m"),
            "choices": [choice], "usage": usage}  # fmt: skip


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedEndpoint]]:
    """Starts scripted endpoints and stops them."""
    with contextlib.ExitStack() as stack:
        yield lambda script, **settings: stack.enter_context(ScriptedEndpoint(script, **settings))


@pytest.fixture
def make_reaction() -> type[Reaction]:
    """Misbehaviour for scripts."""
    return Reaction


@pytest.fixture(scope="module", autouse=True)  # undone for tests of other folders
def once() -> Iterator[None]:
    """Do once, or not at all, what each run of `rlfr-eval` does alike and what takes most of a small run's time."""
    from rlfr_eval.run import restore

    parsed = functools.cache(tomllib.loads)
    with pytest.MonkeyPatch.context() as patch:
        # each client reads the system's certificates, and the servers here speak plain HTTP
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)
        patch.setattr(tomllib, "loads", lambda text: copy.deepcopy(parsed(text)))  # of the shipped benchmarks
        patch.setattr(restore, "git_commit", functools.cache(restore.git_commit))
        patch.setattr(os, "fsync", lambda descriptor: None)  # no test cuts the power
        yield


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of `rlfr-eval report` without their figure: drawing it takes most of the command's time."""
    monkeypatch.setattr("rlfr_eval.report.page.for_both_schemes", lambda draw: {"light": "", "dark": ""})


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory, a cache and an environment of the test's own."""
    from rlfr_vlm.env_settings import SETTINGS

    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


TOY = """
name = "{name}"
title = "Toy"
licence = "none"
n = {n}
prompt = "chat"
{more}
[source]
repo = "nowhere"
[sampling]
max_tokens = 64
{sampling}
"""


@pytest.fixture
def toy(alone: Path) -> Callable[..., str]:
    """Writes a benchmark `What is i plus i?` of n problems and its data into `data/`; returns its TOML's path."""

    def make(
        n: int = 4, name: str = "toy", rows: list[dict[str, Any]] | None = None, more: str = "", sampling: str = ""
    ) -> str:
        rows = rows or [{"id": f"p{i}", "problem": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(n)]
        folder = alone / "data"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = alone / f"{name}.toml"
        path.write_text(TOY.format(name=name, n=len(rows), more=more, sampling=sampling))
        return str(path)

    return make


def question_of(body: dict[str, Any]) -> str:
    """The text of a request."""
    return body["messages"][-1]["content"] if "messages" in body else body["prompt"]


@pytest.fixture
def run_eval(alone: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `rlfr-eval` with these arguments; returns exit code, stdout, stderr."""
    from rlfr_eval.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def scores() -> Callable[[Path], dict[str, Any]]:
    """Reads a run's scores.json."""
    return lambda folder: json.loads((folder / "scores.json").read_text())
