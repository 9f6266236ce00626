"""Draw responses from a served policy: an OpenAI-style server with chat completions.

vLLM's servers, which say so in their list of models, also get what only they know: the ban of vision tokens, and to
tell token ids and log-probs. Other servers tell neither. vLLM's and lmdeploy's draw by the request alone.
"""

import asyncio
import base64
import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from rlfr_vlm.data.rows import Messages, Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import VISION_TOKENS
from rlfr_vlm.redaction import PLACEHOLDER, redact_text
from rlfr_vlm.sampling.engine import Sample, Sampling
from rlfr_vlm.servers.request_fields import VLLM, neutral_sampling

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion
    from PIL.Image import Image

KEY = "RLFR_API_KEY"
OPENAI_HOST, OPENAI_KEY = "api.openai.com", "OPENAI_API_KEY"
LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1", "0.0.0.0"])
TIME_LIMIT = 1800.0  # seconds for one try of a request
SHORT_LIMIT = 30.0  # seconds for the list of models
RETRIES = 5  # after lost connections, time-outs, rate limits and errors of the server, with growing delays
REASONING_KEYS = ("reasoning_content", "reasoning")  # where servers put reasoning that they take out of a response
ENDED = ("stop", "length")  # finish reasons of a response that is the policy's


def server_address(text: str) -> str:
    """Return the address of a server up to `/v1`.

    >>> server_address("http://h:8000"), server_address("https://h/v1/")
    ('http://h:8000/v1', 'https://h/v1')

    Raises:
        UserError: the text is no such address, or it holds a password or a key.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        raise UserError(
            f"--engine is {redact_text(text)!r}; it may be hf, vllm, or the address of a server such as "
            "http://127.0.0.1:8000/v1."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"--engine is {redact_text(text)!r}, which has a user, a password or a part after `?` or `#`. Give the "
            f"address alone, and the key in {KEY}."
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))


def api_key(address: str) -> str:
    """Return the key for a server: RLFR_API_KEY of the environment, else of the nearest `.env`; "" without one.

    OPENAI_API_KEY is sent to OpenAI's own server only.

    Raises:
        UserError: the key has characters that no key has.
    """
    from dotenv import dotenv_values, find_dotenv

    names = [KEY, OPENAI_KEY] if urlsplit(address).hostname == OPENAI_HOST else [KEY]
    sources = (os.environ, dotenv_values(find_dotenv(usecwd=True), interpolate=False))
    key = next((source[name] for name in names for source in sources if source.get(name)), None) or ""
    if not key.isascii() or not key.isprintable():
        raise UserError(f"The key in {' or '.join(names)} has characters that no key has. Copy it again.")
    return key.strip()


class EndpointEngine:
    """Draws responses from a server, one request for each; those of a call are sent at the same time.

    Args:
        address: of the server, as `server_address` returns it.
        model: name of the served policy.
        sampling: how responses are drawn.

    Raises:
        UserError: the server cannot be reached, refuses the key, or does not serve the model.
    """

    processing_class = None

    def __init__(self, address: str, model: str, sampling: Sampling) -> None:
        import openai

        self.address, self.model, self.sampling = address, model, sampling
        self.answered = False  # whether any request has succeeded
        self._key = api_key(address)
        self._runner = asyncio.Runner()  # Ctrl-C ends its requests, where threads would wait for their replies
        self._client = openai.AsyncOpenAI(
            base_url=address,
            api_key=self._key or "EMPTY",
            max_retries=1,
            timeout=TIME_LIMIT,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=urlsplit(address).hostname not in LOOPBACK,  # a proxy cannot reach this machine's servers
                follow_redirects=False,  # another server would get the key
            ),
        )
        # openai takes these from the environment, for any server (3.57)
        self._client.organization = self._client.project = None
        self._client._custom_headers = {}
        self.owner = self._runner.run(self._check_served())
        self._client.max_retries = RETRIES  # a copy of the client would take the headers from the environment again

    def sample(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Sample]:
        """Draw one response to each row with its own seed. A request that the server refuses for good is a fault.

        Raises:
            UserError: the server is lost, refuses the key, or refuses all requests from the first one on.
        """
        samples = self._runner.run(self._ask_all(rows, seeds))
        self.answered = self.answered or any(not sample.fault for sample in samples)
        if not self.answered:
            raise UserError(f"{self.address} answers none of the first {len(samples)} requests: {samples[0].fault}.")
        return samples

    async def _ask_all(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Sample]:
        tasks = [asyncio.create_task(self._ask(row, seed)) for row, seed in zip(rows, seeds, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # after an error of one
                task.cancel()

    async def _ask(self, row: Row, seed: int) -> Sample:
        import openai

        try:
            reply = await self._client.chat.completions.create(**self._request(row, seed))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return _fault(f"the server refuses the request: {self._text(error)}")
        except openai.OpenAIError as error:
            if getattr(error, "status_code", None) == 413:  # the images are too large for the server
                return _fault(f"the server refuses the request: {self._text(error)}")
            raise self._lost(error) from None
        except ValueError as error:
            return _fault(f"the reply is not JSON: {self._text(error)}")
        return _sample_of(reply)

    def _request(self, row: Row, seed: int) -> dict[str, Any]:
        sampling = self.sampling
        extra = neutral_sampling(self.owner) | ({"top_k": sampling.top_k} if sampling.top_k else {})
        arguments: dict[str, Any] = {}
        if self.owner == VLLM:
            extra |= {"return_token_ids": True, "bad_words": list(VISION_TOKENS)}
            arguments["logprobs"] = True
        return {
            "model": self.model,
            "messages": request_messages(row["prompt"], row["images"]),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
            **arguments,
            "extra_body": extra or None,
        }

    async def _check_served(self) -> str:
        """Check that the server can be reached and serves the model. Returns whose server it is; "" if unknown.

        Raises:
            UserError: it cannot, or does not.
        """
        import openai

        try:
            cards = list((await self._client.models.list(timeout=SHORT_LIMIT)).data)
        except openai.NotFoundError:  # no list of models: the first request shows whether the name is right
            return ""
        except openai.OpenAIError as error:
            raise self._lost(error) from None
        except (AttributeError, TypeError, ValueError):
            raise UserError(f"{self.address} is no OpenAI-style server: its /models is no list.") from None
        names = [card.id for card in cards]
        if names and self.model not in names:
            raise UserError(
                f"{self.address} does not serve {self.model!r}; it serves {', '.join(names[:10])}. Name one of them "
                "with --policy."
            )
        return next((str(getattr(card, "owned_by", "")) for card in cards if card.id == self.model), "")

    def _lost(self, error: "openai.OpenAIError") -> UserError:
        import openai

        if isinstance(error, openai.APIConnectionError):
            reason = type(error.__cause__ or error).__name__
            return UserError(
                f"Cannot reach the server {self.address} ({reason}). Start it, or give its address with --engine; the "
                "same command goes on where it stopped."
            )
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return UserError(f"{self.address} refuses the key ({self._text(error)}). Set {KEY} to its key.")
        return UserError(
            f"{self.address} does not answer ({self._text(error)}). The same command goes on where it stopped."
        )

    def _text(self, error: Exception) -> str:
        """Return a server's error text in one line, with the key masked."""
        text = " ".join(str(error).split())
        return redact_text(text.replace(self._key, PLACEHOLDER) if self._key else text)[:300]


