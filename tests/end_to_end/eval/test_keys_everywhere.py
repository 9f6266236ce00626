"""A key in every place where one can stand: each reaches its own server alone, and no file, output or process."""

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

from rlfr_vlm.provenance import short_hash
from tests.end_to_end.eval.test_judged_runs import ROWS, judge, policy
from tests.eval.killing import COMMAND, commands_of_descendants
from tests.eval.stub_server import IMPORTS
from tests.eval.vlm import sets
from tests.page_data import page_data

PLACES = (
    "judge", "policy", "openai", "admin",  # JUDGE_API_KEY, RLFR_EVAL_API_KEY, OPENAI_API_KEY, OPENAI_ADMIN_KEY
    "header", "authorization", "organisation", "project",  # OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID, OPENAI_PROJECT_ID
    "judge field", "judge header", "policy field", "policy header",  # JUDGE_EXTRA_BODY, --extra-body
    "policy option", "policy variable", "policy command header",  # --server-cmd
    "judge option", "second judge option", "judge variable",  # JUDGE_CMD
    "address", "unknown option",  # API_URL, an option that does not exist
)  # fmt: skip
KEYS = {place: "sk-" + hashlib.sha256(place.encode()).hexdigest()[:32] for place in PLACES}
ENVIRONMENT = {
    "OPENAI_API_KEY": KEYS["openai"],  # beside no server, so that none gets it
    "OPENAI_ADMIN_KEY": KEYS["admin"],
    "OPENAI_ORG_ID": KEYS["organisation"],
    "OPENAI_PROJECT_ID": KEYS["project"],
    "OPENAI_CUSTOM_HEADERS": f"X-Api-Key: {KEYS['header']}\nAuthorization: Bearer {KEYS['authorization']}",
}
POLICY_BODY = {"api_key": KEYS["policy field"], "extra_headers": {"Authorization": f"Bearer {KEYS['policy header']}"}}
JUDGE_BODY = {"api_key": KEYS["judge field"], "extra_headers": {"Authorization": f"Bearer {KEYS['judge header']}"}}


def found_in(text):
    """Places whose key is part of a text."""
    text = text if isinstance(text, str) else text.decode(errors="replace")
    return {place for place, key in KEYS.items() if key in text}


@pytest.fixture
def setting(alone, monkeypatch):
    """Puts values into `.env` and into the environment."""

    def put(env_file, **environment):
        (alone / ".env").write_text("".join(f"{name}={value}\n" for name, value in env_file.items()))
        for name, value in {**ENVIRONMENT, **environment}.items():
            monkeypatch.setenv(name, value)

    return put


