"""Client for OpenAI-style servers with time limits, retries and named faults.

No other module imports openai.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from rlfr_vlm.env_settings import redact, without_secrets
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.servers.token_counts import token_count
from rlfr_vlm.servers.urls import is_azure, is_local, split_query

if TYPE_CHECKING:
    import openai
    from openai.types import Completion
    from openai.types.chat import ChatCompletion

T = TypeVar("T")
# Failed requests in a row, each after all tries, before a server is given up; at least the concurrency.
MAX_FAILURES_IN_A_ROW = 8
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds between tries
LONGEST_RETRY_AFTER = 600.0  # seconds
SHORT_LIMIT = 30.0  # seconds for requests without generation: listing models, counting tokens
DATED = re.compile(r"-\d{4}(-?\d\d){0,2}")  # suffix of a model's dated version, such as -2024-08-06
ABORTED = ("abort", "error")  # finish reasons of vLLM and similar servers for an incomplete answer
REASONING_KEYS = ("reasoning_content", "reasoning")  # names of the reasoning in vLLM's and other servers' replies
TOO_LONG = "too long"  # prompt and answer do not fit the context
CONTEXT_WORDS = ("context length", "max_model_len", "maximum model length", "context window", "max_tokens must be")


@dataclass(frozen=True)
class Usage:
    """Tokens and time of one or several requests.

    Attributes:
        input_tokens, output_tokens: including failed tries that may be billed.
        seconds: time of the successful tries.
        cached: whether every reply came from a cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cached: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            self.cached and other.cached,
        )


@dataclass(frozen=True)
class Reply:
    """The reply to one request.

    Attributes:
        reasoning: reasoning that the server's parser removed from the text.
        prompt_tokens, completion_tokens: as the server counts; None if it does not report them.
        seconds: time of the successful try.
        model: the model that the server names.
    """

    text: str
    reasoning: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    model: str
    tries: int


class Fault(Exception):
    """A failed try of a request.

    Attributes:
        kind: short name under which faults are counted.
        retryable: whether another try may succeed.
        wait: seconds to wait, as the server's Retry-After header says.
    """

    def __init__(self, kind: str, text: str, retryable: bool = True, wait: float = 0.0) -> None:
        super().__init__(text)
        self.kind, self.retryable, self.wait = kind, retryable, wait


