"""Secrets are removed from commands and texts, and nothing else is."""

import pytest

from rlfr_vlm.redaction import is_secret, redact_command, redact_text


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
