"""Addresses of OpenAI-style servers, however a user writes them."""

from urllib.parse import urlsplit, urlunsplit

from rlfr_vlm.errors import UserError

ENDINGS = ("/chat/completions", "/completions", "/models")
LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1", "0.0.0.0"])


def base_url(text: str, name: str = "--base-url") -> str:
    """The address a client needs: scheme, host and the path above `/chat/completions`.

    >>> base_url("127.0.0.1:8001"), base_url("http://h:1/v1/chat/completions"), base_url("https://h/v1/")
    ('http://127.0.0.1:8001/v1', 'http://h:1/v1', 'https://h/v1')

    Raises:
        UserError: not an address of a web server, or one with a password in it.
    """
    text = text.strip()
    none = UserError(
        f"{name} is {text[:200]!r}, which is no address of a server. Give one like http://127.0.0.1:8000/v1."
    )
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:
        raise none from None
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise none
    if parts.query or parts.fragment:
        raise UserError(f"{name} has a part behind `?` or `#`, which may hold a key and is not sent. Leave it out.")
    if parts.username or parts.password:
        raise UserError(f"{name} holds a user name or password, which would end up in logs. Give the key by itself.")
    path = parts.path.rstrip("/")
    for ending in ENDINGS:
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, path.rstrip("/") or "/v1", "", ""))


def is_local(url: str) -> bool:
    """Whether the server is on this machine, so that no proxy may stand between.

    >>> is_local("http://127.0.0.1:1/v1"), is_local("https://api.example.com/v1")
    (True, False)
    """
    return urlsplit(url).hostname in LOOPBACK
