"""`rlfr-eval fetch --vlm` over a network: what comes is checked, what is there stays, half a file is never left."""

import hashlib
import http.server
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

CONTENT = b"index\tquestion\tanswer\timage\n" + b"0\tHow?\t3\tabc\n" * 9000  # 28 + 9000 x 13 = 117,028 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()
FETCH = "import sys; from rlfr_eval.cli import main; sys.exit(main(sys.argv[1:]))"


class Files(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT, in the way that the path names."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012
    meanwhile = staticmethod(lambda: None)  # what happens while it sends

    def do_GET(self):
        how = self.path.strip("/")
        self.asked.append(how)
        if how == "moved":
            self.answer(302, {"location": "/whole", "content-length": "0"})
        elif how == "missing":
            self.answer(404, {"content-length": "0"})
        elif how == "chunked":  # cut off within a chunk
            self.answer(200, {"transfer-encoding": "chunked"}, b"8000\r\n" + CONTENT[:100])
        else:
            length = "many" if how == "nonsense" else str(len(CONTENT))
            self.answer(200, {"content-length": length}, CONTENT[:50_000])
            self.meanwhile()
            if how in ("whole", "slow"):
                self.wfile.write(CONTENT[50_000:])
        self.close_connection = True

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def files(monkeypatch):
    """The server's address; requests are in `Files.asked`."""
    monkeypatch.setattr(Files, "asked", [])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def get(files, alone, run_eval):
    """Runs `rlfr-eval fetch --vlm` on a benchmark whose file the server sends in this way, into `lmu`."""

    def run(how="whole", *more, md5=MD5, name="Mine"):
        toml = alone / f"{name}.toml"
        toml.write_text(
            f'name = "{name}"\ntitle = "Mine"\nlicence = "MIT"\nn = 9000\nvlmeval = "{name}"\n'
            f'md5 = "{md5}"\nurl = "{files}/{how}"\n'
        )
        return run_eval("fetch", "--vlm", str(toml), "--data-dir", "lmu", *more)

    return run


def left(alone):
    return sorted(path.name for path in (alone / "lmu").iterdir()) if (alone / "lmu").exists() else []


@pytest.mark.parametrize("how", ["whole", "moved"])
def test_what_comes_is_kept_and_locked(get, files, alone, how):
    code, out, err = get(how)
    assert code == 0, err
    assert (alone / "lmu" / "Mine.tsv").read_bytes() == CONTENT
    assert json.loads((alone / "lmu" / "rlfr-eval.lock.json").read_text()) == {
        "Mine": {"source": f"{files}/{how}", "revision": "", "content_sha256": MD5, "hash": "md5", "licence": "MIT"}
    }
    assert left(alone) == ["Mine.tsv", "rlfr-eval.lock.json"]
    assert f"Mine: hash {MD5[:12]}, licence MIT, from {files}/{how}" in out
    asked = len(Files.asked)
    assert get(how)[0] == 0 and len(Files.asked) == asked  # it is there: nobody is asked


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "Only 50000 of 117028 bytes of"),
        ("chunked", "Cannot get"),
        ("missing", "Not Found"),
        ("nonsense", "Cannot get"),
    ],
)
def test_half_a_file_is_never_left(get, alone, how, says):
    code, _, err = get(how, md5="")
    assert code == 2 and says in err and "Traceback" not in err and left(alone) == []
    assert get()[0] == 0 and (alone / "lmu" / "Mine.tsv").read_bytes() == CONTENT


def test_another_copy_is_refused(get, alone):
    code, _, err = get(md5="0" * 32)
    assert code == 2 and f"sent has the MD5 {MD5}; VLMEvalKit's copy has {'0' * 32}. Nothing was kept." in err
    assert left(alone) == []
    assert get("whole", "--relock", md5="0" * 32)[0] == 2 and left(alone) == []  # it accepts no wrong download


