"""Mask secrets in commands, addresses and JSON before they are stored or shown.

Secrets are recognised by name: options (`--api-key X`), environment assignments (`HF_TOKEN=X`), headers
(`Authorization: X`) and JSON fields. In addresses, the user, the password, the query and the fragment are masked.
Text that a model wrote is never masked: a key that happens to be a word would change an answer.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

PLACEHOLDER = "<set>"
# A name with one of these parts is a secret's.
SECRET_PARTS = {"secret", "secrets", "password", "passwords", "passwd", "passphrase", "authorization"}
SECRET_PARTS |= {"credential", "credentials", "apikey", "apikeys", "authtoken", "accesstoken", "accesskey"}
# `tokens` is a secret's after one of these; `token` is part of a text after one of those.
TOKEN_OWNERS = {"api", "auth", "access", "bearer", "hf", "hub", "refresh"}
TEXT_TOKENS = {"pad", "eos", "bos", "unk", "sep", "cls", "mask", "image", "video", "audio", "vision"}
TEXT_TOKENS |= {"max", "min", "num", "stop", "special", "think", "assistant", "per", "next", "first", "last"}
NAME = r"[A-Za-z_][\w.-]*"
ASSIGNMENT = re.compile(rf"(?P<start>-{{0,2}}(?P<name>{NAME})=)(?P<value>.+)", re.DOTALL)
HEADER = re.compile(rf"(?P<start>\s*(?P<name>{NAME})\s*:\s*)\S.*", re.DOTALL)
QUOTED_HEADER = re.compile(
    rf"""(?P<quote>\\{{0,8}}["'])(?P<start>(?P<name>{NAME})\s*:\s*)(?:(?!(?P=quote)).)+""", re.DOTALL
)
OPTION = re.compile(rf"-{{1,2}}({NAME})")
WORD = re.compile(r"""(?:"(?:\\.|[^"\\])*(?:"|$)|'[^']*(?:'|$)|\\.|[^\s"'\\])+|\\$""", re.DOTALL)
USER = re.compile(r"(?<=://)[^/\s'\"]+(?=@)|(?<![\w/@:.-])[\w.+-]+:[^/@\s'\"]+(?=@)")
QUERY = re.compile(r"(?<=\S)([?#])[^\s'\"<>]+")
ADDRESS = re.compile(r"://|^[\w.-]+(?::\d+)?/")
FIELD = re.compile(rf"""(?P<quote>\\{{0,8}}["'])(?P<name>{NAME})(?P=quote)\s*:\s*""")
QUOTED = re.compile(
    r"""(?P<plain>["'])(?:\\.|(?!(?P=plain))[^\\])*(?P=plain)|(?P<quote>\\{1,8}["'])(?:(?!(?P=quote)).)*(?P=quote)""",
    re.DOTALL,
)
WHOLE_QUOTES = re.compile(r"""(["'])((?:\\.|(?!\1)[^\\])*)\1""", re.DOTALL)
END_OF_VALUES = re.compile(r"\{\w+\}|&&|\|\|?|;")


def is_secret(name: str) -> bool:
    """Whether an option, variable, header or field of this name holds a secret.

    >>> is_secret("--hub_token"), is_secret("X-Api-Key"), is_secret("apiKeys")
    (True, True, True)
    >>> is_secret("max_tokens"), is_secret("pad_token"), is_secret("tokenizer"), is_secret("key_size")
    (False, False, False, False)
    """
    separated = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    parts = [part.lower() for part in re.split(r"[^A-Za-z0-9]+", separated) if part]
    while parts and parts[-1].isdigit():
        parts.pop()
    if not parts:
        return False
    before = parts[-2] if len(parts) > 1 else ""
    if SECRET_PARTS.intersection(parts) or parts[-1] in ("key", "keys", "auth", "pass"):
        return True
    if ("api", "key") in pairwise(parts) or ("access", "key") in pairwise(parts):
        return True
    if parts[-1] == "token":
        return before not in TEXT_TOKENS
    return parts[-1] == "tokens" and before in TOKEN_OWNERS


def redact_text(text: str, placeholder: str = PLACEHOLDER) -> str:
    """Mask the secrets in a command, an address, a header or JSON; all other text is unchanged.

    >>> redact_text("API_KEY=abc serve --api-keys a b --port 1 http://me:pw@host/v1?key=abc")
    'API_KEY=<set> serve --api-keys <set> <set> --port 1 http://<set>@host/v1?<set>'
    >>> redact_text('{"headers": {"Authorization": "Bearer abc"}, "max_tokens": 5}')
    '{"headers": {"Authorization": "<set>"}, "max_tokens": 5}'
    """
    if (header := HEADER.fullmatch(text)) and is_secret(header["name"]):
        return header["start"] + placeholder
    text = _redact_fields(text, placeholder)
    redacted, position, masking = [], 0, False
    for match in WORD.finditer(text):
        redacted.append(text[position : match.start()])
        position = match.end()
        word = match[0]
        option = OPTION.fullmatch(word)
        if masking and not word.startswith("-") and not END_OF_VALUES.fullmatch(word):
            redacted.append(placeholder)
            continue
        masking = option is not None and is_secret(option[1])
        redacted.append(_redact_word(word, placeholder))
    return "".join([*redacted, text[position:]])


def redact_command(arguments: Sequence[str], placeholder: str = PLACEHOLDER) -> list[str]:
    """Mask the secrets in the words of a command.

    >>> redact_command(["train", "--hub_token", "abc", "--hub_token=abc", "--seed", "1", '{"token": "abc", "n": 1}'])
    ['train', '--hub_token', '<set>', '--hub_token=<set>', '--seed', '1', '{"token": "<set>", "n": 1}']
    """
    redacted, masking = [], False
    for argument in arguments:
        if masking and not argument.startswith("-"):
            redacted.append(placeholder)
            continue
        option = OPTION.fullmatch(argument)
        masking = option is not None and is_secret(option[1])
        redacted.append(_redact_word(argument, placeholder))
    return redacted


def redact_json(value: object, placeholder: str = PLACEHOLDER) -> object:
    """Mask the secrets in a JSON value: fields by name at any depth, and texts as `redact_text` does.

    >>> redact_json({"token": ["a"], "n": {"apiKey": "b", "url": "http://me:pw@h"}})
    {'token': '<set>', 'n': {'apiKey': '<set>', 'url': 'http://<set>@h'}}
    """
    if isinstance(value, dict):
        named = value.get("name")
        hidden = {"value"} if isinstance(named, str) and is_secret(named) else set()  # a header as name and value
        return {
            key: placeholder
            if _holds_secret(inner) and (is_secret(str(key)) or key in hidden)
            else redact_json(inner, placeholder)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        if value and all(isinstance(inner, str) for inner in value):
            return redact_command(value, placeholder)
        return [redact_json(inner, placeholder) for inner in value]
    return redact_text(value, placeholder) if isinstance(value, str) else value


def secret_values(value: object) -> Iterator[str]:
    """Yield the texts in a JSON value that `redact_json` masks by the name of their field.

    >>> list(secret_values({"headers": {"Authorization": "Bearer abc"}, "seed": 1}))
    ['Bearer abc']
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner) if is_secret(str(key)) else secret_values(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secret_values(inner)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _holds_secret(value: object) -> bool:
    """Whether a field's value can be a secret: numbers and switches are none."""
    return not (value is None or isinstance(value, bool | int | float))


def _redact_word(word: str, placeholder: str) -> str:
    """Mask the secrets in one word of a command, which may be quoted or hold a whole command."""
    if quoted := WHOLE_QUOTES.fullmatch(word):
        inner = quoted[2]
        single = WORD.fullmatch(inner) is not None or not inner
        return quoted[1] + (_redact_word if single else redact_text)(inner, placeholder) + quoted[1]
    if (assignment := ASSIGNMENT.fullmatch(word)) and is_secret(assignment["name"]):
        value = WORD.match(assignment["value"])  # a quoted command may go on behind the value
        rest = assignment["value"][value.end() :] if value and not word.startswith("-") else ""
        return assignment["start"] + placeholder + redact_text(rest, placeholder)
    if assignment:
        text = assignment["value"]
        second = ASSIGNMENT.fullmatch(text)
        if WORD.fullmatch(text) is None:  # a whole command
            return assignment["start"] + redact_text(text, placeholder)
        if second is None or is_secret(second["name"]):  # such as `--env=HF_TOKEN=x`
            return assignment["start"] + _redact_word(text, placeholder)
        return word
    if (header := HEADER.fullmatch(word)) and is_secret(header["name"]):
        return header["start"] + placeholder
    if WORD.fullmatch(word) is None:
        return redact_text(word, placeholder)
    word = USER.sub(placeholder, word)
    return QUERY.sub(rf"\g<1>{placeholder}", word) if ADDRESS.search(word) else word


def _redact_fields(text: str, placeholder: str) -> str:
    """Mask the values of secret fields in JSON, whole or as a part of the text."""
    redacted, position = [], 0
    for match in FIELD.finditer(text):
        if match.start() < position or not is_secret(match["name"]):
            continue
        end = _end_of_value(text, match.end())
        if text[match.end() : end] == "null":
            continue
        quote = match["quote"]
        redacted += [text[position : match.end()], f"{quote}{placeholder}{quote}"]
        position = end
    return QUOTED_HEADER.sub(
        lambda match: f"{match['quote']}{match['start']}{placeholder}" if is_secret(match["name"]) else match[0],
        "".join([*redacted, text[position:]]),
    )


def _end_of_value(text: str, start: int) -> int:
    """Return the index behind a JSON value; the end of the text if the value is cut off."""
    depth, index = 0, start
    while index < len(text):
        if match := QUOTED.match(text, index):
            index = match.end()
        elif text[index] in "[{":
            depth, index = depth + 1, index + 1
        elif text[index] in "]}":
            depth, index = depth - 1, index + 1
            if depth < 0:
                return index - 1
        elif depth == 0 and re.match(r"""[,\s]""", text[index]):
            return index
        elif text[index] in "\"'\\":
            return len(text)  # a text without its end
        else:
            index += 1
            continue
        if depth == 0:
            return index
    return len(text)
