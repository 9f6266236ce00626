"""A small OpenAI-style server for scripts that tests start as processes of their own."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# First lines of a script that uses this module; the script runs in another folder.
IMPORTS = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.eval.stub_server import JsonHandler, completion, serve
"""


class JsonHandler(BaseHTTPRequestHandler):
    """Replies with JSON and prints nothing. Subclasses define `do_GET` and `do_POST`."""

    protocol_version = "HTTP/1.1"

    def body(self) -> Any:
        """Return the JSON of the request."""
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def reply(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def completion(model: str, text: str, **more: object) -> dict[str, object]:
    """Return a chat completion with one choice."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], **more}


def serve(handler: type[JsonHandler], port: int, host: str = "127.0.0.1") -> None:
    ThreadingHTTPServer((host, port), handler).serve_forever()
