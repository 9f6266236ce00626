"""Requests for jobs: what becomes of their values on a command line, and what is refused."""

import json

import pytest

from rlfr_eval.service.requests import COMMANDS, NOT_OF_REQUESTS, JobRequest, read_request
from rlfr_vlm.errors import UserError

URL = "http://127.0.0.1:1"
GOOD = {"command": "lm", "suite": ["math500"], "base_url": URL}


def test_options_become_words_that_the_command_reads_as_they_were_sent():
    sent = {
        "name": "step-1.a_b", "limit": 5, "temperature": 1, "time_limit": 2.5, "omit": ["seed", "top_p"],
        "system_prompt": "--model=x\n$(id) 'q'", "extra_body": {"stop": ["-"]}, "max-tokens": 7, "model": "m",
        "judge": "none", "prompt": "chat", "seed": None,
    }  # fmt: skip
    request = read_request({**GOOD, **sent})
    options = __import__(COMMANDS["lm"], fromlist=["parser"]).parser().parse_args(request.words())
    assert (options.suite, options.base_url, options.model, options.limit) == (["math500"], URL, "m", 5)
    assert (options.temperature, options.time_limit, options.omit) == (1.0, 2.5, ["seed", "top_p"])
    assert options.system_prompt == "--model=x\n$(id) 'q'" and json.loads(options.extra_body) == {"stop": ["-"]}
    assert (options.max_tokens, options.seed, options.judge) == (7, None, "none")
    assert (request.name, request.base_url) == ("step-1.a_b", "http://127.0.0.1:1/v1")


def test_options_of_vlm():
    sent = {"command": "vlm", "data": "WeMath", "base_url": URL, "preset": "paper", "jpeg": True, "cross_check": False}
    request = read_request(sent)
    assert request.options == {"data": ["WeMath"], "base_url": URL, "preset": "paper", "jpeg": True}
    assert request.words() == ["--data", "WeMath", f"--base-url={URL}", "--preset=paper", "--jpeg"]


@pytest.mark.parametrize(("change", "message"), [
    ({"limits": 5}, r"lm has no option 'limits'\. Did you mean 'limit'\?"),
    ({"zzz": 5}, r"lm has no option 'zzz'\. Known: command, name, hold_model, model, base_url, "),
    ({"data": ["WeMath"]}, r"lm has no option 'data'\."),
    ({"command": "regrade"}, r"command is 'regrade'; it is one of lm, vlm\."),
    ({"command": ["lm"]}, r"command is \['lm'\]; it is one of lm, vlm\."),
    ({"suite": ["math5000"]}, r"Unknown benchmark 'math5000'\. Did you mean 'math500'\?"),
    ({"suite": []}, r"suite is \[\]; it is a list of texts"),
    ({"suite": ["math500", "--out=/x"]}, r"suite is '--out=/x'; no value begins with '-'"),
    ({"suite": {"a": 1}}, r"suite is \{'a': 1\}; it is a list of texts"),
    ({"model": "-m"}, r"model is '-m'; no value begins with '-'"),
    ({"model": "a\0b"}, r"model is 'a\\x00b'; it is a text, neither empty nor with a NUL"),
    ({"model": "\ud800"}, r"model holds half a character"),
    ({"model": 3}, r"model is 3; it is a text"),
    ({"base_url": "ftp://x"}, r"--base-url is 'ftp://x', which is no address"),
    ({"base_url": "http://me:secretword@h"}, r"--base-url holds a user name or password"),
    ({"limit": "5"}, r"limit is '5'; it is a whole number"),
    ({"limit": True}, r"limit is True; it is a whole number"),
    ({"limit": 0}, r"--limit is 0; it must be at least 1"),
    ({"temperature": float("inf")}, r"temperature is inf; it is a number"),
    ({"temperature": float("nan")}, r"temperature is nan; it is a number"),
    ({"temperature": 10**400}, r"temperature is 10+; it is a number"),
    ({"seed": -(2**53)}, r"seed is -9007199254740992; it is a whole number"),
    ({"omit": ["nothing"]}, r"(?i)argument --omit: invalid choice: 'nothing'"),
    ({"extra_body": {"api_key": "k-123456"}}, r"extra_body holds a key"),
    ({"extra_body": '{"headers": {"Authorization": "k"}}'}, r"extra_body holds a key"),
    ({"extra_body": {"model": "x"}}, r"--extra-body holds model, which has an option of its own"),
    ({"extra_body": [1]}, r"extra_body is \[1\]; it is a text"),
    ({"hold_model": "yes"}, r"hold_model is 'yes'; it is true or false"),
    ({"hold_model": True}, r"hold_model goes with a model's folder"),
    ({"base_url": None}, r"Say what to measure"),
    ({"base_url": None, "model": "/nowhere/at/all"}, r"--model /nowhere/at/all is no folder"),
    ({"max_tokens": 5, "max-tokens": 6}, r"max-tokens is given twice"),
])  # fmt: skip
def test_what_is_wrong_is_refused_with_one_message(change, message):
    with pytest.raises(UserError, match=message) as error:
        read_request({**GOOD, **change})
    assert "k-123456" not in str(error.value) and "secretword" not in str(error.value)


