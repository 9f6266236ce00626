"""Normalise and check addresses of OpenAI-style servers."""

from urllib.parse import urlsplit, urlunsplit

from rlfr_eval.settings import without_secrets
from rlfr_vlm.errors import UserError

ENDINGS = ("/chat/completions", "/completions", "/models")
LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1", "0.0.0.0"])


def base_url(text: str, name: str = "--base-url") -> str:
    """Return the address that a client needs: scheme, host and the path before `/chat/completions`.

    Args:
        name: the flag or setting that holds the address, for messages.

    >>> base_url("127.0.0.1:8001"), base_url("http://h:1/v1/chat/completions"), base_url("https://h/v1/")
    ('http://127.0.0.1:8001/v1', 'http://h:1/v1', 'https://h/v1')

    Raises:
        UserError: the text is no HTTP address, or it holds a password.
    """
    text = text.strip()
    invalid = UserError(
        f"{name} is {without_secrets(text)[:200]!r}, which is no address of a server. Give one like http://127.0.0.1:8000/v1."
    )
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:
        raise invalid from None
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise invalid
    if parts.query or parts.fragment:
        raise UserError(f"{name} has a part after `?` or `#`, which may hold a key and is not sent. Leave it out.")
    if parts.username or parts.password:
        raise UserError(f"{name} holds a user name or password, which would end up in logs. Give the key by itself.")
    path = parts.path.rstrip("/")
    for ending in ENDINGS:
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, path.rstrip("/") or "/v1", "", ""))


def same_server(first: str, second: str) -> bool:
    """Whether two addresses, as `base_url` returns them, name one server.

    >>> same_server("http://localhost:80/v1", "http://127.0.0.1/v1"), same_server("https://H/v1", "http://h/v1")
    (True, False)
    """

    def parts(url: str) -> tuple[str, str, int, str]:
        address = urlsplit(url)
        host = "127.0.0.1" if address.hostname in LOOPBACK else address.hostname or ""
        return address.scheme, host, address.port or (443 if address.scheme == "https" else 80), address.path

    return parts(first) == parts(second)


def is_local(url: str) -> bool:
    """Return whether the server is on this machine, so that requests must bypass any proxy.

    >>> is_local("http://127.0.0.1:1/v1"), is_local("https://api.example.com/v1")
    (True, False)
    """
    return urlsplit(url).hostname in LOOPBACK
