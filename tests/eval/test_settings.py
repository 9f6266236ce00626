"""Where settings come from, what is shown of them, and which judge they name."""

import json
from pathlib import Path

import pytest

from rlfr_vlm.env_settings import SETTINGS, load_settings, redact
from rlfr_vlm.errors import UserError
from rlfr_vlm.judging.choice import OPENAI, choose_judge
from rlfr_vlm.servers.urls import base_url

ROOT = Path(__file__).resolve().parents[2]

KEY = "sk-very-secret-key-1234567890"


def load(environment=None, flags=None, start=None):
    return load_settings(flags, environment or {}, start)


def test_flags_over_environment_over_file_over_defaults(alone):
    (alone / ".env").write_text("JUDGE_MODEL=file\nJUDGE_PORT=1\nAPI_URL=http://file\n")
    settings = load(
        {"JUDGE_MODEL": "environment", "JUDGE_PORT": "2"}, {"JUDGE_MODEL": "flag", "JUDGE_PORT": None}, alone
    )
    assert (settings["JUDGE_MODEL"], settings.origin("JUDGE_MODEL")) == ("flag", "command line")
    assert (settings["JUDGE_PORT"], settings.origin("JUDGE_PORT")) == ("2", "environment")
    assert (settings["API_URL"], settings.origin("API_URL")) == ("http://file", ".env")
    assert (settings["JUDGE_CONCURRENCY"], settings.origin("JUDGE_CONCURRENCY")) == ("16", "default")


def test_file_is_found_upwards_and_changes_no_environment(alone, monkeypatch):
    import os

    (alone / ".env").write_text(f"OPENAI_API_KEY={KEY}\nJUDGE_MODEL='a b'  # why\nexport USED_MODEL=$HOME\n")
    deep = alone / "a" / "b"
    deep.mkdir(parents=True)
    settings = load(start=deep)
    assert settings.env_file == alone / ".env"
    assert settings["JUDGE_MODEL"] == "a b" and settings["USED_MODEL"] == "$HOME"  # nothing is expanded
    assert "OPENAI_API_KEY" not in os.environ


@pytest.mark.parametrize("text", ["", "none", "None", "no_api", "  "])
def test_words_that_mean_none(text):
    assert load({"LOCAL_LLM": text})["LOCAL_LLM"] == ""


def test_misspelt_names_of_ours_fail_others_are_ignored(alone):
    (alone / ".env").write_text("JUDGE_MODLE=x\n")
    with pytest.raises(UserError, match=r"unknown name JUDGE_MODLE\. Did you mean 'JUDGE_MODEL'"):
        load(start=alone)
    (alone / ".env").write_text("HF_TOKEN=x\nWHATEVER=1\n")
    load(start=alone)


@pytest.mark.parametrize("text", ["many", "nan", "-1", "inf"])
def test_numbers_are_checked(text):
    with pytest.raises(UserError, match=r"JUDGE_CONCURRENCY is .* \(environment\); it must be a number from 1 on"):
        load({"JUDGE_CONCURRENCY": text}).number("JUDGE_CONCURRENCY", 1)


def test_keys_never_show(run_eval, alone):
    (alone / ".env").write_text(f"JUDGE_API_KEY={KEY}\nJUDGE_BASE_URL=http://127.0.0.1:9\n")
    for arguments in (["settings"], ["settings", "--json"]):
        code, out, err = run_eval(*arguments)
        assert code == 0 and KEY not in out + err and "(set, not shown)" in out
    settings = load(start=alone)
    assert KEY not in repr(settings.values) + repr(choose_judge(settings))
    assert redact(f"Incorrect key {KEY}!", [KEY]) == "Incorrect key (secret)!"
    (alone / ".env").write_text("API_URL=http://user:hunter2@h/v1\nJUDGE_CMD=serve --api-key sk-in-command\n")
    code, out, err = run_eval("settings")
    assert code == 2 and "hunter2" not in out + err and "sk-in-command" not in out + err
    assert "http://(secret)@h/v1" in out and "cannot be used: API_URL holds a user name or password" in out


