"""Provide the URL of the model under evaluation: a running server, or one that is started here."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from rlfr_eval.run.folder import masked_with_digest
from rlfr_vlm.env_settings import MASK, Settings, http_headers, json_object, without_secrets
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.redaction import is_secret, redact_command
from rlfr_vlm.servers.fingerprint import fingerprint
from rlfr_vlm.servers.server import HOST, Server, fill_command, free_port, vllm_command
from rlfr_vlm.servers.urls import base_url
from rlfr_vlm.servers.wait_notice import WaitNotice

ADAPTER_FILE = "adapter_config.json"
VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # allowed values of --max-lora-rank in vLLM 0.31


def headers_of(settings: Settings) -> dict[str, str]:
    """Return the HTTP headers for the server at --base-url."""
    return http_headers(settings["RLFR_EVAL_HEADERS"], "RLFR_EVAL_HEADERS")


@dataclass(frozen=True)
class ServingOptions:
    """How the model under evaluation is served.

    Attributes:
        model: path or hub id to serve here; with `url`, the name to request from that server.
        url: a running server.
        command: command that starts a server instead of vLLM.
        arguments: extra arguments for vLLM.
        port: port of the server that is started; 0 for a free one.
        adapter: how a LoRA adapter is served: `native` (by vLLM) or `merged` into a copy of its base model.
        base_model: base model of an adapter, instead of the one that the adapter names.
        moved_from: address at which a running server answered before, where the server does not say its weights.
        start_limit: seconds until the server must be ready.
    """

    model: str = ""
    url: str = ""
    command: str = ""
    arguments: tuple[str, ...] = ()
    port: int = 0
    adapter: str = "native"
    base_model: str = ""
    moved_from: str = ""
    start_limit: float = 1200.0

    def __post_init__(self) -> None:
        if not self.model and not self.url:
            raise UserError("Say what to measure: --model PATH_OR_HUB_ID, or --base-url of a running server.")
        if self.model and not self.url:
            folder = Path(self.model).expanduser()
            looks_local = self.model.startswith((".", "/", "~")) or self.model.count("/") > 1
            if looks_local and not folder.is_dir():
                raise UserError(f"--model {self.model} is no folder.")
            if folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", ADAPTER_FILE)):
                raise UserError(f"--model {self.model} has no config.json; it is no Hugging Face model folder.")
        if self.moved_from and not self.url:
            raise UserError("--moved-from goes with --base-url: it names where that server was before.")
        if self.command and self.arguments:
            raise UserError(
                "--server-args are for vLLM; put the arguments of your own command into RLFR_EVAL_SERVER_CMD."
            )
        if self.command and self.is_adapter() and self.adapter == "native":
            raise UserError("A command of your own cannot be told of an adapter. Add --adapter merged.")
        if any(word.startswith("-") and is_secret(word.split("=")[0]) for word in self.arguments):
            raise UserError(
                "A key has no place on a command line; the server that is started listens to this machine only."
            )

    @property
    def name(self) -> str:
        """The model's name in requests and results."""
        return Path(self.model).expanduser().resolve().name if self.folder else self.model

    @property
    def label(self) -> str:
        """Name of the result folder. Includes the parent folder or server, since `checkpoint-160` is ambiguous."""
        if self.folder:
            return "--".join(self.folder.resolve().parts[-2:])
        host = urlsplit(base_url(self.url)).netloc.replace(":", "-") if self.url else ""
        return "--".join(part for part in (host, self.name.replace("/", "--")) if part)

    @property
    def folder(self) -> Path | None:
        """The model's folder if it is on this machine."""
        folder = Path(self.model).expanduser()
        return folder if self.model and not self.url and folder.is_dir() else None

    def is_adapter(self) -> bool:
        return self.folder is not None and (self.folder / ADAPTER_FILE).is_file()

    def base(self) -> str:
        """Return the base model of an adapter.

        Raises:
            UserError: neither the adapter nor `base_model` names it.
        """
        assert self.folder is not None
        from_config = str(read_json(self.folder / ADAPTER_FILE).get("base_model_name_or_path") or "")
        if not (self.base_model or from_config):
            raise UserError(f"The adapter {self.model} does not name its base model. Give it with --base-model.")
        return self.base_model or from_config

    def identity(self) -> JsonObject:
        """Return the identity that ties answers to this model. A running server reports its own."""
        identity: JsonObject = {"name": self.name}
        if self.folder:
            identity["fingerprint"] = fingerprint(self.folder)
        if self.is_adapter():
            identity |= {"base_model": self.base(), "adapter": self.adapter}
        whole = self.command or ["vllm", *self.arguments]
        masked = without_secrets(self.command) or ["vllm", *redact_command(self.arguments, MASK)]
        return identity | masked_with_digest("served_by", whole, masked)

    def context(self) -> int | None:
        """Return the context length from config.json; None if only the server can tell."""
        if self.folder is None or self.command or self.arguments:
            return None
        path = self.folder / "config.json"
        if not path.is_file():
            return None
        config = read_json(path)
        text_config = config.get("text_config") or config
        scaled = any((text_config.get(name) or {}).get("factor") for name in ("rope_scaling", "rope_parameters"))
        return None if scaled else text_config.get("max_position_embeddings")