@pytest.mark.parametrize("option", NOT_OF_REQUESTS)
def test_no_request_names_a_folder_a_program_or_a_judge(option):
    for name in (option, option.replace("_", "-")):
        with pytest.raises(UserError, match=f"{name} is no part of a request: "):
            read_request({**GOOD, name: "x"})


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "/a", "../x", ".hidden", "-x", "a b", "a\n", "ä", "x" * 101, 5, None]
)
def test_a_name_is_a_plain_folder(name):
    with pytest.raises(UserError, match=r"name is .*; it is a folder's"):
        read_request({**GOOD, "name": name})


def test_every_other_option_of_the_commands_may_be_sent():
    """An option that is added to a command must be put into one of the two lists by intent."""
    mine = {
        *(
            "model",
            "base_url",
            "moved_from",
            "limit",
            "temperature",
            "top_p",
            "top_k",
            "max_tokens",
            "seed",
            "samples",
        ),
        *("system_prompt", "extra_body", "omit", "concurrency", "time_limit", "max_tries", "server_port", "adapter"),
        *("base_model", "judge", "data_dir"),
    }
    own = {
        "lm": {"suite", "prompt"},
        "vlm": {"data", "preset", "min_pixels", "max_pixels", "jpeg", "cross_check", "keep_servers"},
    }
    for command, module in COMMANDS.items():
        actions = __import__(module, fromlist=["parser"]).parser()._actions
        assert {action.dest for action in actions} - {"help"} == mine | own[command] | set(NOT_OF_REQUESTS), command


def model_folder(folder, weights=b"w"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_a_model_folder_is_tied_to_its_weights(alone):
    folder = model_folder(alone / "checkpoint-1")
    request = read_request({**GOOD, "base_url": None, "model": "checkpoint-1"})
    assert request.options["model"] == str(folder) and len(request.fingerprint) == 16
    request.check_weights(folder)
    model_folder(folder, b"v")
    with pytest.raises(UserError, match="holds another model than when the job was submitted"):
        request.check_weights(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    folder.rmdir()
    with pytest.raises(UserError, match="is gone since the job was submitted"):
        request.check_weights(folder)


def test_pace_changes_no_answer_and_so_no_setting():
    slow = read_request({**GOOD, "concurrency": 1, "max_tries": 1, "time_limit": 5})
    assert slow.settings() == read_request(GOOD).settings() == {"command": "lm", "suite": ["math500"], "base_url": URL}
    assert read_request({**GOOD, "limit": 2}).settings() != slow.settings()
    assert isinstance(slow, JobRequest)
