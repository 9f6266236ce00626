"""Load a policy and its processor from a local folder or a hub id."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.encode import tokenizer_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.four_bit import four_bit_config, refuse_four_bits
from rlfr_vlm.models import ModelFamily, family_of_config, family_of_processor
from rlfr_vlm.models.refused import refuse_by_name
from rlfr_vlm.options import DataOptions, RunOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainingArguments


def load_processor(
    name: str, options: DataOptions, **kwargs: str | bool | None
) -> "ProcessorMixin | PreTrainedTokenizerBase":
    """Load a model's processor (or tokenizer, for a text-only policy) with the pixel limits of the options.

    Args:
        name: folder or hub id.
        options: the pixel limits.
        kwargs: arguments of `from_pretrained`, such as revision.

    Raises:
        UserError: it cannot be loaded, has no chat template, or cannot keep the pixel limits.
    """
    from huggingface_hub.errors import StrictDataclassError  # a value of config.json has a wrong type
    from transformers import AutoConfig, AutoProcessor, PreTrainedConfig

    try:
        refuse_by_name(PreTrainedConfig.get_config_dict(name, **kwargs)[0].get("model_type"))
        config = AutoConfig.from_pretrained(name, **kwargs)
        family = family_of_config(config, f"The model {name!r}")
        processing_class = AutoProcessor.from_pretrained(name, padding_side="left", **kwargs)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, StrictDataclassError) as error:
        raise _cannot_load(name, error, only_local=bool(kwargs.get("local_files_only"))) from None
    if family.vision_tower is not None:
        _check_images(name, family, processing_class)
    limits = options.image_min_pixels, options.image_max_pixels
    if limits != (None, None):
        family.limit_pixels(processing_class, *limits)
    if not (getattr(processing_class, "chat_template", None) or tokenizer_of(processing_class).chat_template):
        raise UserError(
            f"The model {name!r} has no chat template, so its prompts cannot be built. Use an instruction-tuned "
            "model, or put a chat_template.jinja into its folder."
        )
    return processing_class


def _check_images(
    name: str, family: ModelFamily, processing_class: "ProcessorMixin | PreTrainedTokenizerBase"
) -> None:
    """Refuse the processor of another family.

    Raises:
        UserError: the policy's images cannot be processed.
    """
    if (found := family_of_processor(processing_class)) is not family:
        raise UserError(
            f"The model {name!r} is a {family.name} policy, but its processor {type(processing_class).__name__} "
            f"belongs to {found.name}. Load the processor that belongs to the policy."
        )


def why_unread(error: Exception, only_local: bool = False) -> str:
    """Say in one sentence why transformers could not read a model.

    Args:
        only_local: whether the hub was not to be asked.
    """
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not isinstance(error.__cause__, LocalEntryNotFoundError):
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    missing = "it is no folder and in no cache on this machine"
    if only_local:
        return f"{missing}."
    if is_offline_mode():
        return f"{missing}, and HF_HUB_OFFLINE=1 forbids to ask the hub."
    return f"{missing}, and the hub cannot be reached."


def _cannot_load(name: str, error: Exception, only_local: bool = False) -> UserError:
    reason = why_unread(error, only_local)
    return UserError(
        f"Cannot load the model {name!r}: {reason} Give a model folder, or a hub id this machine can reach."
    )


def refuse_missing_folder(name: str) -> None:
    """Refuse the name of a model that can only be a folder, and is none.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise UserError(f"No model at {name}. Give an existing folder or a hub id.")


def policy_name(options: RunOptions) -> str:
    """Return the name of the policy.

    Raises:
        UserError: none is set, or it can only be a folder, and there is none.
    """
    name = options.model_name_or_path
    if not name:
        raise UserError("model_name_or_path is not set. Give a local folder or a hub id.")
    refuse_missing_folder(name)
    return name


def load_policy(
    options: RunOptions, *, trust_remote_code: bool = False
) -> "tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase]":
    """Load the policy and its processor (or tokenizer, for a text-only policy).

    Raises:
        UserError: no model is set, or it cannot be loaded.
    """
    from transformers import AutoConfig

    name = policy_name(options)
    refuse_four_bits(options)
    kwargs: dict[str, Any] = {"dtype": options.dtype}
    if options.load_in_4bit:
        config = AutoConfig.from_pretrained(name, revision=options.model_revision, trust_remote_code=trust_remote_code)
        kwargs["quantization_config"] = four_bit_config(family_of_config(config, f"The model {name!r}"))
    if options.attn_implementation:
        kwargs["attn_implementation"] = options.attn_implementation
    return load_model_and_processor(
        name, options, revision=options.model_revision, trust_remote_code=trust_remote_code, **kwargs
    )


def load_model_and_processor(
    name: str, options: DataOptions, *, revision: str | None = None, trust_remote_code: bool = False, **kwargs: Any
) -> "tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase]":
    """Load a model and its processor (or tokenizer) by folder or hub id.

    Args:
        options: pixel limits of the processor.
        kwargs: further arguments of `from_pretrained`, such as dtype.

    Raises:
        UserError: one of them cannot be loaded.
    """
    from trl.trainer.utils import create_model_from_path

    source = {"revision": revision, "trust_remote_code": trust_remote_code}
    processing_class = load_processor(name, options, **source)
    try:
        policy = create_model_from_path(name, **source, **{"device_map": None, **kwargs})
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _cannot_load(name, error) from None
    tokenizer = tokenizer_of(processing_class)
    if tokenizer.pad_token is None:  # Llama's has none; TRL makes the same choice
        tokenizer.pad_token = tokenizer.eos_token
    return policy, processing_class


def refuse_data_parallel(args: "TrainingArguments") -> None:
    """Refuse several visible GPUs without a launcher: transformers would use `nn.DataParallel`, which is unsupported.

    Raises:
        UserError: several GPUs are visible to this process.
    """
    if args.n_gpu > 1:
        raise UserError(
            f"{args.n_gpu} GPUs are visible to one process. Start one process per GPU with `accelerate launch "
            f"--num_processes {args.n_gpu} -m rlfr_vlm.cli ...`, or show one with CUDA_VISIBLE_DEVICES=0."
        )