def read_json(path: Path) -> JsonObject:
    """Read a model's configuration file.

    Raises:
        UserError: the file cannot be read, or is no JSON object.
    """
    try:
        return json_object(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


@dataclass
class ServedModel:
    """Address and name of a served model, with the server if it was started here."""

    url: str
    name: str
    server: Server | None = field(default=None)


@contextmanager
def serve_model(options: ServingOptions, folder: Path) -> Iterator[ServedModel]:
    """Yield the served model. A server that is started here is stopped on exit.

    Args:
        folder: folder for the server's log and a merged adapter.

    Raises:
        UserError: no server can be started, or it does not become ready; with the end of its log.
    """
    if options.url:
        yield ServedModel(base_url(options.url), options.model)
        return
    with ExitStack() as stack:
        model, name, base_name, extra_args = options.model, options.name, options.name, list(options.arguments)
        if options.is_adapter() and options.adapter == "merged":
            folder.mkdir(parents=True, exist_ok=True)
            model = stack.enter_context(tempfile.TemporaryDirectory(prefix=".merged-", dir=folder))
            merge_adapter(options, model)
        elif options.is_adapter():
            model, base_name, extra_args = options.base(), "base", [*extra_args, *native_adapter(options)]
        port = options.port or free_port()
        environment: dict[str, str] = {}
        if options.command:
            command = fill_command(options.command, model=model, name=name, host=HOST, port=str(port))
        else:
            command, environment = vllm_command(model, base_name, port, extra_args)
        server = Server(command, f"http://{HOST}:{port}/v1", folder / "server.log", environment, options.start_limit)
        stack.enter_context(server)
        server.wait_ready(WaitNotice(f"starting a server for {name} (log: {server.log})"))
        yield ServedModel(server.url, name, server)


def native_adapter(options: ServingOptions) -> list[str]:
    """Return vLLM's arguments for serving an adapter on its base model."""
    assert options.folder is not None
    config = read_json(options.folder / ADAPTER_FILE)
    rank = config.get("r", VLLM_LORA_RANKS[1])
    max_rank = next((allowed for allowed in VLLM_LORA_RANKS if allowed >= rank), rank)
    return ["--enable-lora", "--max-lora-rank", str(max_rank), "--lora-modules", f"{options.name}={options.folder}"]


def merge_adapter(options: ServingOptions, folder: str) -> None:
    """Merge an adapter into a copy of its base model in `folder`, in the base model's precision."""
    from peft import PeftModel
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    base = options.base()
    multimodal = hasattr(AutoConfig.from_pretrained(base), "vision_config")
    model_class = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    policy = PeftModel.from_pretrained(model_class.from_pretrained(base, dtype="auto"), options.model)
    policy.merge_and_unload().save_pretrained(folder)
    (AutoProcessor if multimodal else AutoTokenizer).from_pretrained(base).save_pretrained(folder)
    # The adapter's tokenizer takes precedence: it may have new tokens.
    if (Path(options.model) / "tokenizer_config.json").is_file():
        AutoTokenizer.from_pretrained(options.model).save_pretrained(folder)