def request_messages(messages: Messages, images: "Sequence[Image]") -> Messages:
    """Return a row's messages with its images as data URLs in their places."""
    waiting = iter(images)

    def content(blocks: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
        if isinstance(blocks, str):
            return blocks
        return [
            {"type": "image_url", "image_url": {"url": data_url(next(waiting))}} if block["type"] == "image" else block
            for block in blocks
        ]

    return [{**message, "content": content(message["content"])} for message in messages]


def data_url(image: "Image") -> str:
    """Return an image as a data URL of a PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _sample_of(reply: "ChatCompletion") -> Sample:
    """Convert a reply.

    Raises:
        UserError: the server takes the reasoning out of responses, so that none is whole.
    """
    if not getattr(reply, "choices", None):
        return _fault("the reply has no choices")
    choice = reply.choices[0]
    if choice.finish_reason not in ENDED:
        return _fault(f"the server ended the response with {choice.finish_reason}")
    extra = choice.message.model_extra or {}
    if any(extra.get(key) for key in REASONING_KEYS):
        raise UserError(
            "The server takes the reasoning out of responses, so they would not be the policy's. Start it without a "
            "reasoning parser."
        )
    logps = choice.logprobs.content if choice.logprobs else None
    return Sample(
        choice.message.content or "",
        (choice.model_extra or {}).get("token_ids"),
        None if logps is None else sum(token.logprob for token in logps),
        choice.finish_reason == "length",
    )


def _fault(text: str) -> Sample:
    return Sample("", None, None, False, text)
