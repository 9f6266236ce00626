"""Remove secrets from command lines and settings before they are stored or shown."""

import re
from collections.abc import Sequence

SECRET_WORDS = ("token", "key", "secret", "password")  # a setting is a secret if its name ends with one of them
PLACEHOLDER = "<set>"
URL_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")
API_KEY = re.compile(r"(?<=--api-key[ =])\S+")
JSON_SECRET = re.compile(rf'("\w*(?:{"|".join(SECRET_WORDS)})"\s*:\s*)"[^"]*"', re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether a setting or option of this name holds a secret.

    >>> is_secret("--hub_token"), is_secret("max_tokens")
    (True, False)
    """
    return name.endswith(SECRET_WORDS)


def redact_text(text: str, placeholder: str = PLACEHOLDER) -> str:
    """Replace user names and passwords in URLs and the values of `--api-key`.

    >>> redact_text("serve --api-key abc http://me:pw@host/v1")
    'serve --api-key <set> http://<set>@host/v1'
    """
    return API_KEY.sub(placeholder, URL_PASSWORD.sub(placeholder, text))


def redact_command(arguments: Sequence[str]) -> list[str]:
    """Replace the values of secret options, secrets in JSON values, and passwords in URLs.

    >>> redact_command(["train", "--hub_token", "abc", "--hub_token=abc", "--seed", "1", '{"token": "abc", "n": 1}'])
    ['train', '--hub_token', '<set>', '--hub_token=<set>', '--seed', '1', '{"token": "<set>", "n": 1}']
    """
    redacted: list[str] = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        previous = redacted[-1] if redacted else ""
        if _is_secret_option(previous) and "=" not in previous:
            redacted.append(PLACEHOLDER)
        elif _is_secret_option(name) and equals:
            redacted.append(f"{name}={PLACEHOLDER}")
        else:
            redacted.append(JSON_SECRET.sub(rf'\1"{PLACEHOLDER}"', redact_text(argument)))
    return redacted


def _is_secret_option(name: str) -> bool:
    return name.startswith("--") and is_secret(name)