def watch(*arguments):
    """Run `rlfr-eval`; returns its exit code, its output, and the command lines of all processes that it started."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    ) as process:
        own, commands = [*COMMAND, *arguments], set()
        while process.poll() is None:
            for command in commands_of_descendants(process.pid).values():
                if command != own:  # a child that has not yet become its own program
                    commands.add(tuple(command))
            time.sleep(0.05)
        return process.returncode, process.stdout.read(), commands


def after_the_run(run_eval, *more):
    """All that other commands print about the run; `more` are further commands."""
    commands = (
        ["report", "run"], ["show", "run", "--id", "LogicVista/1/0"], ["show", "run", "--id", "t1"],
        ["compare", "run", "run"], ["settings"], ["settings", "--json"], ["regrade", "run"], *more,
    )  # fmt: skip
    return "".join(out + err for _, out, err in (run_eval(*command) for command in commands))


def check_files(alone):
    """No file of the run folder, the cache folder or beside them has a key, but `.env` and what servers noted."""
    files = [path for path in alone.parent.rglob("*") if path.is_file() and path.name != ".env"]
    files = [path for path in files if path.suffix != ".received"]
    names = {path.name for path in files}
    assert {"run.json", "samples.jsonl", "verdicts.jsonl", "failures.jsonl", "scores.json", "report.html"} <= names
    assert {"report.md", "judge.sqlite"} <= names
    for path in files:
        assert not found_in(path.read_bytes()), path
    assert not found_in(json.dumps(page_data((alone / "run" / "report.html").read_text())))


def complaining(script, make_reaction, about):
    """Repeats all that was sent in the error of requests that are `about` something, the first time each."""
    told = set()

    def reply(body, n):
        text = json.dumps(body)
        if about(text) and short_hash(text) not in told:
            told.add(short_hash(text))
            sent = {key: value for key, value in body.items() if key != "messages"}
            return make_reaction(f"refused: {reply.server.keys[-1]} {sent}", status=400)
        return script(body, n)

    return reply


@pytest.fixture
def check_running_servers(serve, make_reaction, setting, run_eval, alone):
    """Runs a command with two servers that quote what they were sent, and searches all that comes of it."""

    def check(kind, data, scripts, complaints):
        policy_script, judge_script = (
            complaining(script, make_reaction, lambda text, mark=mark: mark in text)
            for script, mark in zip(scripts, complaints, strict=True)
        )
        server, judging = policy_script.server, judge_script.server = serve(policy_script), serve(judge_script)
        setting(
            {
                "JUDGE_BASE_URL": judging.url,
                "JUDGE_API_KEY": KEYS["judge"],
                "JUDGE_EXTRA_BODY": json.dumps(JUDGE_BODY),
            },
            RLFR_EVAL_API_KEY=KEYS["policy"],
        )
        arguments = [kind, "--base-url", server.url, *data, "--out", "run", "--max-tries", "1",
                     "--extra-body", json.dumps(POLICY_BODY)]  # fmt: skip
        code, shown, commands = watch(*arguments)
        assert code == 3, shown
        assert "(secret)" in (alone / "run" / "failures.jsonl").read_text()
        assert "(secret)" in (alone / "run" / "verdicts.jsonl").read_text()
        # `sets.judge`, the judge of vlm, does not know the cases of `judge check`
        assert not found_in(shown + after_the_run(run_eval, *([["judge", "check"]] if kind == "lm" else [])))
        assert found_in("".join(server.received)) == {"policy", "policy field", "policy header"}
        assert found_in("".join(judging.received)) == {"judge", "judge field", "judge header"}
        assert commands and not any(found_in(" ".join(line)) for line in commands)
        check_files(alone)

    return check


def test_running_servers_of_lm_get_their_own_keys_alone(check_running_servers, toy):
    data = ["--suite", toy(rows=[*ROWS, {"id": "root", "problem": "Number 12?", "answer": "\\sqrt{144}"}])]
    check_running_servers("lm", [*data, "--data-dir", "data"], (policy, judge), ("Why 1?", "Why 2?"))


@pytest.mark.slow
def test_running_servers_of_vlm_get_their_own_keys_alone(check_running_servers, lmu):
    data = ["--data", "LogicVista", "MathVision_MINI", "--data-dir", str(lmu)]
    check_running_servers("vlm", data, (sets.policy, sets.judge), ("[LogicVista-1]", "(LogicVista-2)"))


SERVER = (
    IMPORTS
    + """
import os
from pathlib import Path

def note(text):
    with Path(sys.argv[2]).open("a") as stream:
        stream.write(text)

class Handler(JsonHandler):
    def do_GET(self):
        note(str(self.headers))
        self.reply({"object": "list", "data": [{"id": sys.argv[3], "object": "model", "created": 0, "owned_by": "x"}]})
    def do_POST(self):
        asked = self.body()
        note(f"{self.headers} {asked}")
        text = asked["messages"][-1]["content"]
        verdict = "VERDICT " + text.rsplit("VERDICT ", 1)[1][:6] + ": INCORRECT" if "VERDICT " in text else ""
        self.reply(completion(asked["model"], verdict or "\\\\boxed{the warm season came before}"))

