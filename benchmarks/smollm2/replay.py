"""Serve the stored answers of finished runs at /v1/completions, so that another harness scores these very answers.

python benchmarks/smollm2/replay.py RUN [RUN ...] --data-dir DATA --port 8139

A prompt is answered with what the model answered to exactly this prompt. Any other prompt is an error.
"""

import argparse
import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rlfr_eval.benchmarks.text import resolve
from rlfr_eval.benchmarks.text_presets import preset
from rlfr_eval.benchmarks.text_problems import read_problems
from rlfr_vlm.errors import UserError

SUITES = ("math500", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench")


def stored_answers(runs: Sequence[Path], data_dir: Path, suites: Sequence[str] = SUITES) -> dict[str, str]:
    """Return the raw answer to each prompt that the runs sent.

    Raises:
        UserError: an answer is to a problem of no suite, or two runs answered the same prompt in different words.
    """
    prompts = {}
    for benchmark in resolve(suites):
        asked = preset(benchmark.prompt)
        for problem in read_problems(benchmark, data_dir).problems:
            prompts[benchmark.name, problem.id] = asked.text(problem.text)
    answers: dict[str, str] = {}
    for run in runs:
        for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            prompt = prompts.get((sample["benchmark"], sample["problem"]))
            if prompt is None:
                raise UserError(
                    f"{run} has {sample['id']}, whose prompt is unknown. Give runs of {', '.join(suites)}."
                )
            if answers.setdefault(prompt, sample["raw"]) != sample["raw"]:
                raise UserError(
                    f"{run} answers {sample['id']} in other words than a run before it. Replay one of them."
                )
    return answers


class Replay(BaseHTTPRequestHandler):
    """Answer completion requests from `answers`."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, str]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["prompt"]
        prompts = [asked] if isinstance(asked, str) else asked
        unknown = [prompt for prompt in prompts if prompt not in self.answers]
        if self.path != "/v1/completions" or unknown:
            self._reply(404, {"error": {"message": f"No stored answer at {self.path} to {unknown!r}."}})
            return
        choices = [{"index": index, "text": self.answers[prompt]} for index, prompt in enumerate(prompts)]
        self._reply(200, {"object": "text_completion", "choices": choices})

    def _reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def server(answers: dict[str, str], port: int) -> ThreadingHTTPServer:
    """Return a server of the answers, bound to a port of this machine."""
    return ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Replay,), {"answers": answers}))


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of `rlfr-eval lm`")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the problems, NAME.jsonl")
    parser.add_argument("--port", type=int, default=8139)
    options = parser.parse_args()
    try:
        answers = stored_answers(options.runs, options.data_dir)
    except (UserError, OSError) as error:
        raise SystemExit(str(error)) from None
    print(f"{len(answers)} answers on port {options.port}", flush=True)
    server(answers, options.port).serve_forever()


if __name__ == "__main__":
    main()
