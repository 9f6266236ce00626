"""Keys are sent only to their own server, are masked where they are shown or stored, and change no answer."""

import json
import sys

import pytest

from rlfr_vlm.judging.choice import OPENAI
from rlfr_vlm.judging.known_cases import KNOWN_CASES
from tests.eval.conftest import question_of
from tests.eval.stub_server import IMPORTS
from tests.page_data import page_data

pytestmark = pytest.mark.usefixtures("without_figures")
KEY = "sk-key-beside-the-other-server"
SECRET = "Zq7hidden"  # part of every secret below, and of nothing else
NAMES = [  # setting of the address, setting of the key
    ("JUDGE_BASE_URL", "JUDGE_API_KEY"),
    ("API_URL", "OPENAI_API_KEY"),
    ("OPENAI_API_BASE", "OPENAI_API_KEY"),
    ("CLIENT_IP", "OPENAI_API_KEY"),
]
OTHER = "http://127.0.0.1:9/v1"  # nothing listens here


def silent(body, n):
    return "no verdict"


@pytest.fixture
def dotenv(alone):
    """Writes `.env` in the working directory."""

    def write(**values):
        (alone / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    return write


@pytest.fixture
def environment(monkeypatch):
    """Sets environment variables."""

    def write(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return write


def check_refused(server, code, err):
    assert server.keys == [] and server.requests == []
    assert code == 2 and ".env" in err and "environment" in err and KEY not in err


# 1. The server that gets a key


@pytest.mark.parametrize(("url", "key"), NAMES)
def test_key_beside_an_address_in_the_file_is_not_sent_to_the_environments_address(
    dotenv, environment, serve, run_eval, url, key
):
    """A key in `.env` beside server A is an error if the environment replaces A by server B."""
    server = serve(silent)
    dotenv(**{url: OTHER, key: KEY})
    environment(**{url: server.url})
    code, _, err = run_eval("judge", "check")
    check_refused(server, code, err)


def test_run_with_a_key_of_another_server_sends_nothing(dotenv, environment, serve, toy, run_eval, alone):
    """`rlfr-eval lm` refuses such a key before the policy or the judge is asked."""
    server, policy = serve(silent), serve(lambda body, n: "\\boxed{0}")
    dotenv(JUDGE_BASE_URL=OTHER, JUDGE_API_KEY=KEY)
    environment(JUDGE_BASE_URL=server.url)
    code, _, err = run_eval("lm", "--base-url", policy.url, "--suite", toy(), "--data-dir", "data", "--out", "run")
    check_refused(server, code, err)
    assert policy.requests == []


def test_regrade_with_a_key_of_another_server_sends_nothing(dotenv, environment, serve, toy, run_eval, alone):
    """`rlfr-eval regrade` refuses such a key before the judge is asked."""
    server, policy = serve(silent), serve(lambda body, n: "\\boxed{the cold}")
    rows = [{"id": "t", "problem": "Why?", "answer": "because of the winter"}]
    run_eval("lm", "--base-url", policy.url, "--suite", toy(rows=rows), "--data-dir", "data", "--out", "run")
    dotenv(JUDGE_BASE_URL=OTHER, JUDGE_API_KEY=KEY)
    environment(JUDGE_BASE_URL=server.url)
    code, _, err = run_eval("regrade", "run")
    check_refused(server, code, err)


@pytest.mark.parametrize("word", ["", "none"])
def test_key_is_not_sent_to_an_address_under_another_name(dotenv, environment, serve, run_eval, word):
    """A key in `.env` beside server A is an error if the environment unsets A and names B with another setting."""
    server = serve(silent)
    dotenv(JUDGE_BASE_URL=OTHER, JUDGE_API_KEY=KEY)
    environment(JUDGE_BASE_URL=word, API_URL=server.url)
    code, _, err = run_eval("judge", "check")
    check_refused(server, code, err)


def test_key_beside_an_address_is_not_sent_to_the_default_server(dotenv, environment, run_eval):
    """A key in `.env` beside server A is not for OpenAI's server, which is used if the environment unsets A."""
    dotenv(JUDGE_BASE_URL=OTHER, JUDGE_API_KEY=KEY)
    environment(JUDGE_BASE_URL="none", USED_MODEL="gpt")
    code, out, err = run_eval("settings")
    assert code == 2 and KEY not in out + err


@pytest.mark.parametrize(("url", "key"), NAMES)
def test_key_in_the_file_is_not_sent_to_a_server_of_the_command_line(dotenv, serve, run_eval, url, key):
    """A server named by `--judge-base-url` never gets the key that stands beside another server in `.env`."""
    server = serve(silent)
    dotenv(**{url: OTHER, key: KEY})
    run_eval("judge", "check", "--judge-base-url", server.url)
    assert not any(KEY in header for header in server.keys)


@pytest.mark.parametrize(("url", "key"), NAMES)
def test_key_in_the_environment_is_not_sent_to_a_server_of_the_command_line(environment, serve, run_eval, url, key):
    """A server named by `--judge-base-url` never gets the key that stands beside another server in the environment."""
    server = serve(silent)
    environment(**{url: OTHER, key: KEY})
    run_eval("judge", "check", "--judge-base-url", server.url)
    assert not any(KEY in header for header in server.keys)


def test_key_is_not_sent_to_a_third_server_of_the_command_line(dotenv, environment, serve, run_eval):
    """The address beside a key counts even if the environment and the command line both replace it."""
    server = serve(silent)
    dotenv(JUDGE_BASE_URL=OTHER, JUDGE_API_KEY=KEY)
    environment(JUDGE_BASE_URL="http://127.0.0.1:7/v1")
    run_eval("judge", "check", "--judge-base-url", server.url)
    assert not any(KEY in header for header in server.keys)


@pytest.mark.parametrize("level", ["environment", ".env"])
@pytest.mark.parametrize(("url", "key"), NAMES)
def test_key_is_sent_to_the_server_beside_it(dotenv, environment, serve, run_eval, url, key, level):
    """A key and an address in the same place belong together."""
    server = serve(silent)
    (environment if level == "environment" else dotenv)(**{url: server.url, key: KEY})
    run_eval("judge", "check")
    assert server.requests and set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("level", ["environment", ".env", "command line"])
def test_key_without_an_address_beside_it_is_sent_to_the_only_server(dotenv, environment, serve, run_eval, level):
    """A key belongs to the only address there is, wherever that stands."""
    server, flags = serve(silent), []
    (dotenv if level == "environment" else environment)(JUDGE_API_KEY=KEY)
    if level == "environment":
        environment(JUDGE_BASE_URL=server.url)
    elif level == ".env":
        dotenv(JUDGE_BASE_URL=server.url)
    else:
        flags = ["--judge-base-url", server.url]
    run_eval("judge", "check", *flags)
    assert server.requests and set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("level", ["environment", ".env"])
def test_key_and_the_same_address_twice_belong_together(dotenv, environment, serve, run_eval, level):
    """The same address in both places is one server."""
    server = serve(silent)
    dotenv(JUDGE_BASE_URL=server.url.removesuffix("/v1"), **({"JUDGE_API_KEY": KEY} if level == ".env" else {}))
    environment(JUDGE_BASE_URL=server.url, **({"JUDGE_API_KEY": KEY} if level == "environment" else {}))
    run_eval("judge", "check")
    assert server.requests and set(server.keys) == {f"Bearer {KEY}"}


def test_key_of_the_environment_replaces_the_files_for_the_environments_server(dotenv, environment, serve, run_eval):
    """A whole pair in the environment replaces a whole pair in `.env`."""
    server = serve(silent)
    dotenv(JUDGE_BASE_URL=OTHER, JUDGE_API_KEY="sk-of-the-file")
    environment(JUDGE_BASE_URL=server.url, JUDGE_API_KEY=KEY)
    run_eval("judge", "check")
    assert server.requests and set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("level", ["environment", ".env"])
def test_key_and_a_model_without_an_address_mean_the_default_server(dotenv, environment, run_eval, level):
    """A model and a key alone name OpenAI's server."""
    (environment if level == "environment" else dotenv)(OPENAI_API_KEY=KEY, USED_MODEL="gpt")
    code, out, err = run_eval("settings")
    assert code == 0 and f"gpt at {OPENAI}" in out and KEY not in out + err


@pytest.mark.parametrize("level", ["environment", ".env"])
def test_policys_key_is_sent_to_the_policy_and_the_judges_to_the_judge(
    dotenv, environment, serve, toy, run_eval, level
):
    """RLFR_EVAL_API_KEY is for the server at `--base-url` and for no other."""
    policy, server = serve(lambda body, n: "\\boxed{0}"), serve(silent)
    put = environment if level == "environment" else dotenv
    put(RLFR_EVAL_API_KEY="sk-of-the-policy", JUDGE_BASE_URL=server.url, JUDGE_API_KEY=KEY)
    run_eval("lm", "--base-url", policy.url, "--suite", toy(), "--data-dir", "data", "--out", "run", "--judge-force")
    assert policy.requests and set(policy.keys) == {"Bearer sk-of-the-policy"}
    assert server.requests and set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", ["JUDGE_API_KEY", "OPENAI_API_KEY"])
def test_policy_without_a_key_gets_no_other_key(dotenv, environment, serve, toy, run_eval, key):
    """A judge's key is not for the server at `--base-url`."""
    policy = serve(lambda body, n: "\\boxed{0}")
    environment(**{key: KEY})
    run_eval("lm", "--base-url", policy.url, "--suite", toy(), "--data-dir", "data", "--out", "run")
    assert policy.requests and not any(KEY in header for header in policy.keys)


@pytest.mark.parametrize(("url", "key"), NAMES[1:])
def test_a_pair_in_the_file_keeps_its_key_beside_a_global_one(dotenv, environment, serve, run_eval, url, key):
    """A key in the environment without an address does not replace the key of a pair in `.env`."""
    server = serve(silent)
    dotenv(**{url: server.url, key: "sk-of-the-pair"})
    environment(**{key: KEY})
    run_eval("judge", "check")
    assert server.requests and set(server.keys) == {"Bearer sk-of-the-pair"}


@pytest.mark.parametrize("level", ["environment", "command line"])
def test_a_key_beside_a_model_alone_is_for_openais_server(dotenv, environment, serve, run_eval, level):
    """A model and a key without an address mean OpenAI's server, also if another server is named elsewhere."""
    server = serve(silent)
    dotenv(JUDGE_MODEL="m", JUDGE_API_KEY=KEY)
    if level == "environment":
        environment(JUDGE_BASE_URL=server.url)
    run_eval("judge", "check", *(["--judge-base-url", server.url] if level == "command line" else []))
    assert not any(KEY in header for header in server.keys)


def test_two_spellings_of_one_server_share_its_key(dotenv, environment, serve, run_eval):
    """`localhost` and 127.0.0.1 are one server, and JUDGE_BASE_URL may repeat the address of API_URL."""
    server = serve(silent)
    dotenv(API_URL=server.url.replace("127.0.0.1", "localhost"), OPENAI_API_KEY=KEY)
    environment(JUDGE_BASE_URL=server.url)
    run_eval("judge", "check")
    assert server.requests and set(server.keys) == {f"Bearer {KEY}"}


# 2. Masks in what is shown and stored


OPTIONS = {  # spelling of a secret -> arguments of a command
    "option": f"--api-key {SECRET}",
    "option with =": f"--api-key={SECRET}",
    "plural": f"--api-keys {SECRET}",
    "plural with =": f"--api-keys={SECRET}",
    "several values": f"--api-keys {SECRET}1 {SECRET}2 {SECRET}3",
    "several values before an option": f"--api-keys {SECRET}1 {SECRET}2 --max-tokens 512",
    "underscore": f"--api_key {SECRET}",
    "underscore plural with =": f"--api_keys={SECRET}",
    "capitals": f"--API-KEY {SECRET}",
    "one dash": f"-api-key {SECRET}",
    "quoted": f'--api-key "{SECRET} with {SECRET}"',
    "quoted once more": f"--api-key '{SECRET} with {SECRET}'",
    "quoted with =": f'--api-key="{SECRET} with {SECRET}"',
    "two spaces": f"--api-key  {SECRET}",
    "tab": f"--api-key\t{SECRET}",
    "token": f"--hf-token {SECRET}",
    "token with =": f"--hf_token={SECRET}",
    "bare token": f"--token {SECRET}",
    "secret": f"--client-secret {SECRET}",
    "password": f"--ssl-keyfile-password {SECRET}",
    "authorization": f"--authorization {SECRET}",
    "header": f'-H "Authorization: Bearer {SECRET}"',
    "header of one word": f"-H Authorization:{SECRET}",
    "lower case header": f"--header 'authorization: Basic {SECRET}'",
    "header with =": f'--header="Authorization: Bearer {SECRET}"',
    "header of a key": f'-H "X-Api-Key: {SECRET}"',
    "user and password": f"--proxy http://me:{SECRET}@host/v1",
    "user": f"--proxy https://{SECRET}@host/v1",
    "query": f"--callback http://host/v1?key={SECRET}",
    "second part of a query": f"--callback 'http://host/v1?a=1&sig={SECRET}'",
    "JSON": f"""--config '{{"api_key": "{SECRET}"}}'""",
    "nested JSON": f"""--config '{{"a": [{{"b": {{"token": "{SECRET}"}}}}]}}'""",
    "JSON list": f"""--config '{{"api_keys": ["{SECRET}1", "{SECRET}2"]}}'""",
    "JSON header": f"""--config '{{"headers": {{"Authorization": "Bearer {SECRET}"}}}}'""",
    "JSON with escaped quotes": f"""--config "{{\\"api_key\\": \\"{SECRET}\\"}}" """.strip(),
}
ASSIGNMENTS = {
    "assignment": f"env API_KEY={SECRET}",
    "assignment of a token": f"env HF_TOKEN={SECRET}",
    "lower case assignment": f"env api_key={SECRET}",
    "quoted assignment": f'env OPENAI_API_KEY="{SECRET} with {SECRET}"',
    "second assignment": f"env MODE=fast AWS_SECRET_ACCESS_KEY={SECRET}",
    "assignment of a password": f"env DB_PASSWORD={SECRET}",
}
COMMANDS = {
    **{name: f"serve {{model}} --port {{port}} {text}" for name, text in OPTIONS.items()},
    **{name: f"{text} serve {{model}}" for name, text in ASSIGNMENTS.items()},
    "assignment without env": f"API_KEY={SECRET} serve {{model}}",
    "a shell's command": f"bash -c 'API_KEY={SECRET} serve --token {SECRET}'",
}
HARMLESS = [
    "--max-tokens 512",
    "--max-model-len 8192",
    "--tokenizer /models/tokenizer",
    "--tokenizer=/models/tokenizer",
    "--tokenizer-mode auto",
    "--max-num-batched-tokens 2048",
    "--num-speculative-tokens=5",
    "--skip-tokenizer-init --port 8000",
    "--stop-token-ids 151643",
    '--config \'{"max_tokens": 512, "tokenizer": "/models/tokenizer"}\'',
    "--url http://host:8000/v1",
    "env CUDA_VISIBLE_DEVICES=0,1",
]


@pytest.mark.parametrize("name", ["JUDGE_CMD", "RLFR_EVAL_SERVER_CMD"])
@pytest.mark.parametrize("spelling", COMMANDS)
def test_settings_masks_secrets_in_commands(environment, run_eval, name, spelling):
    """`rlfr-eval settings` prints no secret of a command, as text and as JSON."""
    environment(**{name: COMMANDS[spelling]})
    for more in ([], ["--json"]):
        _, out, err = run_eval("settings", *more)
        assert SECRET not in out + err and "serve" in out


@pytest.mark.parametrize("text", HARMLESS)
def test_settings_prints_harmless_parts_of_commands(environment, run_eval, text):
    """Options that only resemble secrets are printed whole."""
    command = f"serve {text} --more {{model}}"
    environment(JUDGE_CMD=command)
    code, out, _ = run_eval("settings", "--json")
    assert code == 0 and json.loads(out)["settings"]["JUDGE_CMD"]["value"] == command


ADDRESSES = [
    f"http://host/v1?key={SECRET}",
    f"http://host/v1?a=1&b={SECRET}",
    f"host/v1?key={SECRET}",
    f"http://host/v1#{SECRET}",
    f"http://me:{SECRET}@host/v1",
    f"me:{SECRET}@host/v1",
]
BODIES = [
    {"api_key": SECRET},
    {"API-Key": SECRET},
    {"extra_headers": {"Authorization": f"Bearer {SECRET}"}},
    {"a": [{"b": {"token": SECRET}}]},
    {"api_keys": [f"{SECRET}1", f"{SECRET}2"]},
    {"credentials": {"password": {"first": SECRET}}},
    {"client_secret": SECRET, "enable_thinking": False},
    {"callback": f"http://host/v1?key={SECRET}"},
    {"callback": f"http://me:{SECRET}@host/v1"},
    {"extra_headers": [f"Authorization: Bearer {SECRET}"]},
]


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
def test_settings_masks_secrets_in_the_judges_extra_body(environment, run_eval, body):
    """`rlfr-eval settings` prints no secret field of JUDGE_EXTRA_BODY, at any depth."""
    environment(JUDGE_EXTRA_BODY=json.dumps({"seen": 1, **body}))
    for more in ([], ["--json"]):
        _, out, err = run_eval("settings", *more)
        assert SECRET not in out + err and "seen" in out


def test_settings_prints_harmless_fields_of_the_judges_extra_body(environment, run_eval):
    """Fields that only resemble secrets are printed whole."""
    body = {
        "max_completion_tokens": 512,
        "stop_token_ids": [151643],
        "skip_special_tokens": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    environment(JUDGE_EXTRA_BODY=json.dumps(body))
    shown = json.loads(run_eval("settings", "--json")[1])["settings"]["JUDGE_EXTRA_BODY"]["value"]
    assert json.loads(shown) == body


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("name", ["JUDGE_BASE_URL", "API_URL", "OPENAI_API_BASE", "CLIENT_IP"])
def test_settings_masks_secrets_in_addresses(environment, run_eval, name, url):
    """`rlfr-eval settings` prints no query, user name or password of an address."""
    environment(**{name: url})
    for more in ([], ["--json"]):
        _, out, err = run_eval("settings", *more)
        assert SECRET not in out + err and "host/v1" in out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("JUDGE_EXTRA_BODY", f'{{"api_key": "{SECRET}"'),
        ("JUDGE_CMD", f"serve --api-keys {SECRET} 'unbalanced"),
        ("API_URL", f"http://host:port/v1?key={SECRET}"),
    ],
)
def test_messages_about_settings_print_no_secret(environment, run_eval, name, text):
    """The message about a setting that cannot be read masks the setting's secrets."""
    environment(**{name: text})
    if name != "API_URL":
        environment(**({"LOCAL_LLM": "judge"} if name == "JUDGE_CMD" else {"JUDGE_BASE_URL": OTHER}))
    code, out, err = run_eval("judge", "check")
    assert code == 2 and SECRET not in out + err


SERVER = (
    IMPORTS
    + """
class Handler(JsonHandler):
    def do_GET(self):
        self.reply({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]})
    def do_POST(self):
        self.reply(completion(self.body().get("model"), "so \\\\boxed{0}"))

serve(Handler, int(sys.argv[1]))
"""
)
STORED = ("run/run.json", "run/report.md", "run/report.html", "run/scores.json", "run/samples.jsonl")


def stored_with_secret(alone):
    """Files of the run that hold the secret."""
    texts = {name: (alone / name).read_text() for name in STORED}
    texts["report.html's data"] = json.dumps(page_data(texts["run/report.html"]))
    return [name for name, text in texts.items() if SECRET in text]


@pytest.fixture
def measure(toy, run_eval, monkeypatch):
    """Runs `rlfr-eval lm` and `report` as a terminal does; returns exit code and all output of both."""

    def run(*arguments, suite=None):
        command = ["lm", "--suite", suite or toy(), "--data-dir", "data", "--out", "run", *arguments]
        monkeypatch.setattr(sys, "argv", ["rlfr-eval", *command])  # run.json has the command of the process
        code, out, err = run_eval(*command)
        monkeypatch.setattr(sys, "argv", ["rlfr-eval", "report", "run"])
        return code, out + err + "".join(map(str, run_eval("report", "run")))

    return run


@pytest.fixture
def server_script(alone):
    """A server that ignores all arguments but its port."""
    path = alone / "server.py"
    path.write_text(SERVER)
    return f"{sys.executable} {path} {{port}}"


GROUPS = {
    "options": [text for name, text in OPTIONS.items() if "header" not in name and "JSON" not in name],
    "headers": [text for name, text in OPTIONS.items() if "header" in name],
    "JSON": [text for name, text in OPTIONS.items() if "JSON" in name],
}


@pytest.mark.parametrize("group", [*GROUPS, "assignments"])
def test_run_files_hold_no_secret_of_the_server_command(measure, server_script, alone, group):
    """`--server-cmd` reaches run.json, report.md and report.html without its secrets, and with its harmless parts."""
    arguments = " --end ".join(GROUPS.get(group, []))
    before = " ".join(text.removeprefix("env ") for text in ASSIGNMENTS.values()) if group == "assignments" else "A=1"
    command = f"env {before} {server_script} {arguments} --max-tokens 512 --tokenizer /models/tok"
    code, shown = measure("--model", "m", "--server-cmd", command)
    assert code == 0, shown
    assert stored_with_secret(alone) == [] and SECRET not in shown
    record = json.loads((alone / "run" / "run.json").read_text())
    assert "--max-tokens 512 --tokenizer /models/tok" in str(record["model"]["served_by"])
    assert "--max-tokens 512 --tokenizer /models/tok" in (alone / "run" / "report.md").read_text()


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
def test_run_files_hold_no_secret_of_the_extra_body(measure, serve, toy, alone, body):
    """`--extra-body` reaches the server whole, and run.json, report.md and report.html without its secrets."""
    server = serve(lambda body, n: "\\boxed{0}")
    arguments = ("--base-url", server.url, "--extra-body", json.dumps({"stop_token_ids": [151643], **body}))
    code, shown = measure(*arguments)
    assert code == 0, shown
    assert body.items() <= server.requests[0].items()
    assert stored_with_secret(alone) == [] and SECRET not in shown
    assert "151643" in (alone / "run" / "run.json").read_text()
    asked = len(server.requests)
    assert measure(*arguments)[0] == 0 and len(server.requests) == asked  # the same run goes on


# 3. Answers are never redacted


def answering(texts):
    """A policy that answers problem `What is I plus I?` with `texts[I]`."""
    return lambda body, n: texts[int(question_of(body).split("What is ")[1].split()[0])]


def samples_of(folder):
    return {row["problem"]: row for row in map(json.loads, (folder / "samples.jsonl").read_text().splitlines())}


def test_answer_that_contains_the_key_is_stored_as_it_came(environment, serve, toy, run_eval, alone):
    """An answer with the text of the policy's key in it is the same in samples.jsonl, `show` and the page."""
    environment(RLFR_EVAL_API_KEY="test")
    server = serve(lambda body, n: "A paired comparison: \\boxed{t-test}")
    rows = [{"id": "p0", "problem": "Which one?", "answer": "t-test"}]
    run_eval("lm", "--base-url", server.url, "--suite", toy(rows=rows), "--data-dir", "data", "--out", "run")
    row = samples_of(alone / "run")["p0"]
    assert row["raw"] == "A paired comparison: \\boxed{t-test}" and row["extracted"] == "t-test"
    assert "(secret)" not in run_eval("show", "run", "--id", "p0")[1]
    assert "boxed{t-test}" in run_eval("show", "run", "--id", "p0")[1]
    run_eval("report", "run")
    answers = page_data((alone / "run" / "report.html").read_text())["answers"]
    assert [(answer["raw"], answer["extracted"]) for answer in answers] == [(row["raw"], "t-test")]


def test_answer_that_contains_the_key_is_graded_as_it_came(environment, serve, toy, run_eval, scores, alone):
    """An answer that equals the policy's key is right where the gold is the same number."""
    environment(RLFR_EVAL_API_KEY="1234")
    server = serve(answering(["\\boxed{1234}"]))
    rows = [{"id": "p0", "problem": "What is 0 plus 1234?", "answer": "1234"}]
    run_eval("lm", "--base-url", server.url, "--suite", toy(rows=rows), "--data-dir", "data", "--out", "run")
    assert scores(alone / "run")["benchmarks"]["toy"]["right"] == 1


def test_reasoning_that_contains_the_key_is_stored_as_it_came(environment, serve, make_reaction, toy, run_eval, alone):
    """Reasoning that the server separates from the answer is stored unchanged, too."""
    environment(RLFR_EVAL_API_KEY="winter")
    message = {"role": "assistant", "content": "\\boxed{0}", "reasoning_content": "It is cold in winter."}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    server = serve(lambda body, n: make_reaction(raw=json.dumps(reply).encode()))
    run_eval("lm", "--base-url", server.url, "--suite", toy(1), "--data-dir", "data", "--out", "run")
    assert "It is cold in winter." in (alone / "run" / "samples.jsonl").read_text()


def healthy_judge(body, n):
    """Agrees with the known cases, and with answers about the cold."""
    text = body["messages"][1]["content"]
    known = {case.answer: case.right for case in KNOWN_CASES if f"\n{case.question}\n" in text}
    right = next((right for answer, right in known.items() if f"\n{answer}\n" in text), "cold" in text)
    return f"I compared them.\nVERDICT {text.rsplit('VERDICT ', 1)[1][:6]}: {'CORRECT' if right else 'INCORRECT'}"


@pytest.mark.parametrize("key", ["compared", "VERDICT", "CORRECT"])
def test_judges_reply_that_contains_the_key_is_read_and_stored_as_it_came(
    environment, serve, toy, run_eval, scores, alone, key
):
    """A judge's reply with the text of the judge's key in it is the same for the reader, verdicts.jsonl and `show`."""
    server, policy = serve(healthy_judge), serve(lambda body, n: "\\boxed{the cold season came before}")
    environment(JUDGE_BASE_URL=server.url, JUDGE_API_KEY=key)
    rows = [{"id": "p0", "problem": "Why?", "answer": "because the winter was cold"}]
    code, _, err = run_eval(
        "lm", "--base-url", policy.url, "--suite", toy(rows=rows), "--data-dir", "data", "--out", "run"
    )
    assert code == 0, err
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert (one["right"], one["judged"], one["undecided"]) == (1, 1, 0)
    verdicts = [json.loads(line) for line in (alone / "run" / "verdicts.jsonl").read_text().splitlines()]
    assert [row["reply"].split("VERDICT ")[0] for row in verdicts if row["by"] == "judge"] == ["I compared them.\n"]
    assert "I compared them." in run_eval("show", "run", "--id", "p0")[1]
    run_eval("report", "run")
    assert "I compared them." in str(page_data((alone / "run" / "report.html").read_text())["answers"])


@pytest.mark.parametrize("status", [400, 401, 500])
def test_error_text_that_repeats_the_key_is_masked(environment, serve, make_reaction, toy, run_eval, alone, status):
    """Error texts and headers are no answers: the key in them is masked in messages and in failures.jsonl."""
    environment(RLFR_EVAL_API_KEY=KEY)
    headers = {"x-request-key": KEY}
    server = serve(lambda body, n: make_reaction(f"bad key {KEY}", status=status, headers=headers))
    code, out, err = run_eval(
        "lm", "--base-url", server.url, "--suite", toy(1), "--data-dir", "data", "--out", "run", "--max-tries", "1"
    )
    everything = "".join(path.read_text() for path in (alone / "run").iterdir() if path.is_file())
    assert code in (2, 3) and KEY not in out + err + everything and "(secret)" in err + everything


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"guided_json": {"key": {"type": "string"}}}, {"guided_json": {"key": {"type": "integer"}}}),
        ({"api_key": "one"}, {"api_key": "two"}),
    ],
)
def test_masked_settings_that_differ_are_told_apart(measure, serve, alone, first, second):
    """A mask must not make two configurations equal: their answers would mix in one folder."""
    server = serve(lambda body, n: "\\boxed{0}")
    assert measure("--base-url", server.url, "--limit", "1", "--extra-body", json.dumps(first))[0] == 0
    code, shown = measure("--base-url", server.url, "--extra-body", json.dumps(second))
    assert code == 2 and "extra_body_digest" in shown


def test_secrets_of_the_extra_body_are_masked_in_error_texts(measure, serve, make_reaction, alone):
    """A server may repeat the request in its error."""
    server = serve(lambda body, n: make_reaction(f"bad key {body.get('api_key')}", status=500))
    _, shown = measure("--base-url", server.url, "--max-tries", "1", "--extra-body", json.dumps({"api_key": SECRET}))
    assert SECRET not in shown + (alone / "run" / "failures.jsonl").read_text()
