"""One client for every OpenAI-style server: bounded time, retries, and a name for everything that can go wrong.

The only place that imports openai.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from rlfr_eval.model.urls import is_local
from rlfr_eval.settings import redact
from rlfr_vlm.errors import UserError

FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0  # seconds
LONGEST_RETRY_AFTER = 600.0
SHORT_LIMIT = 30.0  # seconds for what needs no model: listing models, counting tokens
DATED = re.compile(r"-\d{4}(-?\d\d){0,2}")  # a version of what was asked, such as -2024-08-06
ABORTED = ("abort", "error")  # reasons of vLLM and its like that are no end of an answer
TOO_LONG = "too long"  # prompt and answer do not fit the context
CONTEXT_WORDS = ("context length", "max_model_len", "maximum model length", "context window", "max_tokens must be")


@dataclass(frozen=True)
class Reply:
    """What came back for one request.

    `reasoning` is what the server's own parser took away from the text; `seconds` are those of the try that worked.
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
    """One request failed.

    Attributes:
        kind: short name to count by.
        again: whether to try again.
        wait: seconds the server asked us to wait.
    """

    def __init__(self, kind: str, text: str, again: bool = True, wait: float = 0.0) -> None:
        super().__init__(text)
        self.kind, self.again, self.wait = kind, again, wait


