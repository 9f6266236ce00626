"""The model that is measured is always behind a URL: a server that runs, or one that we start for it."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlfr_eval.model.fingerprint import fingerprint
from rlfr_eval.model.server import HOST, Server, fill, free_port, vllm_command
from rlfr_eval.model.urls import base_url
from rlfr_eval.progress import Clock
from rlfr_eval.settings import json_object, without_secrets
from rlfr_vlm.errors import UserError

ADAPTER_FILE = "adapter_config.json"
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of LoRA, as vLLM 0.31 allows them


@dataclass(frozen=True)
class ServingOptions:
    """How the model is reached.

    Attributes:
        model: path or hub id to serve here; with `url`, the id to ask there.
        url: a server that runs already.
        command: starts a server, instead of vLLM.
        arguments: more options for vLLM.
        adapter: a LoRA adapter is served `native` (vLLM applies it) or `merged` into a copy of its base.
        base_model: of an adapter, instead of the one it names.
    """

    model: str = ""
    url: str = ""
    command: str = ""
    arguments: tuple[str, ...] = ()
    port: int = 0
    adapter: str = "native"
    base_model: str = ""
    start_limit: float = 1200.0

    def __post_init__(self) -> None:
        if not self.model and not self.url:
            raise UserError("Say what to measure: --model PATH_OR_HUB_ID, or --base-url of a server that runs.")
        if self.model and not self.url:
            folder = Path(self.model).expanduser()
            looks_local = self.model.startswith((".", "/", "~")) or self.model.count("/") > 1
            if looks_local and not folder.is_dir():
                raise UserError(f"--model {self.model} is no folder.")
            if folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", ADAPTER_FILE)):
                raise UserError(f"--model {self.model} has no config.json; it is no Hugging Face model folder.")
        if self.command and self.arguments:
            raise UserError(
                "--server-args are for vLLM; a command of your own (RLFR_EVAL_SERVER_CMD) holds its options."
            )
        if self.command and self.is_adapter() and self.adapter == "native":
            raise UserError("A command of your own cannot be told of an adapter. Add --adapter merged.")
        if any(word.split("=")[0] == "--api-key" for word in self.arguments):
            raise UserError(
                "A key has no place on a command line; the server that is started listens to this machine only."
            )

    @property
    def name(self) -> str:
        """What the model is called in requests and results."""
        return Path(self.model).expanduser().resolve().name if self.folder else self.model

    @property
    def label(self) -> str:
        """A folder's name for results. Two experiments may both have a `checkpoint-160`, two servers a `default`."""
        if self.folder:
            return "--".join(self.folder.resolve().parts[-2:])
        where = urlsplit(base_url(self.url)).netloc.replace(":", "-") if self.url else ""
        return "--".join(part for part in (where, self.name.replace("/", "--")) if part)

    @property
    def folder(self) -> Path | None:
        """The model's folder, if it is one on this machine."""
        folder = Path(self.model).expanduser()
        return folder if self.model and not self.url and folder.is_dir() else None

    def is_adapter(self) -> bool:
        return self.folder is not None and (self.folder / ADAPTER_FILE).is_file()

    def base(self) -> str:
        """Base model of an adapter.

        Raises:
            UserError: it names none, and none is given.
        """
        assert self.folder is not None
        named = str(read_json(self.folder / ADAPTER_FILE).get("base_model_name_or_path") or "")
        if not (self.base_model or named):
            raise UserError(f"The adapter {self.model} does not name its base model. Give it with --base-model.")
        return self.base_model or named

    def identity(self) -> dict[str, Any]:
        """What ties answers to this model. A server that runs says for itself what it is."""
        found: dict[str, Any] = {"name": self.name}
        if self.folder:
            found["fingerprint"] = fingerprint(self.folder)
        if self.is_adapter():
            found |= {"base_model": self.base(), "adapter": self.adapter}
        return found | {"served_by": without_secrets(self.command) or ["vllm", *map(without_secrets, self.arguments)]}

    def context(self) -> int | None:
        """Positions the model was made for; None when only the server that will serve it can tell."""
        path = (self.folder or Path("nowhere")) / "config.json"
        if not path.is_file() or self.command or self.arguments:
            return None
        config = read_json(path)
        text = config.get("text_config") or config
        stretched = any((text.get(name) or {}).get("factor") for name in ("rope_scaling", "rope_parameters"))
        return None if stretched else text.get("max_position_embeddings")


def read_json(path: Path) -> dict[str, Any]:
    """A model's configuration.

    Raises:
        UserError: it is broken.
    """
    try:
        return json_object(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


@dataclass
class Served:
    """Where the model answers, under which name, and the server if it is ours."""

    url: str
    name: str
    server: Server | None = field(default=None)


@contextmanager
def served(options: ServingOptions, folder: Path) -> Iterator[Served]:
    """Yield where the model answers; stop on leaving what was started.

    Args:
        folder: takes the server's log.

    Raises:
        UserError: no server can be started, or it does not come up; with the end of its log.
    """
    if options.url:
        yield Served(base_url(options.url), options.model)
        return
    with ExitStack() as stack:
        model, name, base_name, more = options.model, options.name, options.name, list(options.arguments)
        if options.is_adapter() and options.adapter == "merged":
            folder.mkdir(parents=True, exist_ok=True)
            model = stack.enter_context(tempfile.TemporaryDirectory(prefix=".merged-", dir=folder))
            merge_adapter(options, model)
        elif options.is_adapter():
            model, base_name, more = options.base(), "base", [*more, *native_adapter(options)]
        port = options.port or free_port()
        environment: dict[str, str] = {}
        if options.command:
            command = fill(options.command, model=model, name=name, host=HOST, port=str(port))
        else:
            command, environment = vllm_command(model, base_name, port, more)
        server = Server(command, f"http://{HOST}:{port}/v1", folder / "server.log", environment, options.start_limit)
        stack.enter_context(server)
        server.wait_ready(Clock(f"starting a server for {name} (log: {server.log})"))
        yield Served(server.url, name, server)


def native_adapter(options: ServingOptions) -> list[str]:
    """vLLM's options for an adapter beside its base."""
    assert options.folder is not None
    config = read_json(options.folder / ADAPTER_FILE)
    rank = config.get("r", VLLM_RANKS[1])
    allowed = next((size for size in VLLM_RANKS if size >= rank), rank)
    return ["--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules", f"{options.name}={options.folder}"]


def merge_adapter(options: ServingOptions, folder: str) -> None:
    """Merge an adapter into a copy of its base in `folder`, in the base's own precision."""
    from peft import PeftModel
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )

    base = options.base()
    sees = hasattr(AutoConfig.from_pretrained(base), "vision_config")
    cls = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    policy = PeftModel.from_pretrained(cls.from_pretrained(base, dtype="auto"), options.model)
    policy.merge_and_unload().save_pretrained(folder)
    own = (Path(options.model) / "tokenizer_config.json").is_file()  # an adapter may have learned new tokens
    (AutoProcessor if sees else AutoTokenizer).from_pretrained(base).save_pretrained(folder)
    if own:
        AutoTokenizer.from_pretrained(options.model).save_pretrained(folder)