def test_a_key_goes_only_to_the_server_it_was_meant_for(alone):
    (alone / ".env").write_text(f"JUDGE_BASE_URL={OPENAI}\nJUDGE_API_KEY={KEY}\n")
    assert choose_judge(load(start=alone)).api_key == KEY
    assert choose_judge(load(flags={"JUDGE_BASE_URL": "http://lab:1"}, start=alone)).api_key == ""
    assert choose_judge(load({"JUDGE_API_KEY": "k2"}, {"JUDGE_BASE_URL": "http://lab:1"}, alone)).api_key == "k2"
    (alone / ".env").unlink()
    assert choose_judge(load({"JUDGE_BASE_URL": "http://lab:1", "OPENAI_API_KEY": KEY})).api_key == ""
    assert choose_judge(load({"OPENAI_API_BASE": "http://lab:1", "OPENAI_API_KEY": KEY})).api_key == KEY


def test_two_judge_models_and_two_flags_are_conflicts():
    with pytest.raises(UserError, match=r"Two judge models are named: JUDGE_MODEL=a .* and USED_MODEL=b"):
        choose_judge(load({"JUDGE_MODEL": "a", "USED_MODEL": "b", "API_URL": "http://h"}))
    with pytest.raises(UserError, match="Two judges are named"):
        choose_judge(load(flags={"LOCAL_LLM": "x", "JUDGE_BASE_URL": "http://h"}))
    assert choose_judge(load({"USED_MODEL": "no_api", "API_URL": "http://h"})) is None


