"""The evaluation service in this process, and requests to it."""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlfr_eval.service.http_server import EvaluationServer
from rlfr_eval.service.jobs import Jobs
from rlfr_eval.service.options import ServiceOptions
from rlfr_vlm.env_settings import load_settings

Reply = tuple[int, dict[str, Any]]


def ask(
    url: str, method: str = "GET", content: object = None, raw: bytes | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Send a request; returns the status and the JSON of the reply."""
    body = raw if raw is not None else None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(
        url, body, {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    )
    request.method = method
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@contextlib.contextmanager
def service(folder: Path, token: str = "", run: bool = True, **options: Any) -> Iterator[Callable[..., Reply]]:
    """A service; yields a function that sends requests to paths of it.

    Args:
        run: whether jobs are run, or only queued.
    """
    jobs = Jobs(ServiceOptions(folder, load_settings(), **options))
    server = EvaluationServer("127.0.0.1", 0, jobs, token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    if run:
        jobs.start()

    def send(path: str, *arguments: Any, **headers: str) -> Reply:
        return ask(server.url + path, *arguments, **headers)

    send.url = server.url  # type: ignore[attr-defined]
    try:
        yield send
    finally:
        jobs.stop()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving(*arguments: str, first: str = "") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`rlfr-eval serve --out jobs` as a process, which is killed at the end; yields it and its address.

    Args:
        first: a statement for the process to run first.
    """
    code = f"import sys; {first or 'pass'}; from rlfr_eval.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "serve", "--out", "jobs", "--port", "0", *arguments]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.match(r"serving at (http://\S+);", process.stdout.readline())
        assert found is not None
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ended(send: Callable[..., Reply], name: str, within: float = 60.0) -> dict[str, Any]:
    """Wait until a job neither waits nor runs; returns what the service says of it."""
    until = time.monotonic() + within
    while (job := send(f"/jobs/{name}")[1])["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.05)
    return job


def until(reached: Callable[[], bool], within: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + within
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)
