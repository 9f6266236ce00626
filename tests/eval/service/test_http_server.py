"""The service over real sockets; jobs are queued and never run."""

import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from rlfr_eval.service import http_server, jobs
from rlfr_vlm.errors import UserError
from tests.eval.service.service import ask, service

JOB = {"command": "lm", "suite": ["math500"], "base_url": "http://127.0.0.1:1", "limit": 2}
TOKEN = "a-token-of-24-characters"


@pytest.fixture
def send(alone):
    with service(alone / "jobs", run=False) as send:
        yield send


def test_a_job_is_queued_once_for_its_name(send, alone):
    status, job = send("/jobs", "POST", {**JOB, "name": "a"})
    assert (status, job["state"], job["name"], job["progress"]) == (202, "queued", "a", None)
    assert job["options"] == {"suite": ["math500"], "base_url": "http://127.0.0.1:1", "limit": 2}
    assert job["folder"] == str(alone / "jobs" / "a") and (alone / "jobs" / "a" / "job.json").is_file()
    again, same = send("/jobs", "POST", {**JOB, "name": "a", "concurrency": 3})
    assert (again, same["submitted"]) == (200, job["submitted"])
    status, refused = send("/jobs", "POST", {**JOB, "name": "a", "limit": 3, "temperature": 0.5})
    assert (
        status == 409 and "The job a has other settings (limit: 2 -> 3; temperature: None -> 0.5)" in refused["error"]
    )
    status, refused = send(
        "/jobs", "POST", {"command": "vlm", "data": ["WeMath"], "base_url": JOB["base_url"], "name": "a"}
    )
    assert status == 409 and "command: 'lm' -> 'vlm'" in refused["error"]
    assert [job["name"] for job in send("/jobs")[1]["jobs"]] == ["a"]


def test_jobs_without_a_name_are_new_each_time(send, alone):
    (alone / "jobs" / "lm-2").mkdir(parents=True)  # of somebody else
    names = [send("/jobs", "POST", JOB)[1]["name"] for _ in range(2)]
    assert names == ["lm-1", "lm-3"]
    assert [job["name"] for job in send("/jobs")[1]["jobs"]] == names


@pytest.mark.parametrize(("content", "status", "message"), [
    ({**JOB, "limits": 1}, 400, "Did you mean 'limit'?"),
    ({**JOB, "name": "../x"}, 400, "name is '../x'; it is a folder's"),
    ({**JOB, "judge_model": "x"}, 400, "judge_model is no part of a request"),
    ([JOB], 400, "A job is a JSON object"),
    (None, 400, "The body is no JSON"),
])  # fmt: skip
def test_wrong_requests_leave_nothing(send, alone, content, status, message):
    code, reply = send("/jobs", "POST", content)
    assert (code, list(reply)) == (status, ["error"]) and message in reply["error"]
    assert send("/jobs")[1] == {"jobs": []} and [path.name for path in alone.rglob("*.json")] == []


@pytest.mark.parametrize(("body", "headers", "status", "message"), [
    (b'{"command": "lm"', {}, 400, "The body is no JSON: "),
    (b'{"command": NaN}', {}, 400, "NaN is no JSON"),
    (b"[" * 60000, {}, 400, "The body is no JSON: "),
    (b"\xff\xfe{}", {}, 400, "The body is no JSON: "),
    (b"x" * 65537, {}, 413, "The body has 65537 bytes; a request for a job has at most 65536."),
    (b"x" * 9_000_000, {}, 413, "The body has 9000000 bytes"),
    (json.dumps(JOB).encode(), {"Content_Type": "text/plain"}, 415, "send application/json"),
    (json.dumps(JOB).encode(), {"Host": "evil.example:8765"}, 403, "The Host of this request is another machine's"),
])  # fmt: skip
def test_bodies_that_are_not_taken(send, body, headers, status, message):
    code, reply = send("/jobs", "POST", None, body, **headers)
    assert code == status and message in reply["error"]
    assert send("/jobs")[1] == {"jobs": []}


