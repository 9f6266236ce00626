"""Secrets are removed from commands and texts, and nothing else is."""

import pytest

from rlfr_vlm.redaction import is_secret, redact_command, redact_json, redact_text


def test_secret_options_in_both_spellings():
    assert redact_command(["--api_key=x", "--wandb_token", "y", "--tokens", "3"]) == [
        "--api_key=<set>", "--wandb_token", "<set>", "--tokens", "3",
    ]  # fmt: skip


def test_secrets_in_json_and_urls_of_a_command():
    command = ["train", '{"token": "abc", "n": 1}', "http://me:pw@host/v1", "--url=http://me:pw@host"]
    assert redact_command(command) == [
        "train", '{"token": "<set>", "n": 1}', "http://<set>@host/v1", "--url=http://<set>@host",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serve --api-key sk-1 {model}", "serve --api-key (secret) {model}"),
        ("serve --api-key=sk-1 {model}", "serve --api-key=(secret) {model}"),
        ("https://user:pw@host/v1", "https://(secret)@host/v1"),
        ('vllm --hf-overrides {"pad_token": "<pad>"}', 'vllm --hf-overrides {"pad_token": "<pad>"}'),
    ],
)
def test_text_keeps_all_but_passwords_and_keys(text, expected):
    assert redact_text(text, "(secret)") == expected


def test_names_of_secrets():
    assert all(map(is_secret, ["hub_token", "api_key", "password"]))
    assert not any(map(is_secret, ["max_tokens", "key_size"]))


@pytest.mark.parametrize(
    "text",
    [
        'bash -c "serve --api-key \\"Zq7\\""',
        'bash -c "API_KEY=\\"Zq7\\" serve"',
        '{"api_key": "a\\"Zq7"}',
        "http://me:p@Zq7@host/v1",
        "http://host/a-?sig=Zq7",
        "API_KEY_PROD=Zq7 serve",
        "DB_PASS=Zq7 serve",
        "serve --auth Zq7",
    ],
)
def test_odd_spellings_of_secrets(text):
    assert "Zq7" not in redact_text(text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["docker", "--env=HF_TOKEN=Zq7", "--env=MODE=fast"], ["docker", "--env=HF_TOKEN=*", "--env=MODE=fast"]),
        (["--server-cmd=FOO_TOKEN=Zq7 serve {model}"], ["--server-cmd=FOO_TOKEN=* serve {model}"]),
        (["--server-cmd=A=1 FOO_TOKEN=Zq7 serve"], ["--server-cmd=A=1 FOO_TOKEN=* serve"]),
    ],
)
def test_an_assignment_behind_an_option_with_an_equals_sign(words, expected):
    assert redact_command(words, "*") == expected


@pytest.mark.parametrize(
    "text",
    ["a=" * 2000, "a=" * 2000 + " b", "\\" * 16000, '"' * 20000, "{" * 20000, "a:" * 9000, "--key " * 9000],
)
def test_long_odd_texts_are_no_error(text):
    redact_text(text)
    redact_command([text])


def test_json_with_options_and_with_headers_as_name_and_value():
    value = {"args": ["--api-key", "x", "--seed", "1"], "headers": [{"name": "Authorization", "value": "x"}], "key": 5}
    assert redact_json(value, "*") == {
        "args": ["--api-key", "*", "--seed", "1"], "headers": [{"name": "Authorization", "value": "*"}], "key": 5,
    }  # fmt: skip
