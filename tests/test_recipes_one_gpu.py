"""Recipes for one GPU: what their document says of them is what the code computes, and their commands would start."""

import contextlib
import dataclasses
import io
import re
import shlex

import pytest

from rlfr_vlm.cli import main
from tests.test_recipes import CONFIGS, ONE_GPU, RLFR_PROMPT, ROOT, command_in, parsed, run, stem, values_of

DOCUMENT = ROOT / "scripts/recipes_one_gpu.md"
HUB_ID = "Qwen/Qwen2.5-VL-3B-Instruct"
TRAININGS = [path for path in ONE_GPU if path.stem.startswith("train")]
FIT = CONFIGS / "fit_flow_16gb_qwen2.5-vl-3b.yaml"
PARAMETERS = 3_754_622_976  # of Qwen2.5-VL-3B, input and output embeddings tied
KEY_VALUE_BYTES = 36 * 2 * 128 * 2 * 2  # a token: blocks, heads, size of a head, keys and values, bytes of bfloat16


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A folder with the configuration of Qwen2.5-VL-3B-Instruct, without weights."""
    from transformers import Qwen2_5_VLConfig

    from benchmarks.speed.workloads import SHAPES

    shape = dataclasses.asdict(SHAPES["3b"])
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    text = {name: shape[name] for name in (*names, "vocab_size")} | {"tie_word_embeddings": shape["tied"]}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {**shape["vision"], "out_hidden_size": shape["hidden_size"], "window_size": 112}
    folder = tmp_path_factory.mktemp("policy")
    Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope}, vision_config=vision, tie_word_embeddings=True
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def frozen(policy):
    """The policy on the meta device, and the field of the recipes."""
    from rlfr_vlm.meta_policy import assumed_spec, policy_on_meta
    from rlfr_vlm.options import ModelOptions

    model = policy_on_meta(ModelOptions(model_name_or_path=policy), freeze_vision=True)
    return model.requires_grad_(False), assumed_spec(model)


def plans():
    """The commands of `rlfr plan` in the document, each with the output that is shown below it."""
    blocks = re.findall(r"```bash\n(rlfr plan [^`]*)```\n```text\n([^`]*)```", DOCUMENT.read_text())
    return [(shlex.split(command.replace("\\\n", " ")), output) for command, output in blocks]


@pytest.fixture(scope="module")
def printed(policy):
    """What the document's commands print now, by the name of the recipe's file."""
    outputs = {}
    for words, _ in plans():
        assert words[:2] == ["rlfr", "plan"] and HUB_ID in words
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert main([policy if word == HUB_ID else word for word in words[1:]]) == 0
        outputs[recipe_of(words)] = output.getvalue()
    return outputs


def recipe_of(words):
    return words[words.index("--config") + 1].removeprefix("scripts/configs/")


def test_the_document_shows_what_plan_prints_for_each_recipe(printed):
    """After a change: put the output of the three commands into scripts/recipes_one_gpu.md."""
    assert {recipe_of(words): output for words, output in plans()} == printed
    assert sorted(printed) == [path.name for path in TRAININGS]
    assert all(": fits (8 %" in output for output in printed.values())


def row_of(card):
    line = next(line for line in DOCUMENT.read_text().splitlines() if re.match(rf" *\| {card} GB \| \d", line))
    return [float(cell) for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize(("card", "planned"), [(16, 15), (24, 24), (80, 80)])
def test_generation_fits_by_the_documents_table(card, planned, policy, printed, frozen, tmp_path):
    from rlfr_vlm.flow import build_field
    from rlfr_vlm.meta_policy import policy_on_meta

    path = CONFIGS / f"train_rlfr_{card}gb_qwen2.5-vl-3b.yaml"
    options, args = parsed(path, tmp_path)
    model, spec = frozen
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS
    words = next(words for words, _ in plans() if recipe_of(words) == path.name)
    assert words[words.index("--gpu-memory") + 1] == str(planned)
    output = printed[path.name]
    planned_gb = {name: float(re.search(rf"\n  {name} +([\d.]+)", output)[1]) for name in ("weights", "optimiser")}
    # planned weights include the copies in bfloat16 of those in float32, which live in a pass alone
    weights = PARAMETERS * 4 / 1e9
    if options.dtype == "bfloat16":
        named, _ = parsed(path, tmp_path, "--model_name_or_path", policy)
        whole = policy_on_meta(named, freeze_vision=args.freeze_vision)
        adapters = sum(parameter.numel() for parameter in whole.parameters()) - PARAMETERS
        weights = planned_gb["weights"] - 2 * adapters / 1e9
    field = 5 * 4 * sum(parameter.numel() for parameter in build_field(spec).parameters()) / 1e9
    if args.use_vllm:
        generation = args.vllm_gpu_memory_utilization * planned
    else:
        tokens = options.max_prompt_tokens + args.max_completion_length
        generation = args.generation_batch_size * tokens * KEY_VALUE_BYTES / 1e9
    parts = [weights, planned_gb["optimiser"], field, generation]
    assert row_of(card) == pytest.approx([*parts, sum(parts)], abs=0.011)
    assert sum(parts) < 0.92 * planned


def test_fitting_by_the_documents_sentence(frozen, tmp_path):
    from rlfr_vlm.plan import MemorySettings, estimate_memory

    options, args = parsed(FIT, tmp_path)
    model, spec = frozen
    rows = args.per_device_train_batch_size
    settings = MemorySettings(
        weight_bytes=2, bf16=True, rows=rows, positions=1536, response=512, flow=spec, flow_repeats=4
    )
    memory = estimate_memory(model, settings)
    text = " ".join(DOCUMENT.read_text().split())
    assert (args.flow_noise_repeats, rows, options.dtype) == (4, 1, "bfloat16")
    assert f"frozen, {memory.weights / 1e9:.2f} GB in bfloat16" in text
    assert f"4 noise copies, are {memory.flow / 1e9:.2f} GB more" in text
    assert (memory.weights + memory.flow) / 1e9 < 0.92 * 15


def test_the_field_is_fitted_as_on_eight_gpus_but_for_what_the_card_needs():
    papers, own = values_of("fit_flow_qwen2.5-vl-3b"), values_of(FIT.stem)
    differing = {key for key in {*papers, *own} if papers.get(key) != own.get(key)}
    sizes = {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert differing == sizes | {"image_max_pixels", "max_length"}
    assert own["per_device_train_batch_size"] * own["gradient_accumulation_steps"] == 128


def test_eighty_gb_differ_from_eight_gpus_only_in_the_batch_on_a_card():
    papers, own = values_of("train_rlfr_qwen2.5-vl-3b"), values_of("train_rlfr_80gb_qwen2.5-vl-3b")
    # flow_coef has the paper's value by default, and is left out so that `--method rlvr` is one override
    differing = {key for key in {*papers, *own} if papers.get(key) != own.get(key)} - {"flow_coef"}
    sizes = {"per_device_train_batch_size", "gradient_accumulation_steps", "micro_batch_tokens"}
    assert differing == sizes | {"pack_by_length", "vllm_enable_sleep_mode"}
    assert own["generation_batch_size"] == 1024


@pytest.mark.parametrize("path", TRAININGS, ids=stem)
def test_settings(path, tmp_path):
    options, args = parsed(path, tmp_path)
    lora = "80gb" not in path.stem
    assert (args.method, args.flow_coef, args.flow_timesteps, args.flow_top_k) == ("rlfr", 0.01, [0.8], 15)
    assert options.system_prompt == RLFR_PROMPT and args.freeze_vision and args.gradient_checkpointing
    assert (options.use_peft, options.dtype) == (lora, "bfloat16" if lora else "float32")
    assert args.learning_rate == (1e-5 if lora else 1e-6)
    # a micro-batch is a whole group, a piece of it holds at least one of the longest rows
    assert args.per_device_train_batch_size == args.num_generations == 8
    longest = options.max_prompt_tokens + args.max_completion_length
    assert args.micro_batch_tokens >= longest and not args.pack_by_length
    update = args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert args.generation_batch_size % update == 0 and args.save_steps % (args.generation_batch_size // update) == 0
    assert args.use_vllm == ("16gb" not in path.stem)
    assert not args.use_vllm or args.vllm_max_model_length == longest


@pytest.mark.parametrize("path", TRAININGS, ids=stem)
def test_rlvr_is_one_override(path, tmp_path):
    _, args = parsed(path, tmp_path, "--method", "rlvr")
    assert not args.uses_flow
    given = ["--recipe", path.stem, "--model", HUB_ID, "--data", "charts", "--dry-run", "--", "--method", "rlvr"]
    launch, arguments = command_in(run("train.sh", *given))
    assert (launch.num_processes, arguments[-2:]) == (1, ["--method", "rlvr"])
    assert "--flow_path" not in arguments


def launches():
    """The launch lines of the document."""
    text = DOCUMENT.read_text().replace("\\\n", " ").replace("$model", HUB_ID).replace("$data", "hiyouga/geometry3k")
    lines = [line.strip() for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [
        shlex.split(line, comments=True) for line in lines if re.match(r"bash scripts/(?:train|fit_flow)\.sh", line)
    ]


def test_every_launch_of_the_document_would_start(tmp_path):
    (tmp_path / "outputs/flow").mkdir(parents=True)  # what the lines before would have written
    (tmp_path / "outputs/samples.jsonl").write_text("")
    started = set()
    for words in launches():
        options = words[2:]
        place = options.index("--") if "--" in options else len(options)
        done = run(words[1].rpartition("/")[2], *options[:place], "--dry-run", *options[place:], cwd=tmp_path)
        _, arguments = command_in(done)
        recipe = options[options.index("--recipe") + 1]
        parsed(CONFIGS / f"{recipe}.yaml", tmp_path, *arguments[3:])
        started.add(recipe)
    assert started == {path.stem for path in ONE_GPU}
    assert len(launches()) == 11
