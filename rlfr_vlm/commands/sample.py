"""`rlfr sample`: draw several responses to each prompt, grade them, and write them as rows for the other commands."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import EXIT_INTERRUPTED, UserError, nearest
from rlfr_vlm.options import DataOptions, check_ranges
from rlfr_vlm.sources import checked_names

if TYPE_CHECKING:
    from rlfr_vlm.config_file import Settings
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.grading import GradingPool
    from rlfr_vlm.sampling.engine import Engine, Sampling
    from rlfr_vlm.sampling.prompts import Draw, Prompts
    from rlfr_vlm.sampling.sample_file import SampleFile

SUMMARY = "draw several responses to each prompt, graded, as rows for the other commands; pass@k, difficulty"
ENGINES = ("hf", "vllm")
BATCH_SIZES = {"hf": 8, "vllm": 256}  # responses; of a server, requests at a time
SERVER_BATCH = 32
RANGES = (
    ("n", 1, float("inf")),
    ("samples", 1, float("inf")),
    ("max_new_tokens", 1, float("inf")),
    ("batch_size", 1, float("inf")),
    ("temperature", 0, float("inf")),
    ("top_p", 0, 1),
    ("top_k", 0, float("inf")),
    ("grading_tolerance", 0, 1),
    ("vllm_gpu_memory_utilization", 0, 1),
    ("vllm_max_model_length", 1, float("inf")),
    ("vllm_tensor_parallel_size", 1, float("inf")),
)


@dataclass
class SampleOptions:
    """Options of `rlfr sample`."""

    policy: str = field(default="", metadata={"help": "Folder or hub id of the policy; its served name, at a server."})
    data: str | list[str] = field(default_factory=str, metadata={"help": "Short for dataset_name."})
    n: int | None = field(
        default=None, metadata={"help": "Number of prompts, spread evenly over the data; unset: all."}
    )
    samples: int = field(default=8, metadata={"help": "Responses drawn to each prompt."})
    out: str = field(
        default="outputs/samples.jsonl",
        metadata={
            "help": "File of the rows. The settings are written beside it as .config.yaml, the summary as "
            ".summary.json. The same command goes on with a file that is not finished."
        },
    )
    engine: str = field(
        default="hf",
        metadata={
            "help": "hf: transformers. vllm: vLLM in this process. Or the address of a server, such as "
            "http://127.0.0.1:8000/v1, whose key is RLFR_API_KEY of the environment or of .env."
        },
    )
    temperature: float = field(default=1.0, metadata={"help": "0 decodes greedily."})
    top_p: float = field(default=1.0, metadata={"help": "Share of the probability that is sampled from; 1 is all."})
    top_k: int = field(default=0, metadata={"help": "Number of tokens that are sampled from; 0 is all."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Maximum response length in tokens."})
    seed: int = field(default=0, metadata={"help": "Seed; each response's depends on it and on the response's place."})
    batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Responses drawn and written together. Unset: 8 with hf, 256 with vllm, and with a server 32 "
            "requests at a time."
        },
    )
    dtype: str = field(default="auto", metadata={"help": "Data type of the policy's weights."})
    device: str = field(default="auto", metadata={"help": "With hf: auto, cpu, cuda, cuda:1 ..."})
    no_answer_is_wrong: bool = field(
        default=True, metadata={"help": "A response without an answer is wrong; false: it is undecided."}
    )
    grading_tolerance: float = field(default=0.0, metadata={"help": "Relative, for numbers; 0 compares exactly."})
    grading_time_limit: float = field(default=1.0, metadata={"help": "Seconds for one answer; then undecided."})
    grading_workers: int = field(default=0, metadata={"help": "Processes for grading; 0 is one per core, at most 8."})
    vllm_gpu_memory_utilization: float = field(default=0.9, metadata={"help": "vllm: share of the GPU's memory."})
    vllm_max_model_length: int | None = field(
        default=None, metadata={"help": "vllm: largest number of tokens of prompt and response; unset: the policy's."}
    )
    vllm_tensor_parallel_size: int = field(default=1, metadata={"help": "vllm: number of GPUs."})

    def __post_init__(self) -> None:
        self.data = checked_names("data", self.data)
        check_ranges(self, RANGES)


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options

    return describe_options(
        "rlfr sample --policy P --data D [--samples 8] [--n 1000] [--engine hf|vllm|URL] [--out FILE.jsonl] "
        "[--config FILE.yaml]",
        "Draw responses to each prompt, grade them, and write a row for each: prompt, images, answer, response,\n"
        "completion_ids, verdict (right, wrong, undecided), logp, truncated, prompt_index, sample_index.",
        SampleOptions,
        DataOptions,
        inherited="A training configuration can be given as --config; its other keys are ignored.",
    )


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.config_file import parser_of

    return [parser_of((DataOptions, SampleOptions))]


def run(arguments: Sequence[str]) -> int:
    """Draw, grade, write, summarise. Returns the exit code."""
    from rlfr_vlm.config_file import parse_config_subset, resolved
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.flow_options import FitOptions
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.sampling.prompts import choose_prompts
    from rlfr_vlm.sampling.sample_file import SampleFile
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    silence_libraries()
    data, options = parse_config_subset(
        (DataOptions, SampleOptions), (ScriptArguments, FitOptions, RLFRConfig), arguments
    )
    data.dataset_name, options.data = options.data or data.dataset_name, ""
    check_options(options, data)
    options.batch_size = options.batch_size or BATCH_SIZES.get(options.engine, SERVER_BATCH)
    settings = resolved(data, options)
    with closing(SampleFile(Path(options.out), options.samples, options.batch_size)) as file:
        file.open(settings)
        if file.is_finished():
            print(f"{options.out} has all {len(file.outcomes)} responses: nothing is left to do. Name another --out.")
            return 0
        rows = read_rows(data, ("prompt", "answer"), options.seed)
        processing_class = _load_processor(options, data)
        prompts = choose_prompts(rows, data, processing_class, options.n)
        if options.engine != "hf":
            rows.no_videos = "other engines than hf draw and resize frames themselves; set --engine hf"
        if processing_class is not None and data.max_prompt_tokens is None:
            _refuse_long_prompts(prompts, processing_class, options)
        if file.last is not None:
            prompts.check_unchanged(file.last)
            print(f"{options.out} has {len(file.outcomes)} responses; going on behind them")
        engine = _build_engine(options, data, processing_class)
        file.start(settings)
        try:
            _draw_all(file, prompts, engine, options)
        except KeyboardInterrupt:
            print(f"stopped; {options.out} has {len(file.outcomes)} responses; the same command goes on")
            return EXIT_INTERRUPTED
        _summarise(file, prompts, settings)
    return 0


def check_options(options: SampleOptions, data: DataOptions) -> None:
    """Check the options before models and data are loaded.

    Raises:
        UserError: an option is missing or has an invalid value, or the engine is not installed.
    """
    for name, value in (("policy", options.policy), ("data", data.dataset_name)):
        if not value:
            raise UserError(f"--{name} is not set. `rlfr sample --help` shows an example.")
    if options.top_p == 0:
        raise UserError("top_p is 0, so that no token could be drawn; it must be above 0 and at most 1.")
    if options.temperature == 0 and options.samples > 1:
        raise UserError(
            f"temperature is 0, so that all {options.samples} responses to a prompt would be alike. Set --samples 1, "
            "or a temperature."
        )
    if Path(options.out).suffix != ".jsonl":
        raise UserError(f"--out is {options.out!r}; it must end in .jsonl, so that other commands can read it.")
    if options.engine == "vllm":
        from rlfr_vlm.sampling.vllm import check_installed

        check_installed()
    elif options.engine == "hf":
        from rlfr_vlm.commands.inspected_responses import device_of

        device_of(options.device)
    elif "://" in options.engine:
        from rlfr_vlm.sampling.endpoint import server_address

        options.engine = server_address(options.engine)
    else:
        raise UserError(
            f"--engine is {options.engine!r}; it may be hf, vllm, or the address of a server such as "
            f"http://127.0.0.1:8000/v1.{nearest(options.engine, ENGINES)}"
        )


def _load_processor(options: SampleOptions, data: DataOptions) -> "ProcessingClass | None":
    """Return the policy's processor or tokenizer; None if only a server has it."""
    from rlfr_vlm.policy import load_processor, refuse_missing_folder

    if options.engine not in ENGINES:
        return None
    refuse_missing_folder(options.policy)
    return load_processor(options.policy, data)


