"""Probabilities of reference answers under the policy (RLPR, arXiv 2506.18254).

The reward function is rlfr_vlm/rewards/reference_probability.py. The current policy's probabilities come from one
teacher-forced pass over prompt and spliced response, chunked like every other log-prob pass. The initial policy's are
computed before training and cached on disk, keyed by policy, prompt, images and answer.

Letters: B rows, T tokens of the longest spliced response.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import DistributedType
from torch import Tensor, nn
from tqdm import tqdm

from rlfr_vlm.data.encode import (
    Encoded,
    TemplateArguments,
    append_responses,
    encode_prompts,
    render_prompt,
    tokenizer_of,
)
from rlfr_vlm.data.prompts import videos_in
from rlfr_vlm.data.rows import Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_folder
from rlfr_vlm.models import family_of
from rlfr_vlm.models.pass_images import counted_images
from rlfr_vlm.models.row_media import media_of_rows
from rlfr_vlm.rewards.reference_probability import Spliced, overlapping, unreasoned
from rlfr_vlm.trainer.trl_seams import ImageInputs

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

CACHE_FOLDER = "reference_probability"
EMPTY = Spliced("-", 0, 0)  # for a row without a valid response, so that all ranks do the same number of passes


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean of values (B, T) where mask (B, T); 0 for a row without any.

    >>> mean_over(torch.tensor([[0.5, 0.25, 1.0]]), torch.tensor([[True, True, False]])).tolist()
    [0.375]
    """
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