@pytest.mark.parametrize("length", [b"", b"Content-Length: -5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_without_a_length_is_not_read(send, length):
    address = urlsplit(send.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n")
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.0 411 ") and b"The request has no Content-Length" in reply


def test_paths_and_methods_that_are_not_there(send):
    for method, path in (("GET", "/"), ("POST", "/jobs/a"), ("DELETE", "/jobs"), ("GET", "/jobs/a/b"), ("POST", "/x")):
        code, reply = send(path, method)
        assert code == 404 and f"There is no {method} {path}. There are POST /jobs" in reply["error"]
    for method in ("PUT", "OPTIONS", "PATCH"):
        assert send("/jobs", method) == (501, {"error": f"Unsupported method ({method!r})"})
    send("/jobs", "POST", {**JOB, "name": "step-100"})
    code, reply = send("/jobs/step-10")
    assert code == 404 and "There is no job 'step-10'. Did you mean 'step-100'?" in reply["error"]
    assert send("/jobs/..%2fx")[0] == 404 and send("/jobs/step-9", "DELETE")[0] == 404


def test_every_request_carries_the_token_where_there_is_one(alone, capsys):
    with service(alone / "jobs", TOKEN, run=False) as send:
        for headers in (
            {},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer \xe9"},
        ):
            for method, path in (("GET", "/jobs"), ("POST", "/jobs"), ("DELETE", "/jobs/a"), ("GET", "/nowhere")):
                code, reply = send(path, method, JOB if method == "POST" else None, **headers)
                assert code == 401 and "RLFR_EVAL_TOKEN" in reply["error"] and TOKEN not in reply["error"]
        right = {"Authorization": f"Bearer {TOKEN}", "Host": "node-7:8765"}
        assert send("/jobs", **right) == (200, {"jobs": []})
        assert send("/jobs", "POST", JOB, **right)[0] == 202
        assert send("/health")[1]["status"] == "ok" and list(send("/health")[1]) == ["status", "version"]
    assert TOKEN not in "".join(capsys.readouterr())
    assert not [path for path in alone.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_a_queued_job_is_cancelled_and_queued_again(send, alone):
    for name in ("a", "b"):
        send("/jobs", "POST", {**JOB, "name": name})
    assert send("/jobs/a", "DELETE")[1]["state"] == "cancelled"
    assert send("/jobs/a", "DELETE")[1]["state"] == "cancelled"
    assert send("/jobs", "POST", {**JOB, "name": "a", "concurrency": 2})[0] == 202
    assert [(job["name"], job["state"]) for job in send("/jobs")[1]["jobs"]] == [("b", "queued"), ("a", "queued")]
    assert send("/jobs/a")[1]["options"]["concurrency"] == 2


def test_a_job_that_asked_nothing_may_be_corrected(send):
    send("/jobs", "POST", {**JOB, "name": "a"})
    send("/jobs/a", "DELETE")
    code, job = send("/jobs", "POST", {**JOB, "name": "a", "limit": 3})
    assert (code, job["state"], job["options"]["limit"]) == (202, "queued", 3)


def test_a_moved_server_is_the_same_job(send, alone):
    send("/jobs", "POST", {**JOB, "name": "a"})
    moved = {**JOB, "name": "a", "base_url": "http://127.0.0.1:2"}
    assert send("/jobs", "POST", moved)[0] == 409
    assert send("/jobs", "POST", {**moved, "moved_from": "http://127.0.0.1:1"})[0] == 409  # it waits, with the old one
    send("/jobs/a", "DELETE")
    (alone / "jobs" / "a" / "run.json").touch()  # there are answers
    assert send("/jobs", "POST", moved)[0] == 409
    assert send("/jobs", "POST", {**moved, "moved_from": "http://127.0.0.1:3"})[0] == 409
    code, job = send("/jobs", "POST", {**moved, "moved_from": "http://127.0.0.1:1"})
    assert code == 202 and job["options"]["base_url"] == "http://127.0.0.1:2"


def test_many_at_once_are_one_job_and_a_long_queue_is_refused(send, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WAITING", 3)
    replies = []
    asking = [
        threading.Thread(target=lambda: replies.append(send("/jobs", "POST", {**JOB, "name": "a"})[0]))
        for _ in range(30)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(replies) == [200] * 29 + [202]
    assert [send("/jobs", "POST", JOB)[0] for _ in range(3)] == [202, 202, 503]


def test_connections_above_the_limit_are_told_so(send, monkeypatch):
    """They send nothing, so that each holds its thread."""
    address = urlsplit(send.url)
    silent = [socket.create_connection((address.hostname, address.port)) for _ in range(http_server.CONNECTIONS)]
    try:
        code = 200
        for _ in range(100):  # until the server has accepted them all
            code, reply = ask(send.url + "/health")
            if code == 503:
                break
        assert code == 503 and "Too many connections" in reply["error"]
    finally:
        for connection in silent:
            connection.close()
    while ask(send.url + "/health")[0] == 503:
        pass


def test_a_port_that_is_taken_is_one_message(send):
    port = urlsplit(send.url).port
    for number, reason in ((port, "Address already in use"), (70000, "no such port")):
        with pytest.raises(UserError, match=f"Cannot listen on port {number} of 127.0.0.1: {reason}"):
            http_server.EvaluationServer("127.0.0.1", number, None, "")