note("".join(f"{name}={value} " for name, value in os.environ.items()))
serve(Handler, int(sys.argv[1]))
"""
)


def test_servers_that_are_started_here_have_their_own_keys_in_their_own_arguments(
    toy, setting, run_eval, monkeypatch, alone
):
    """A key that a user puts into a server's command is in that server's arguments alone."""
    script = alone / "server.py"
    script.write_text(SERVER)
    serving = f"{sys.executable} {script} {{port}}"
    setting(
        {
            "LOCAL_LLM": "a-judge",
            "JUDGE_CMD": f"env BAR_TOKEN={KEYS['judge variable']} {serving} judge.received {{name}} "
            f"--api-keys {KEYS['judge option']} {KEYS['second judge option']}",
            "JUDGE_EXTRA_BODY": json.dumps(JUDGE_BODY),
        },
        RLFR_EVAL_API_KEY=KEYS["policy"],
        JUDGE_API_KEY=KEYS["judge"],
    )
    command = (
        f"env FOO_TOKEN={KEYS['policy variable']} {serving} policy.received {{name}} "
        f"--api-key {KEYS['policy option']} -H 'X-Api-Key: {KEYS['policy command header']}'"
    )
    arguments = ["lm", "--model", "m", "--server-cmd", command, "--suite", toy(rows=ROWS[-4:]), "--data-dir", "data",
                 "--out", "run", "--judge-force", "--extra-body", json.dumps(POLICY_BODY)]  # fmt: skip
    code, shown, commands = watch(*arguments)
    assert code == 0, shown
    assert not found_in(shown + after_the_run(run_eval, ["judge", "check"]))
    servers = {line for line in commands if str(script) in line}
    assert found_in(" ".join(word for line in servers for word in line)) >= {
        "policy option", "policy command header", "judge option", "second judge option",
    }  # fmt: skip
    others = commands - servers
    assert any("rlfr_vlm.servers.supervisor" in line for line in others)
    assert not any(found_in(" ".join(line)) for line in others)
    # `openai` is a name that others' programs read, too, such as a proxy that JUDGE_CMD may start
    inherited = {"openai", "admin", "header", "authorization", "organisation", "project"}
    policys, judges = {"policy variable", "policy field", "policy header"}, {"judge variable", "judge field"}
    assert found_in((alone / "policy.received").read_text()) == policys | inherited
    assert found_in((alone / "judge.received").read_text()) == judges | {"judge header"} | inherited
    check_files(alone)


@pytest.mark.parametrize(
    ("env_file", "more", "message"),
    [
        ({"API_URL": f"http://127.0.0.1:9/v1?key={KEYS['address']}"}, [], "which may hold a key and is not sent"),
        ({"API_URL": f"http://me:{KEYS['address']}@127.0.0.1:9/v1"}, [], "holds a user name or password"),
        ({"JUDGE_EXTRA_BODY": f'{{"api_key": "{KEYS["judge field"]}"'}, [], "must be a JSON object"),
        ({}, ["--extra-body", f'{{"api_key": "{KEYS["policy field"]}"'], "must be a JSON object"),
        ({}, ["--judge-api-key", KEYS["unknown option"]], "nrecognized arguments: --judge-api-key"),
        ({}, [f"--judge-api-key={KEYS['unknown option']}"], "nrecognized arguments: --judge-api-key="),
    ],
)  # fmt: skip
def test_refused_settings_show_no_key_and_ask_nobody(serve, toy, setting, run_eval, alone, env_file, more, message):
    server, judging = serve(policy), serve(judge)
    address = {} if "API_URL" in env_file else {"JUDGE_BASE_URL": judging.url}
    setting({**address, **env_file})
    code, out, err = run_eval(
        "lm", "--base-url", server.url, "--suite", toy(rows=ROWS), "--data-dir", "data", "--out", "run", *more
    )
    assert code == 2 and message in err and not found_in(out + err)
    assert server.requests == judging.requests == []
    assert not any(found_in(path.read_bytes()) for path in alone.rglob("*") if path.is_file() and path.name != ".env")
