"""Overhead of `rlfr-eval`: its client, run folder and grader, with an endpoint that answers immediately.

    .venv/bin/python benchmarks/speed/eval_overhead.py [--answers 2000] [--concurrency 64] [--rounds 3] [--json FILE]

The endpoint runs in another process on this machine, so the time is that of `rlfr-eval` and the local socket. Each
round also times a bare loop over the same requests with the openai package's client, which keeps answers in memory and
grades nothing: what any harness on that client takes at least.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import table, write_results

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

REPLY = {
    "id": "0",
    "object": "chat.completion",
    "model": "instant",
    "created": 0,
    "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "So it is \\boxed{7}."},
            "text": "So it is \\boxed{7}.",
        }
    ],
}

BENCHMARK = """
name = "instant"
title = "Instant"
about = "Sums that are always 7."
licence = "Apache-2.0"
n = {n}
prompt = "qwen-box"

[source]
repo = "nowhere"

[sampling]
temperature = 0.0
max_tokens = 64
"""


BARE_LOOP = """
import asyncio, json, sys
import openai

async def main(url, rows, concurrency):
    client, slots = openai.AsyncOpenAI(base_url=url, api_key="EMPTY", max_retries=0), asyncio.Semaphore(concurrency)

    async def ask(row):
        async with slots:
            prompt = f"<|im_start|>user\\n{row['problem']}<|im_end|>\\n<|im_start|>assistant\\n"
            return await client.completions.create(model="instant", prompt=prompt, temperature=0.0, max_tokens=64)

    return await asyncio.gather(*map(ask, rows))

rows = [json.loads(line) for line in open(sys.argv[2])]
answers = asyncio.run(main(sys.argv[1], rows, int(sys.argv[3])))
assert len(answers) == len(rows)
"""


class Instant(BaseHTTPRequestHandler):
    """Answers every request with 7."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "instant", "object": "model", "max_model_len": 32768}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(REPLY)

    def _send(self, value: Mapping[str, object]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # the default of 5 resets connections of concurrent clients


def serve(port: "Synchronized[int]") -> None:
    """Serve on a free port and store its number in `port`."""
    server = Server(("127.0.0.1", 0), Instant)
    port.value = server.server_address[1]
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    port = multiprocessing.Value("i", 0)
    endpoint = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    endpoint.start()
    while not port.value:
        time.sleep(0.01)
    with tempfile.TemporaryDirectory() as folder:
        benchmark, data = Path(folder) / "instant.toml", Path(folder) / "instant.jsonl"
        problems = [
            {"id": str(i), "problem": f"What is {i} + 7 - {i}?", "answer": "7"} for i in range(options.answers)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in problems), encoding="utf-8")
        benchmark.write_text(BENCHMARK.format(n=options.answers), encoding="utf-8")
        command = [sys.executable, "-m", "rlfr_eval.cli", "lm", "--base-url", f"http://127.0.0.1:{port.value}/v1"]
        command += ["--suite", str(benchmark), "--data-dir", folder, "--judge", "none"]
        command += ["--concurrency", str(options.concurrency), "--out"]
        url, concurrency = f"http://127.0.0.1:{port.value}/v1", str(options.concurrency)
        bare_command = [sys.executable, "-c", BARE_LOOP, url, str(data), concurrency]
        ours, bare = [], []
        for number in range(options.rounds):
            ours.append(timed([*command, str(Path(folder) / f"run{number}")]))
            bare.append(timed(bare_command))
    endpoint.terminate()
    seconds, bare_seconds = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(first / second for first, second in zip(ours, bare, strict=True))
    rows = [
        (name, options.answers, options.concurrency, f"{value:.1f}", f"{options.answers / value:.0f}")
        for name, value in (("rlfr-eval", seconds), ("bare loop", bare_seconds))
    ]
    print(table(("", "answers", "concurrency", "seconds", "answers/s"), rows))
    print(f"rlfr-eval over the bare loop, median of {options.rounds} alternating rounds: {ratio:.2f}")
    results = {**vars(options), "json": None, "seconds": seconds, "bare_seconds": bare_seconds, "ratio": ratio}
    write_results(options.json, "eval_overhead", results)


def timed(command: Sequence[str]) -> float:
    """Return the seconds of a command, which must succeed."""
    start = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.stderr)
    return seconds


if __name__ == "__main__":
    main()
