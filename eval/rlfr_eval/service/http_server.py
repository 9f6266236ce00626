"""The HTTP side of the service: routes, the token, and limits on requests.

    POST /jobs          submit a job                 GET /jobs         all jobs
    GET /jobs/NAME      state, progress, scores      DELETE /jobs/NAME stop a job
    GET /health         whether the service lives; needs no token

Replies are JSON; an error is `{"error": "..."}`.
"""

import contextlib
import hmac
import ipaddress
import json
import re
import socket
import socketserver
import sys
import threading
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from rlfr_eval.service.jobs import Jobs
from rlfr_eval.service.options import TOKEN
from rlfr_eval.service.requests import Refusal
from rlfr_vlm import __version__
from rlfr_vlm.errors import UserError

LARGEST_BODY = 1 << 16  # bytes; also keeps each word of a command line below Linux's limit
DRAINED = 1 << 24  # bytes of a body too large that are read, so that the client sees the reply
TIME_LIMIT = 20.0  # seconds without a byte from the client
CONNECTIONS = 64  # at a time
LOCAL_NAMES = frozenset(["localhost", "127.0.0.1", "[::1]"])
HOST_HEADER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:\d+)?")
BUSY = b'{"error": "Too many connections at a time. Ask again."}\n'


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("::1")
    (True, True, False, True)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class EvaluationServer(ThreadingHTTPServer):
    """Serves `jobs` at an address; each connection has a thread.

    Args:
        token: that every request but those for `/health` must carry; empty: none.

    Raises:
        UserError: the address cannot be used.
    """

    request_queue_size = 128

    def __init__(self, host: str, port: int, jobs: Jobs, token: str) -> None:
        self.jobs, self.token = jobs, token
        self._free = threading.Semaphore(CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such port"
            raise UserError(
                f"Cannot listen on port {port} of {host}: {reason}. Give another --port (0: a free one) or --host."
            ) from None

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host!s}:{port}"

    def server_bind(self) -> None:
        """Bind without asking DNS for this machine's name, as `HTTPServer` does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            head = f"HTTP/1.0 503 Busy\r\nContent-Type: application/json\r\nContent-Length: {len(BUSY)}\r\n\r\n"
            request.send(head.encode() + BUSY, socket.MSG_DONTWAIT)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):  # a client that left is no error of ours
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request of a connection."""

    server: EvaluationServer
    server_version, sys_version = f"rlfr-eval/{__version__}", ""
    timeout = TIME_LIMIT

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def log_message(self, *arguments: object) -> None:
        """Print nothing: a line for each request would hide the states of jobs, and a header may be a secret."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Reply to what is no HTTP request, or has another method."""
        self._reply(code, {"error": message or HTTPStatus(code).phrase})

    def _answer(self, route: Any) -> None:
        try:
            self._check_sender()
            status, value = route()
        except Refusal as error:
            status, value = error.status, {"error": str(error)}
        except UserError as error:
            status, value = 400, {"error": str(error)}
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:  # such as a disk that is full
            status, value = 500, {"error": f"The service cannot do that: {error.strerror or error}."}
        except Exception:  # a request must not go without a reply
            traceback.print_exc()
            status, value = 500, {"error": "An error of the service, which it printed."}
        self._reply(status, value)

    def _check_sender(self) -> None:
        """Check the token. Without one, refuse what a web page in a browser of this machine could send.

        Raises:
            Refusal: the request may not be answered.
        """
        if not self.server.token:
            host = HOST_HEADER.fullmatch(self.headers.get("Host", "localhost"))
            if host is None or (host[1].lower() not in LOCAL_NAMES and not is_loopback(host[1].strip("[]"))):
                raise Refusal(403, "The Host of this request is another machine's. Ask 127.0.0.1.")
            return
        given = self.headers.get("Authorization", "")
        expected = f"Bearer {self.server.token}"
        if self._path() != ["health"] and not hmac.compare_digest(given.encode("latin-1"), expected.encode()):
            raise Refusal(401, f"Send the header `Authorization: Bearer TOKEN` with the service's {TOKEN}.")

    def _path(self) -> list[str]:
        return [part for part in urlsplit(self.path).path.split("/") if part]

    def _get(self) -> tuple[int, object]:
        match self._path():
            case ["health"]:
                return 200, {"status": "ok", "version": __version__}
            case ["jobs"]:
                return 200, {"jobs": self.server.jobs.summaries()}
            case ["jobs", name]:
                return 200, self.server.jobs.details(name)
        raise self._unknown()

    def _post(self) -> tuple[int, object]:
        if self._path() != ["jobs"]:
            raise self._unknown()
        name, new = self.server.jobs.submit(self._body())
        return (202 if new else 200), self.server.jobs.details(name)

    def _delete(self) -> tuple[int, object]:
        match self._path():
            case ["jobs", name]:
                self.server.jobs.cancel(name)
                return 200, self.server.jobs.details(name)
        raise self._unknown()

    def _unknown(self) -> Refusal:
        return Refusal(
            404,
            f"There is no {self.command} {self.path[:120]}. There are POST /jobs, GET /jobs, GET /jobs/NAME, "
            "DELETE /jobs/NAME and GET /health.",
        )

    def _body(self) -> object:
        """Return the JSON value of the body.

        Raises:
            Refusal: it is too large, of another type, or its length is not known.
            UserError: it is no JSON.
        """
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refusal(411, "The request has no Content-Length, which says how long its body is.")
        if int(length) > LARGEST_BODY:
            self._drain(min(int(length), DRAINED))
            raise Refusal(413, f"The body has {length} bytes; a request for a job has at most {LARGEST_BODY}.")
        content = self.rfile.read(int(length))
        kind = self.headers.get("Content-Type", "")
        if kind.split(";")[0].strip().lower() != "application/json":  # a web page may not send this one unasked
            raise Refusal(415, f"The Content-Type is {kind!r}; send application/json (`curl --json`).")
        try:
            return json.loads(content, parse_constant=_reject)
        except (ValueError, RecursionError) as error:
            raise UserError(f"The body is no JSON: {error}.") from None

    def _drain(self, length: int) -> None:
        """Read and forget a body: a connection that is closed before would show the client an error of its own."""
        while length > 0 and (block := self.rfile.read(min(length, LARGEST_BODY))):
            length -= len(block)

    def _reply(self, status: int, value: object) -> None:
        body = json.dumps(value, indent=1).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _reject(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