def _refuse_long_prompts(prompts: "Prompts", processing_class: "ProcessingClass", options: SampleOptions) -> None:
    """Refuse prompts that leave no room for a response in the policy's context.

    Raises:
        UserError: there are some.
    """
    from transformers import AutoConfig

    from rlfr_vlm.data.lengths import refuse_prompts_beyond_context

    context = getattr(AutoConfig.from_pretrained(options.policy).get_text_config(), "max_position_embeddings", None)
    if options.engine == "vllm" and options.vllm_max_model_length is not None:
        context = options.vllm_max_model_length
    prompts.rows.indices = prompts.numbers
    refuse_prompts_beyond_context(
        prompts.rows, processing_class, context, options.max_new_tokens, setting="max_new_tokens"
    )


def sampling_of(options: SampleOptions) -> "Sampling":
    """Return how responses are drawn."""
    from rlfr_vlm.sampling.engine import Sampling

    return Sampling(options.temperature, options.top_p, options.top_k, options.max_new_tokens)


def _build_engine(options: SampleOptions, data: DataOptions, processing_class: "ProcessingClass | None") -> "Engine":
    """Load the policy into the engine, or connect to the server.

    Raises:
        UserError: the policy cannot be loaded, or the server cannot be used.
    """
    if processing_class is None:
        from rlfr_vlm.sampling.endpoint import EndpointEngine

        return EndpointEngine(options.engine, options.policy, sampling_of(options))
    if options.engine == "vllm":
        from rlfr_vlm.sampling.vllm import VllmEngine, VllmSettings

        settings = VllmSettings(
            options.dtype,
            options.vllm_gpu_memory_utilization,
            options.vllm_max_model_length,
            options.vllm_tensor_parallel_size,
        )
        return VllmEngine(options.policy, processing_class, sampling_of(options), settings)
    from rlfr_vlm.commands.inspected_responses import device_of
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.policy import load_policy
    from rlfr_vlm.sampling.hf import HfEngine

    run_options = RunOptions(**asdict(data), model_name_or_path=options.policy, dtype=options.dtype)
    policy, processing_class = load_policy(run_options)
    return HfEngine(policy.to(device_of(options.device)), processing_class, sampling_of(options))