def test_a_users_file_stays(get, alone):
    path = alone / "lmu" / "Mine.tsv"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    code, _, err = get()
    assert code == 2 and "is not VLMEvalKit's copy of Mine" in err and path.read_bytes() == b"mine"
    assert get("whole", "--relock")[0] == 0 and path.read_bytes() == b"mine" and not Files.asked
    entry = json.loads((alone / "lmu" / "rlfr-eval.lock.json").read_text())["Mine"]
    assert entry["content_sha256"] == hashlib.md5(b"mine").hexdigest() and entry["source"] == "a file that was there"
    path.unlink()  # what was locked must come again
    code, _, err = get()
    assert code == 2 and "the one that was locked has" in err and left(alone) == ["rlfr-eval.lock.json"]
    assert get("whole", "--relock")[0] == 0 and path.read_bytes() == CONTENT


def test_a_file_that_appears_meanwhile_stays(get, alone, monkeypatch):
    path = alone / "lmu" / "Mine.tsv"
    monkeypatch.setattr(Files, "meanwhile", lambda self: path.write_bytes(b"mine"))
    code, _, err = get()
    assert code == 2 and "It stays" in err and path.read_bytes() == b"mine" and left(alone) == ["Mine.tsv"]


def test_a_server_that_stalls_is_given_up(get, alone, monkeypatch):
    monkeypatch.setattr("rlfr_eval.benchmarks.vlm_fetch.TIME_LIMIT", 0.3)
    gone = threading.Event()
    monkeypatch.setattr(Files, "meanwhile", lambda self: gone.wait(20))
    code, _, err = get()
    gone.set()
    assert code == 2 and "timed out" in err and left(alone) == []


def test_one_that_fails_does_not_stop_the_others(get, alone, run_eval):
    assert get(name="Other", how="missing")[0] == 2
    assert get(name="Mine")[0] == 0
    (alone / "lmu" / "Mine.tsv").unlink()
    code, out, err = run_eval("fetch", "--vlm", "Other.toml", "Mine.toml", "--data-dir", "lmu", "--json")
    assert code == 2 and list(json.loads(out)) == ["Mine"] and "Other: Cannot get" in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ended_half_way_and_run_again(get, files, alone, monkeypatch, how):
    """Ctrl-C leaves nothing; what a kill leaves is hidden, and gone after the next call."""
    began, gone = threading.Event(), threading.Event()

    def wait(self):
        began.set()
        gone.wait(30)

    monkeypatch.setattr(Files, "meanwhile", wait)
    get("missing")  # writes the benchmark's file
    toml = alone / "Mine.toml"
    toml.write_text(toml.read_text().replace("missing", "slow"))
    command = [sys.executable, "-c", FETCH, "fetch", "--vlm", "Mine.toml", "--data-dir", "lmu"]
    ours = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert began.wait(30)
    until = time.monotonic() + 30
    while ".Mine.tsv.part" not in left(alone) and time.monotonic() < until:
        time.sleep(0.01)
    code, _, err = get("slow")
    assert code == 2 and "Another process is getting Mine.tsv" in err
    ours.send_signal(how)
    _, err = ours.communicate(timeout=20)
    gone.set()
    assert left(alone) == ([] if how == signal.SIGINT else [".Mine.tsv.part"]) and "Traceback" not in err
    assert ours.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert get("slow")[0] == 0 and (alone / "lmu" / "Mine.tsv").read_bytes() == CONTENT
    assert left(alone) == ["Mine.tsv", "rlfr-eval.lock.json"]


def test_a_server_that_cannot_be_reached_is_tried_once_for_all_of_its_files(alone, run_eval, monkeypatch):
    asked = []

    def refuse(url, timeout):
        asked.append(url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    for name, host in (("One", "a.example"), ("Two", "a.example"), ("Three", "b.example")):
        (alone / f"{name}.toml").write_text(
            f'name = "{name}"\ntitle = "T"\nlicence = "MIT"\nn = 1\nvlmeval = "{name}"\nurl = "http://{host}/{name}.tsv"\n'
        )
    code, _, err = run_eval("fetch", "--vlm", "One.toml", "Two.toml", "Three.toml", "--data-dir", "lmu")
    assert code == 2 and asked == ["http://a.example/One.tsv", "http://b.example/Three.tsv"]
    assert "Two: a.example could not be reached before, so it is not tried again." in err
