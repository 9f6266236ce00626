"""Normalise and check addresses of OpenAI-style servers."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from rlfr_vlm.env_settings import without_secrets
from rlfr_vlm.errors import UserError

ENDINGS = ("/chat/completions", "/completions", "/models")
QUERY_KEYS = frozenset(["api-version"])  # parts of a query that servers need and that are no secrets
LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1", "0.0.0.0"])


def base_url(text: str, name: str = "--base-url") -> str:
    """Return the address that a client needs: scheme, host, the path before `/chat/completions`, `?api-version=`.

    Args:
        name: the flag or setting that holds the address, for messages.

    >>> base_url("127.0.0.1:8001"), base_url("http://h:1/v1/chat/completions"), base_url("https://h/v1/")
    ('http://127.0.0.1:8001/v1', 'http://h:1/v1', 'https://h/v1')
    >>> base_url("https://h.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-06-01")
    'https://h.openai.azure.com/openai/deployments/d?api-version=2024-06-01'

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
    query = parse_qsl(parts.query, keep_blank_values=True)
    if parts.fragment or (parts.query and not query) or not {key for key, _ in query} <= QUERY_KEYS:
        raise UserError(
            f"{name} has a part after `?` or `#`, which may hold a key and is not sent. Leave it out; only "
            "`?api-version=` may stand there."
        )
    if parts.username or parts.password:
        raise UserError(f"{name} holds a user name or password, which would end up in logs. Give the key by itself.")
    path = parts.path.rstrip("/")
    for ending in ENDINGS:
        path = path.removesuffix(ending)
    return urlunsplit(
        (
            parts.scheme,
            parts.netloc,
            path.rstrip("/") or ("/openai/v1" if is_azure(f"//{parts.netloc}") else "/v1"),
            urlencode(query),
            "",
        )
    )


def split_query(url: str) -> tuple[str, dict[str, str]]:
    """Split an address, as `base_url` returns it, into the part before `?` and the parameters.

    >>> split_query("https://h/openai/v1?api-version=preview")
    ('https://h/openai/v1', {'api-version': 'preview'})
    """
    parts = urlsplit(url)
    return urlunsplit((*parts[:3], "", "")), dict(parse_qsl(parts.query, keep_blank_values=True))


def is_azure(url: str) -> bool:
    """Return whether a server is Azure's: it takes the key as `api-key`, and names deployments instead of models.

    >>> is_azure("https://me.openai.azure.com/openai/v1"), is_azure("https://azure.com.example.org/v1")
    (True, False)
    """
    return (urlsplit(url).hostname or "").endswith(".azure.com")


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