def _draw_all(file: "SampleFile", prompts: "Prompts", engine: "Engine", options: SampleOptions) -> None:
    """Draw, grade and append the responses that are missing, a batch at a time."""
    from tqdm import tqdm

    from rlfr_vlm.grading import PoolSettings, Verdict, shared_pool
    from rlfr_vlm.sampling.rows import replaced_columns

    pool = shared_pool(PoolSettings(options.grading_workers, options.grading_time_limit))
    draws = prompts.draws(options.samples, file.position)
    if (first := next(draws, None)) is not None:
        if not file.outcomes and (names := replaced_columns(first.row)):
            print(f"columns of the data that the rows replace: {', '.join(names)}")
        draws = chain([first], draws)
    verdicts = [outcome.verdict for outcome in file.outcomes]
    total = len(prompts.numbers) * options.samples
    with tqdm(total=total, initial=len(verdicts), desc="sample", unit="response") as bar:
        while batch := list(islice(draws, file.batch_size)):
            file.append(list(_rows_of(batch, prompts, engine, options, pool, file.path.parent)))
            verdicts += [outcome.verdict for outcome in file.outcomes[len(verdicts) :]]
            right, wrong = verdicts.count(Verdict.RIGHT.value), verdicts.count(Verdict.WRONG.value)
            bar.set_postfix_str(f"right {right / (right + wrong):.3f}" if right + wrong else "nothing decided")
            bar.update(len(batch))
        bar.total = len(verdicts)  # without the rows that were left out


def _rows_of(
    batch: Sequence["Draw"],
    prompts: "Prompts",
    engine: "Engine",
    options: SampleOptions,
    pool: "GradingPool",
    folder: Path,
) -> Iterator["Settings"]:
    """Yield the rows of a batch: its responses with their verdicts."""
    from rlfr_vlm.data.stored_media import stored_media
    from rlfr_vlm.sampling.engine import seed_of
    from rlfr_vlm.sampling.rows import grade_samples, result_row

    rows = prompts.rows
    responses = engine.sample(
        [draw.row for draw in batch], [seed_of(options.seed, draw.prompt, draw.sample) for draw in batch]
    )
    graded = grade_samples(batch, responses, options.no_answer_is_wrong, options.grading_tolerance, pool)
    media = {
        number: stored_media(row, rows.rules_of(row), folder)
        for number, row in ((number, rows.converted(number)) for number in {draw.prompt for draw in batch})
    }
    for draw, response, verdict in zip(batch, responses, graded, strict=True):
        yield result_row(draw, response, verdict, media[draw.prompt])


def _summarise(file: "SampleFile", prompts: "Prompts", settings: "Settings") -> None:
    """Print the summary and write it beside the rows."""
    from rlfr_vlm.files import write_json
    from rlfr_vlm.grading.version import grader_version
    from rlfr_vlm.provenance import package_versions
    from rlfr_vlm.sampling.summary import Summary, render

    left_out = prompts.left_out({outcome.prompt for outcome in file.outcomes})
    values = Summary.of(file.outcomes, file.samples, left_out).to_dict()
    versions = package_versions(
        ("rlfr-vlm", "torch", "transformers", "vllm", "openai", "math-verify", "reasoning-gym")
    )
    made = {"settings": settings, "grader": grader_version(), "versions": versions}
    write_json(file.summary_path, {**values, **made})
    print(render(values))
    print(f"rows: {file.path}\nsummary: {file.summary_path}")
    if any(outcome.outside for outcome in file.outcomes):
        root = prompts.rows.media_folder
        print(f"image files lie outside {file.path.parent}: commands that read the rows need --media_root {root}")
