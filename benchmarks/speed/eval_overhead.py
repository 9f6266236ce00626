"""What `rlfr-eval` costs beside the model: answers through its client, store and grader, with an instant endpoint.

    .venv/bin/python benchmarks/speed/eval_overhead.py [--answers 2000] [--concurrency 64] [--json FILE]

The endpoint answers at once from a process of its own on this machine, so what is measured is ours (and its socket).
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from measuring import table, write_results

REPLY = {"id": "0", "object": "chat.completion", "model": "instant", "created": 0,
         "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
         "choices": [{"index": 0, "finish_reason": "stop",
                      "message": {"role": "assistant", "content": "So it is \\boxed{7}."}}]}  # fmt: skip


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


class Instant(BaseHTTPRequestHandler):
    """Answers every question with 7."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "instant", "object": "model", "max_model_len": 32768}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(REPLY)

    def _send(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(port: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Instant)
    port.value = server.server_address[1]
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    port = multiprocessing.Value("i", 0)
    endpoint = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    endpoint.start()
    while not port.value:
        time.sleep(0.01)
    with tempfile.TemporaryDirectory() as folder:
        benchmark, data = Path(folder) / "instant.toml", Path(folder) / "instant.jsonl"
        rows = [{"id": str(i), "problem": f"What is {i} + 7 - {i}?", "answer": "7"} for i in range(options.answers)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        benchmark.write_text(BENCHMARK.format(n=options.answers), encoding="utf-8")
        command = [sys.executable, "-m", "rlfr_eval.cli", "lm", "--base-url", f"http://127.0.0.1:{port.value}/v1",
                   "--suite", str(benchmark), "--data-dir", folder, "--judge", "none", "--out",
                   str(Path(folder) / "run"), "--concurrency", str(options.concurrency)]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    endpoint.terminate()
    if done.returncode:
        sys.exit(done.stderr)
    row = (options.answers, options.concurrency, f"{seconds:.1f}", f"{options.answers / seconds:.0f}")
    print(table(("answers", "concurrency", "seconds", "answers/s"), [row]))
    write_results(options.json, "eval_overhead", {**vars(options), "json": None, "seconds": seconds})


if __name__ == "__main__":
    main()