@dataclass
class Endpoint:
    """A server with the limits of requests to it; an async context manager.

    Attributes:
        time_limit: seconds for one try, from the first byte sent to the last one read.
        max_tries: tries per request.
        first_delay: seconds before the second try; doubled for each further one.
        name: the server in messages.
        faults: number of failed tries by kind, including those followed by a success.
        secrets: texts in request bodies that error messages must not show.
        headers: HTTP headers of each request; error messages do not show their values.
        query: parameters of each request's address, taken from `url`.
    """

    url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    time_limit: float = 600.0
    max_tries: int = 6
    first_delay: float = FIRST_DELAY
    name: str = "the model's server"
    faults: Counter[str] = field(default_factory=Counter)
    secrets: Sequence[str] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: dict[str, str] = field(init=False)
    _served: str = field(init=False, default="", repr=False)
    _client: "openai.AsyncOpenAI" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.url, self.query = split_query(self.url)

    async def __aenter__(self) -> "Endpoint":
        import openai

        if not self.api_key.isascii() or not self.api_key.isprintable():
            raise UserError(f"The key for {self.name} has characters that no key has. Copy it again.")
        self._client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.api_key or "EMPTY",
            max_retries=0,
            timeout=self.time_limit,
            default_query=self.query,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not is_local(self.url),  # requests to this machine must bypass any proxy
                follow_redirects=False,  # another server would get the request with the keys in its body
            ),
        )
        # openai takes these from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, for any server (3.57).
        self._client.organization = self._client.project = None
        azure_key = {"api-key": self.api_key} if is_azure(self.url) and self.api_key else {}
        self._client._custom_headers = {**azure_key, **self.headers}
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.close()

    async def models(self) -> list[JsonObject]:
        """Return the server's list of models; empty if it has no such list.

        Raises:
            UserError: the request fails.
        """
        import openai

        if is_azure(self.url):
            return []  # the list names models, and requests name deployments
        try:
            listing = self._client.models.list()
            page = await self._within_limit(listing, allowed=openai.NotFoundError, limit=SHORT_LIMIT)
            cards = [card.model_dump() for card in page.data]
            return [card for card in cards if isinstance(card.get("id"), str) and card["id"]]
        except openai.NotFoundError:
            return []
        except Fault as fault:
            raise UserError(self._message(f"Cannot ask {self.name} at {self.url} what it serves: {fault}.")) from None
        except (AttributeError, TypeError):
            raise UserError(f"{self.url} is no OpenAI-style server: its /models is no list.") from None

    async def resolve_model(self, setting: str) -> JsonObject:
        """Set `model` to the only served model if none is named. Returns the server's entry for the model.

        Args:
            setting: the setting that names the model, for messages.

        Raises:
            UserError: the request fails, the model is not served, or several are served and none is named.
        """
        cards = {card["id"]: card for card in await self.models()}
        if not cards and self.model:
            return {"id": self.model}  # no list of models: the first request shows whether the name is right
        names = ", ".join(sorted(cards)[:10]) or "none"
        if not self.model and len(cards) != 1:
            raise UserError(
                f"{self.name} at {self.url} serves {len(cards)} models ({names}). Name one with {setting}."
            )
        self.model = self.model or next(iter(cards))
        if self.model not in cards:
            raise UserError(
                f"{self.name} at {self.url} does not serve {self.model!r}; it serves {names}. Name another "
                f"with {setting}."
            )
        card = cards[self.model]
        parent = cards.get(str(card.get("parent") or ""), {})  # an adapter has the context of its base
        context = card.get("max_model_len") or parent.get("max_model_len")
        return {**card, "max_model_len": context if isinstance(context, int) else None}

    async def count_tokens(self, body: JsonObject) -> int | None:
        """Return the tokens of a prompt as vLLM counts them; None if the server has no such route."""
        import openai

        root = self.url.removesuffix("/v1")
        body = {key: body[key] for key in ("prompt", "messages") if key in body}
        request = self._client.post(f"{root}/tokenize", body={"model": self.model, **body}, cast_to=object)
        try:
            reply = await asyncio.wait_for(request, SHORT_LIMIT)
        except (openai.OpenAIError, ValueError, TimeoutError):
            return None
        count = reply.get("count") if isinstance(reply, dict) else None
        return count if isinstance(count, int) else None

    async def ask(self, body: JsonObject, on_fault: Callable[[Fault], None] = lambda fault: None) -> Reply:
        """Send a request until it succeeds or the tries are used up.

        Args:
            body: the request without `model`.
            on_fault: called for every failed try.

        Raises:
            Fault: the fault of the last try.
            UserError: no request can succeed: the key is refused, or the model is unknown.
        """
        return await self._repeat(lambda number: self._try(body, number), on_fault)

    async def pool(self, body: JsonObject) -> list[float]:
        """Return the outputs of a pooling model for one conversation, without activation, from vLLM's `/pooling`.

        Args:
            body: the request without `model`.

        Raises:
            Fault, UserError: as for `ask`.
        """
        return await self._repeat(lambda _: self._try_pooling(body), lambda fault: None)

    async def _try_pooling(self, body: JsonObject) -> list[float]:
        root = self.url.removesuffix("/v1")
        whole = {"model": self.model, "encoding_format": "float", "use_activation": False, **body}
        reply = await self._within_limit(self._client.post(f"{root}/pooling", body=whole, cast_to=object))
        try:
            [entry] = reply["data"]
            return [float(value) for value in entry["data"]]
        except (TypeError, KeyError, ValueError) as error:
            text = self._message(f"the reply has no list of numbers ({type(error).__name__})")
            raise Fault("not JSON", text) from None

    async def _repeat(self, attempt: Callable[[int], Awaitable[T]], on_fault: Callable[[Fault], None]) -> T:
        """Run tries, given their number, until one succeeds or they are used up."""
        for number in range(1, self.max_tries + 1):
            try:
                return await attempt(number)
            except Fault as fault:
                self.faults[fault.kind] += 1
                on_fault(fault)
                if not fault.retryable or number == self.max_tries:
                    raise
                backoff = min(LONGEST_DELAY, self.first_delay * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(backoff, min(fault.wait * random.uniform(1.0, 1.1), LONGEST_RETRY_AFTER)))
        raise AssertionError("unreachable: the last try returns or raises")

    async def _try(self, body: JsonObject, number: int) -> Reply:
        started = time.monotonic()
        arguments: JsonObject = {"model": self.model, "stream": False, "extra_body": None, **body}
        chat = "messages" in body
        create = self._client.chat.completions.create if chat else self._client.completions.create
        reply = await self._within_limit(create(**arguments))
        try:
            return self._parse(reply, chat, time.monotonic() - started, number)
        except (AttributeError, TypeError, LookupError, ValueError) as error:  # valid JSON of another shape
            raise Fault("not JSON", f"the reply is no completion ({self._message(str(error))[:200]})") from None

    async def _within_limit(
        self, request: Awaitable[T], allowed: type[Exception] | tuple[()] = (), limit: float | None = None
    ) -> T:
        """Await a request within the time limit and convert its exceptions.

        Args:
            allowed: exceptions to raise unchanged; all others become a Fault or a UserError.
            limit: seconds, if shorter than `time_limit`.
        """
        import openai

        limit = min(self.time_limit, limit or self.time_limit)
        try:
            return await asyncio.wait_for(request, limit)
        except allowed:
            raise
        except (TimeoutError, openai.APITimeoutError):
            raise Fault("time-out", f"no whole reply within {limit:g} s") from None
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise Fault("connection", self._message(f"connection lost ({type(reason).__name__})")) from None
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except (openai.APIResponseValidationError, ValueError, RecursionError) as error:
            raise Fault("not JSON", self._message(f"the reply is no JSON ({type(error).__name__})")) from None

    def _status_error(self, error: "openai.APIStatusError") -> Exception:
        status = error.status_code
        text = self._message(f"HTTP {status}: {error.message}")[:500]  # redact first, or half a key could remain
        if status in (401, 403):
            return UserError(
                f"{self.name} at {self.url} refuses the key ({text}). See which key is in force with "
                "`rlfr-eval settings`."
            )
        if status == 404:
            return UserError(
                f"{self.name} at {self.url} does not know {self.model!r} or the path ({text}). "
                "A server with chat completions only needs --prompt chat, r1 or r1-nothink."
            )
        if status in (400, 413, 422):
            if any(word in text.lower() for word in CONTEXT_WORDS):
                return Fault(TOO_LONG, text, retryable=False)
            return Fault("refused", text, retryable=False)
        if 300 <= status < 400:
            place = without_secrets(error.response.headers.get("location", "nowhere"))[:200]
            text = self._message(f"HTTP {status}: the server redirects to {place}; give the address that answers")
            return Fault("redirect", text, retryable=False)
        if status == 429:
            return Fault("rate limit", text, wait=retry_after(error.response.headers.get("retry-after")))
        return Fault("server error", text, wait=retry_after(error.response.headers.get("retry-after")))

    def _parse(self, reply: "ChatCompletion | Completion", chat: bool, seconds: float, number: int) -> Reply:
        """Convert a completion.

        Raises:
            Fault: the completion is empty, incomplete, or from another model.
        """
        if not hasattr(reply, "choices"):
            raise Fault("not JSON", "the reply is no completion")
        if not reply.choices:
            raise Fault("empty", "the reply has no choices")
        served = reply.model or ""
        self._check_served(served)
        choice = reply.choices[0]
        text = text_of(choice.message.content if chat else choice.text)
        if choice.finish_reason in ABORTED:
            raise Fault("aborted", f"the server aborted the answer ({choice.finish_reason})")
        extra = (choice.message.model_extra or {}) if chat else {}
        reasoning = next((extra[key] for key in REASONING_KEYS if isinstance(extra.get(key), str) and extra[key]), "")
        prompt_tokens = token_count(getattr(reply.usage, "prompt_tokens", None))
        tokens = token_count(getattr(reply.usage, "completion_tokens", None))
        if not text and not reasoning and not tokens:
            raise Fault("empty", "the reply has no text and reports no generated token")
        return Reply(
            text=text,
            reasoning=reasoning,
            finish_reason=str(choice.finish_reason or ""),
            prompt_tokens=prompt_tokens,
            completion_tokens=tokens,
            seconds=round(seconds, 3),
            model=served or self.model,
            tries=number,
        )

    def _check_served(self, served: str) -> None:
        """Check the model that a reply names. A deployment on Azure may have any model, but must keep it.

        Raises:
            Fault: another model answered.
        """
        asked = self.model
        if is_azure(self.url):
            asked = self._served = self._served or served
        if served and served != asked and not DATED.fullmatch(served.removeprefix(asked)):
            raise Fault("wrong model", f"asked {asked!r}, {self._message(served)!r} answered")

    def _message(self, text: str) -> str:
        """Return an error text of the server with the key masked."""
        return redact(text, [self.api_key, *self.headers.values(), *self.secrets])


def text_of(content: object) -> str:
    """Return the text of a reply, which may come in parts.

    Raises:
        ValueError: the content is no text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ValueError(f"content is a {type(content).__name__}")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ValueError("content has parts that are no text")
        texts.append(text)
    return "".join(texts)


def retry_after(header: str | None) -> float:
    """Return the seconds of a Retry-After header, which may also be a date; 0 without one.

    >>> retry_after("3"), retry_after(None), retry_after("soon")
    (3.0, 0.0, 0.0)
    """
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