def test_settings_command_says_where_each_came_from(run_eval, monkeypatch):
    monkeypatch.setenv("API_URL", "127.0.0.1:8001/v1/chat/completions")
    code, out, _ = run_eval("settings", "--judge-model", "j", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["settings"]["JUDGE_MODEL"] == {"value": "j", "from": "command line"}
    assert shown["settings"]["API_URL"]["from"] == "environment"
    assert shown["judge"] == "j at http://127.0.0.1:8001/v1, named by API_URL (environment)"


@pytest.mark.parametrize(
    "text",
    [
        "http://h:8000",
        "http://h:8000/",
        "http://h:8000/v1",
        "h:8000/v1/",
        "http://h:8000/v1/chat/completions",
        "h:8000",
    ],
)
def test_every_way_to_write_an_address(text):
    assert base_url(text) == "http://h:8000/v1"


def test_paths_of_other_apis_stay():
    assert base_url("https://h/api/paas/v4/chat/completions") == "https://h/api/paas/v4"


@pytest.mark.parametrize(
    "text", ["ftp://h", "http://", "http://h:port", "http://u:p@h/v1", "http://[::1", "http://h/v1?a=b", "http://a b/"]
)
def test_addresses_that_are_none(text):
    with pytest.raises(UserError):
        base_url(text)


def test_judges_of_the_released_scripts():
    local = choose_judge(load({"LOCAL_LLM": "/models/judge"}))
    assert (local.local, local.url) == ("/models/judge", "")
    released = choose_judge(load({"LOCAL_LLM": "none", "API_URL": "http://h/v1", "OPENAI_API_KEY": KEY}))
    assert (released.url, released.api_key) == ("http://h/v1", KEY)
    rlpr = choose_judge(load({"CLIENT_IP": "http://127.0.0.1:8001", "USED_MODEL": "Qwen/Qwen2.5-72B-Instruct"}))
    assert (rlpr.url, rlpr.model) == ("http://127.0.0.1:8001/v1", "Qwen/Qwen2.5-72B-Instruct")
    api = choose_judge(load({"OPENAI_API_KEY": KEY, "USED_MODEL": "gpt-4.1"}))
    assert (api.url, api.model) == (OPENAI, "gpt-4.1")
    assert choose_judge(load({"USED_MODEL": "no_api", "OPENAI_API_KEY": KEY})) is None
    assert choose_judge(load()) is None


def test_two_judges_are_an_error_that_says_which_wins_and_why(alone):
    (alone / ".env").write_text("JUDGE_BASE_URL=http://file/v1\n")
    with pytest.raises(UserError) as error:
        choose_judge(load({"LOCAL_LLM": "/models/judge"}, start=alone))
    text = str(error.value)
    assert "LOCAL_LLM=/models/judge (environment)" in text and "JUDGE_BASE_URL=http://file/v1 (.env)" in text
    assert "LOCAL_LLM would win, because the environment stands above the .env" in text
    with pytest.raises(UserError, match="a local judge is preferred"):
        choose_judge(load({"LOCAL_LLM": "x", "API_URL": "http://a"}))
    with pytest.raises(UserError, match="JUDGE_BASE_URL would win, because JUDGE_BASE_URL is the more specific name"):
        choose_judge(load({"JUDGE_BASE_URL": "http://a", "API_URL": "http://b"}))


def test_the_same_judge_named_twice_is_no_conflict_and_a_flag_decides(alone):
    assert choose_judge(load({"JUDGE_BASE_URL": "http://a", "API_URL": "http://a/v1/"})).url == "http://a/v1"
    chosen = choose_judge(load({"LOCAL_LLM": "x", "API_URL": "http://b"}, {"JUDGE_BASE_URL": "http://flag"}))
    assert chosen.url == "http://flag/v1" and chosen.named_by == "JUDGE_BASE_URL (command line)"
    assert choose_judge(load({"LOCAL_LLM": "x", "API_URL": "http://b"}), none=True) is None


def test_a_judge_without_a_server_is_an_error():
    with pytest.raises(UserError, match="names a judge, but no server"):
        choose_judge(load({"JUDGE_MODEL": "j"}))


def test_env_example_documents_every_name_and_only_those():
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = [line.removeprefix("# ").split("=")[0] for line in lines if "=" in line]
    assert names == list(SETTINGS)
    for name in names:  # one line of explanation before each
        place = next(i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{name}="))
        assert lines[place - 1] == f"# {SETTINGS[name].help}"


def test_the_openai_packages_name_for_a_server_is_read():
    choice = choose_judge(load({"OPENAI_BASE_URL": "http://a:1/v1", "OPENAI_API_KEY": KEY, "USED_MODEL": "m"}))
    assert (choice.url, choice.api_key, choice.model) == ("http://a:1/v1", KEY, "m")
    with pytest.raises(UserError, match=r"Two judges are named: OPENAI_API_BASE=http://b:1/v1 .* OPENAI_BASE_URL="):
        choose_judge(load({"OPENAI_BASE_URL": "http://a:1/v1", "OPENAI_API_BASE": "http://b:1"}))


def test_headers_of_the_judge_go_only_to_the_server_they_stand_beside(alone):
    (alone / ".env").write_text('JUDGE_BASE_URL=http://a:1\nJUDGE_HEADERS={"api-key": "k-of-a"}\n')
    assert choose_judge(load(start=alone)).headers == {"api-key": "k-of-a"}
    with pytest.raises(UserError, match=r"JUDGE_HEADERS \(\.env\) stands beside JUDGE_BASE_URL \(\.env\)"):
        choose_judge(load({"JUDGE_BASE_URL": "http://b:1"}, start=alone))
    choice = choose_judge(load({}, {"JUDGE_BASE_URL": "http://b:1"}, alone))
    assert choice.headers == {} and "none is sent to http://b:1/v1" in choice.note and "k-of-a" not in repr(choice)


@pytest.mark.parametrize("text", ["x", "[1]", '{"a": 1}', '{"a b": "c"}', '{"a": "b\\nc"}', '{"a": "é"}', '{"": "x"}'])
def test_headers_that_no_request_can_have_are_refused_without_showing_them(text):
    with pytest.raises(UserError, match=r"JUDGE_HEADERS (must be a JSON object of texts|has the header)") as error:
        choose_judge(load({"JUDGE_BASE_URL": "http://a:1", "JUDGE_HEADERS": text}))
    assert "é" not in str(error.value) and "b\n" not in str(error.value)


def test_only_the_api_version_may_stand_in_an_address():
    assert base_url("http://h/v1?api-version=preview") == "http://h/v1?api-version=preview"
    assert base_url("https://me.openai.azure.com") == "https://me.openai.azure.com/openai/v1"
    for text in ("http://h/v1?key=x", "http://h/v1?api-version=1&key=x", "http://h/v1?x", "http://h/v1#api-version=1"):
        with pytest.raises(UserError, match="which may hold a key and is not sent"):
            base_url(text)