@dataclass
class Endpoint:
    """A server and how patient we are with it. Use it as an async context.

    Attributes:
        time_limit: seconds for one try, from the first byte sent to the last one read.
        max_tries: of one request, before it is given up for now.
        faults: what went wrong so far, by kind, also when a later try worked.
    """

    url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    time_limit: float = 600.0
    max_tries: int = 6
    first_delay: float = FIRST_DELAY
    name: str = "the model's server"
    faults: Counter[str] = field(default_factory=Counter)
    _client: Any = field(default=None, repr=False)

    async def __aenter__(self) -> "Endpoint":
        import openai

        if not self.api_key.isascii() or not self.api_key.isprintable():
            raise UserError(f"The key for {self.name} has characters that no key has. Copy it again.")
        self._client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.api_key or "EMPTY",
            max_retries=0,
            timeout=self.time_limit,
            # a proxy between us and this machine itself can only do harm
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_local(self.url)),
        )
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._client.close()

    async def models(self) -> list[dict[str, Any]]:
        """The server's own list of what it serves; empty from one that has no such list.

        Raises:
            UserError: it cannot be asked.
        """
        import openai

        try:
            listing = self._client.models.list()
            page = await self._within_limit(listing, missing=openai.NotFoundError, limit=SHORT_LIMIT)
            cards = [card.model_dump() for card in page.data]
            return [card for card in cards if isinstance(card.get("id"), str) and card["id"]]
        except openai.NotFoundError:
            return []
        except Fault as fault:
            raise UserError(self._message(f"Cannot ask {self.name} at {self.url} what it serves: {fault}.")) from None
        except (AttributeError, TypeError):
            raise UserError(f"{self.url} is no OpenAI-style server: its /models is no list.") from None

    async def settle_model(self, mend: str) -> dict[str, Any]:
        """Settle which model is asked: the one named, or the only one there is. Returns the server's card of it.

        Args:
            mend: the setting that names one, for the message.

        Raises:
            UserError: the server cannot be asked, does not serve it, or serves several and none is named.
        """
        cards = {card["id"]: card for card in await self.models()}
        if not cards and self.model:
            return {"id": self.model}  # a server without a list; the first request tells whether the name is right
        some = ", ".join(sorted(cards)[:10]) or "none"
        if not self.model and len(cards) != 1:
            raise UserError(f"{self.name} at {self.url} serves {len(cards)} models ({some}). Name one with {mend}.")
        self.model = self.model or next(iter(cards))
        if self.model not in cards:
            raise UserError(f"{self.name} at {self.url} does not serve {self.model!r}; it serves {some}. Name another "
                            f"with {mend}.")  # fmt: skip
        card = cards[self.model]
        parent = cards.get(str(card.get("parent") or ""), {})  # an adapter has the context of its base
        context = card.get("max_model_len") or parent.get("max_model_len")
        return {**card, "max_model_len": context if isinstance(context, int) else None}

    async def count_tokens(self, body: dict[str, Any]) -> int | None:
        """Tokens of a prompt as vLLM counts them; None from servers that cannot say."""
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

    async def ask(self, body: dict[str, Any], on_fault: Callable[[Fault], None] = lambda fault: None) -> Reply:
        """Ask until an answer comes or the tries are used up. `on_fault` is told of every try that failed.

        Raises:
            Fault: no answer; the last reason.
            UserError: asking is of no use for any request: key, model.
        """
        for number in range(1, self.max_tries + 1):
            try:
                return await self._try(body, number)
            except Fault as fault:
                self.faults[fault.kind] += 1
                on_fault(fault)
                if not fault.again or number == self.max_tries:
                    raise
                backoff = min(LONGEST_DELAY, self.first_delay * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
                await asyncio.sleep(max(backoff, min(fault.wait * random.uniform(1.0, 1.1), LONGEST_RETRY_AFTER)))
        raise AssertionError("unreachable: the last try returns or raises")

    async def _try(self, body: dict[str, Any], number: int) -> Reply:
        started = time.monotonic()
        given = {"model": self.model, "stream": False, **body}
        chat = "messages" in body
        create = self._client.chat.completions.create if chat else self._client.completions.create
        extra = given.pop("extra_body", None)
        reply = await self._within_limit(create(**given, extra_body=extra))
        try:
            return self._read(reply, chat, time.monotonic() - started, number)
        except (AttributeError, TypeError, LookupError, ValueError):  # valid JSON of another shape
            raise Fault("not JSON", "the reply is no completion") from None

    async def _within_limit(
        self, request: Any, missing: type[Exception] | tuple[()] = (), limit: float | None = None
    ) -> Any:
        """Await a request; whatever goes wrong, but what the caller expects, becomes a Fault or a UserError."""
        import openai

        limit = min(self.time_limit, limit or self.time_limit)
        try:
            return await asyncio.wait_for(request, limit)
        except missing:
            raise
        except (TimeoutError, openai.APITimeoutError):
            raise Fault("time-out", f"no whole reply within {limit:g} s") from None
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            raise Fault("connection", self._message(f"connection lost ({type(reason).__name__})")) from None
        except openai.APIStatusError as error:
            raise self._of_status(error) from None
        except (openai.APIResponseValidationError, ValueError, RecursionError) as error:
            raise Fault("not JSON", self._message(f"the reply is no JSON ({type(error).__name__})")) from None

    def _of_status(self, error: Any) -> Exception:
        status = error.status_code
        text = self._message(f"HTTP {status}: {error.message}")[:500]  # cut last, or half a key could stay
        if status in (401, 403):
            return UserError(
                f"{self.name} at {self.url} refuses the key ({text}). See which key is in force with "
                "`rlfr-eval settings`."
            )
        if status == 404:
            return UserError(f"{self.name} at {self.url} does not know {self.model!r} or the path ({text}). "
                             "One that knows only chat needs --prompt chat, r1 or r1-nothink.")  # fmt: skip
        if status in (400, 413, 422):
            if any(word in text.lower() for word in CONTEXT_WORDS):
                return Fault(TOO_LONG, text, again=False)
            return Fault("refused", text, again=False)
        if status == 429:
            return Fault("rate limit", text, wait=retry_after(error.response.headers.get("retry-after")))
        return Fault("server error", text, wait=retry_after(error.response.headers.get("retry-after")))

    def _read(self, reply: Any, chat: bool, seconds: float, number: int) -> Reply:
        """An answer from a reply, or a Fault: a reply that says nothing is no answer."""
        if not hasattr(reply, "choices"):
            raise Fault("not JSON", "the reply is no completion")
        if not reply.choices:
            raise Fault("empty", "the reply has no choices")
        served = reply.model or ""
        if served and served != self.model and not DATED.fullmatch(served.removeprefix(self.model)):
            raise Fault("wrong model", f"asked {self.model!r}, {served!r} answered")
        choice = reply.choices[0]
        text = choice.message.content if chat else choice.text
        if isinstance(text, list):  # content in parts
            text = "".join(part["text"] for part in text if part.get("type") == "text")
        if choice.finish_reason in ABORTED:
            raise Fault("aborted", f"the server broke the answer off ({choice.finish_reason})")
        extra = (choice.message.model_extra or {}) if chat else {}
        reasoning = extra.get("reasoning_content") or extra.get("reasoning") or ""
        tokens = reply.usage.completion_tokens if reply.usage else None
        if not text and not reasoning and not tokens:
            raise Fault("empty", "the reply has no text and says of no token that it was made")
        return Reply(
            text=self._message(str(text or "")),
            reasoning=self._message(reasoning) if isinstance(reasoning, str) else "",
            finish_reason=choice.finish_reason or "",
            prompt_tokens=reply.usage.prompt_tokens if reply.usage else None,
            completion_tokens=tokens,
            seconds=round(seconds, 3),
            model=served or self.model,
            tries=number,
        )

    def _message(self, text: str) -> str:
        return redact(text, [self.api_key])


def retry_after(header: str | None) -> float:
    """Seconds of a Retry-After header, which may also be a date; 0 without one.

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