class PolicyProbabilities:
    """Computes the probability of reference answers under a policy.

    Args:
        policy: returns the policy; a trainer may wrap it while training.
        logps: (input_ids, attention_mask, T, batch_size, images) -> (B, T) log-probs of the policy, with the run's
            ban on vision tokens and its temperature.
        processing_class: of the policy.
        args: settings of the run.
        accelerator: of the run.
        template_kwargs: further arguments of the chat template.
        mode: `rlpr_mode`, how responses mark their answer.
    """

    def __init__(
        self,
        policy: Callable[[], nn.Module],
        logps: Callable[[Tensor, Tensor, int, int, ImageInputs], Tensor],
        processing_class: "ProcessingClass",
        args: "RLFRConfig",
        accelerator: "Accelerator",
        template_kwargs: TemplateArguments,
        mode: str,
    ) -> None:
        tokenizer = tokenizer_of(processing_class)
        if not tokenizer.is_fast:
            raise UserError("The reward reference_probability needs a fast tokenizer, for the offsets of tokens.")
        self.policy, self.logps = policy, logps
        self.processing_class, self.tokenizer = processing_class, tokenizer
        self.args, self.accelerator, self.template_kwargs, self.mode = args, accelerator, template_kwargs, mode
        self.limit = args.rlpr_max_tokens or _context_length(policy())
        self._baseline: dict[str, float] = {}
        self._fingerprint = ""

    def current(self, rows: Sequence[Row], texts: Sequence[Spliced | None]) -> list[float]:
        """Mean probability of each reference under the current policy; 0 where the text is missing or too long."""
        tokens = [self._tokenize(text or EMPTY) for text in texts]
        prompts = encode_prompts(self.processing_class, rows, self.template_kwargs)
        lengths = prompts.attention_mask.sum(dim=1).tolist()
        for row, (ids, _) in enumerate(tokens):
            if texts[row] is None or lengths[row] + len(ids) > self.limit:
                # the row's length without padding, so that the value does not depend on the other rows of the batch
                tokens[row] = ([ids[-1]], [False])
        return self._probabilities(rows, prompts, tokens)

    def baseline(self, rows: Sequence[Row], references: Sequence[str]) -> list[float]:
        """Mean probability of each reference right after its prompt, under the initial policy.

        Raises:
            UserError: a row was not among those seen by `prepare`.
        """
        if not self._fingerprint:
            raise UserError("The initial policy's reference probabilities are computed by train(); call it first.")
        keys = self._keys(rows, references)
        if missing := [key for key in keys if key not in self._baseline]:
            raise UserError(
                f"{len(set(missing))} rows have no reference probability under the initial policy: their prompt or "
                "images differ from the training set's. Rows must not change from one reading to the next."
            )
        return [self._baseline[key] for key in keys]

    def prepare(self, dataset: "Dataset", batch_size: int) -> None:
        """Compute the baseline of a data set, except for cached values, while the policy is the initial one."""
        accelerator = self.accelerator
        if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise UserError(
                f"rlpr_debias is not supported with {accelerator.distributed_type.value} yet: the initial policy's "
                "probabilities are computed before its weights are sharded. Set rlpr_debias: false, or train with "
                "plain data parallelism."
            )
        self._fingerprint = self._fingerprint or self._setting_fingerprint()
        folder = cache_folder(CACHE_FOLDER, Path(self.args.output_dir))
        self._baseline = _read_cache(folder, self._fingerprint)
        indices = range(accelerator.process_index, len(dataset), accelerator.num_processes)
        batches = [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
        longest = -(-len(range(0, len(dataset), accelerator.num_processes)) // batch_size)
        batches += [[0]] * (longest - len(batches))  # all ranks do the same number of passes
        path = folder / f"{self._fingerprint}-{accelerator.process_index}.jsonl"
        for batch in tqdm(
            batches, desc="reference probabilities", unit="batch", disable=not accelerator.is_main_process, leave=False
        ):
            rows = [dataset[number] for number in batch]
            self._extend(path, rows, [reference_of(row) for row in rows])
        accelerator.wait_for_everyone()
        self._baseline = _read_cache(folder, self._fingerprint)

    def _setting_fingerprint(self) -> str:
        """Hash of the policy and of the settings that a probability depends on, besides the row."""
        processor = getattr(self.processing_class, "image_processor", None)
        settings = [
            self.args.temperature,
            self.args.ban_vision_tokens,
            self.limit,
            self.mode,
            getattr(processor, "size", None),
            sorted(self.template_kwargs.items()),
        ]
        return f"{policy_fingerprint(self.policy())}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}"

    def _extend(self, path: Path, rows: Sequence[Row], references: Sequence[str]) -> None:
        keys = self._keys(rows, references)
        accelerator = self.accelerator
        missing = torch.tensor([sum(key not in self._baseline for key in keys)], device=accelerator.device)
        if int(accelerator.gather(missing).sum()) == 0:  # on all ranks, which do the same number of passes
            return
        texts = [unreasoned(reference, self.mode) for reference in references]
        values = dict(zip(keys, self.current(rows, texts), strict=True))
        new = {key: value for key, value in values.items() if key not in self._baseline}
        self._baseline |= new
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write("\n" + "".join(f"{json.dumps([key, value])}\n" for key, value in new.items()))

    def _tokenize(self, text: Spliced) -> tuple[list[int], list[bool]]:
        """Token ids of a spliced response with its end token, and a mask of those that overlap the reference."""
        encoded = self.tokenizer(text.text, add_special_tokens=False, return_offsets_mapping=True)
        mask = overlapping(encoded["offset_mapping"], text.start, text.end)
        return [*encoded["input_ids"], self.tokenizer.eos_token_id], [*mask, False]

    @torch.no_grad()
    def _probabilities(
        self, rows: Sequence[Row], prompts: Encoded, tokens: Sequence[tuple[list[int], list[bool]]]
    ) -> list[float]:
        pad = self.tokenizer.eos_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        batch = append_responses(prompts, [ids for ids, _ in tokens], pad).to(self.accelerator.device)
        length = batch.completion_mask.shape[1]
        is_reference = torch.zeros(len(rows), length, dtype=torch.bool)
        for row, (_, mask) in enumerate(tokens):
            is_reference[row, : len(mask)] = torch.tensor(mask)
        row_images = [row.get("images") or [] for row in rows]
        policy = self.policy()
        videos = [len(videos_in(row["prompt"])) for row in rows]
        images: dict[str, Any] = {"media": None}  # not those of the rollout, whose rows may be other ones
        if any(videos):  # TRL's pass takes no videos
            images["media"] = media_of_rows(batch.extra, list(map(len, row_images)), videos)
        else:
            images |= counted_images(family_of(policy), batch.extra, row_images, self.processing_class)
        training = policy.training
        policy.eval()
        batch_size = self.args.rlpr_batch_size or self.args.per_device_train_batch_size
        logps = self.logps(batch.input_ids, batch.attention_mask, length, batch_size, images)
        policy.train(training)
        return mean_over(logps.float().exp().cpu(), is_reference).tolist()

    def _keys(self, rows: Sequence[Row], references: Sequence[str]) -> list[str]:
        images: dict[int, bytes] = {}  # hash of each image object: the rows of a group share their images
        keys = []
        for row, reference in zip(rows, references, strict=True):
            digest = hashlib.sha256(self.mode.encode())
            digest.update(
                render_prompt(self.processing_class, row["prompt"], self.template_kwargs).encode("utf-8", "replace")
            )
            frames = [frame for video in videos_in(row["prompt"]) for frame in video.frames]
            for image in [*(row.get("images") or []), *frames]:
                if id(image) not in images:
                    images[id(image)] = hashlib.sha256(
                        image.tobytes() + str((image.mode, image.size)).encode()
                    ).digest()
                digest.update(images[id(image)])
            digest.update(b"\x00" + reference.encode("utf-8", "replace"))
            keys.append(digest.hexdigest()[:32])
        return keys


def reference_of(row: Row) -> str:
    """The reference answer of a row, as the reward takes it."""
    from rlfr_vlm.grading import gold_list

    return gold_list(row["answer"])[0].strip()


def policy_fingerprint(model: nn.Module) -> str:
    """Hash of the names, shapes and sums of all weights."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().double()
        digest.update(f"{name} {tuple(values.shape)} {values.sum().item()!r} {values.abs().sum().item()!r}".encode())
    return digest.hexdigest()[:16]


def _context_length(model: "PreTrainedModel") -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 0)) or 1 << 30


def _read_cache(folder: Path, fingerprint: str) -> dict[str, float]:
    """Read the files of all ranks. A truncated line is skipped, and its value is computed again."""
    values: dict[str, float] = {}
    for path in sorted(folder.glob(f"{fingerprint}-*.jsonl")):
        values |= dict(_lines(path))
    return values


def _lines(path: Path) -> Iterable[tuple[str, float]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            key, value = json.loads(line)
            yield str(key), float(value)
        except (ValueError, TypeError):
            continue
