"""The recipes and their launchers: the papers' sizes, fair baselines, and commands that say what they would start."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

from rlfr_vlm.options import EMBEDDED_TASKS

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
CONFIGS = SCRIPTS / "configs"
ONE_GPU = [path for path in sorted(CONFIGS.glob("*.yaml")) if re.search(r"_\d+gb_", path.stem)]
FITS = sorted(set(CONFIGS.glob("fit_flow_*.yaml")) - set(ONE_GPU))
TRAININGS = sorted(set(CONFIGS.glob("train_*.yaml")) - set(ONE_GPU))
stem = attrgetter("stem")
MODELS = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen2.5-math-1.5b", "qwen2.5-math-7b", "llama-3.1-8b")
RLFR_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."
CPU = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]


def values_of(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def processes_of(path):
    """The number of processes that a recipe is made for, as its head says."""
    return int(re.search(r"^# processes: (\d+)$", path.read_text(), re.M)[1])


def parsed(path, tmp_path, *arguments):
    from rlfr_vlm.config_file import parse_config
    from rlfr_vlm.options import RunOptions, ScriptArguments
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    classes = (RunOptions, FlowFitConfig) if path.stem.startswith("fit") else (ScriptArguments, RLFRConfig)
    given = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", str(tmp_path), *arguments, *CPU]
    return parse_config(classes, ["--config", str(path), *given])


def test_every_recipe_is_a_fit_or_a_training():
    assert sorted(CONFIGS.glob("*.yaml")) == sorted([*FITS, *TRAININGS, *ONE_GPU])
    for model in MODELS:
        for task in ("fit_flow", "train_rlfr", "train_rlvr"):
            assert (CONFIGS / f"{task}_{model}.yaml").is_file()


@pytest.mark.parametrize("path", FITS, ids=stem)
def test_fits_have_the_papers_sizes(path, tmp_path):
    options, args = parsed(path, tmp_path)
    small = path.stem.endswith(("3b", "1.5b"))
    vision = "-vl-" in path.stem
    assert processes_of(path) == 8
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * 8 == 128
    assert args.flow_depth == (4 if small else 6)
    assert args.flow_noise_repeats == (4 if small or vision else 2)  # 2 for language models of 7B and 8B
    assert args.max_length == (16384 if vision else 8192)
    assert options.image_max_pixels == (262144 if vision else None)
    assert (args.flow_layers, args.flow_context_mode) == ([0.25, 0.5, 0.75], "token_pre")
    assert (args.learning_rate, args.lr_scheduler_type, args.warmup_steps) == (1e-4, "cosine", 0.1)
    assert (args.weight_decay, args.num_train_epochs) == (0.01, 2)
    assert options.dtype == "bfloat16"  # the policy is frozen


@pytest.mark.parametrize("path", TRAININGS, ids=stem)
def test_trainings_have_the_papers_batch(path, tmp_path):
    _, args = parsed(path, tmp_path)
    prompts, updates = (768, 4) if "rlpr" in path.stem else (128, 8)
    an_update = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes_of(path)
    assert args.num_generations == 8
    assert args.generation_batch_size == prompts * 8
    assert an_update * updates == prompts * 8
    assert args.save_steps % updates == 0  # checkpoints fall between rollouts
    assert args.save_strategy == "steps" and args.save_total_limit


@pytest.mark.parametrize("path", TRAININGS, ids=stem)
def test_trainings_have_the_papers_settings(path, tmp_path):
    options, args = parsed(path, tmp_path)
    vision, rlpr, lora = "-vl-" in path.stem, "rlpr" in path.stem, "lora" in path.stem
    assert (args.temperature, args.beta, args.max_grad_norm, args.loss_type) == (1.0, 0.0, 1.0, "grpo")
    assert (args.adam_beta1, args.adam_beta2, args.scale_rewards) == (0.9, 0.95, "group")
    assert (args.epsilon, args.epsilon_high) == (0.2, 0.27 if rlpr else None)
    pixels = (4 * 28 * 28, 640 * 28 * 28) if vision else (None, None)
    assert (options.image_min_pixels, options.image_max_pixels) == pixels
    assert args.freeze_vision and args.gradient_checkpointing
    assert options.max_prompt_tokens == (2048 if rlpr else 3000)
    assert args.max_completion_length == (3072 if rlpr or path.stem.endswith("vl-7b") else 1024)
    assert args.learning_rate == (1e-5 if lora else 1e-6)
    if rlpr:
        assert (options.rlpr_mode, options.rlpr_format_weight, options.rlpr_debias) == ("r1", 0.1, True)
        assert (args.group_filter, args.spread_beta, args.spread_decay) == ("spread", 0.5, 0.99)
        assert "<think>" in options.system_prompt and "<answer>" in options.system_prompt
    else:
        assert options.system_prompt == RLFR_PROMPT
        assert (args.lr_scheduler_type, args.lr_scheduler_kwargs) == ("cosine_with_min_lr", {"min_lr_rate": 0.1})
        assert args.warmup_steps == 0.03
    if args.uses_flow:
        assert (args.flow_coef, args.flow_timesteps, args.flow_two_sided) == (0.01, [0.8], True)
        assert (args.flow_threshold, args.flow_top_k, args.flow_gamma) == (0.6, 15, 1.0)
    assert args.uses_flow == ("rlfr" in path.stem)
    assert (args.entropy_alpha, args.entropy_kappa) == (0.4 if "entropy" in path.stem else 0.0, 2.0)


@pytest.mark.parametrize("path", TRAININGS, ids=stem)
def test_trainings_roll_out_with_vllm(path, tmp_path):
    options, args = parsed(path, tmp_path)
    big = path.stem.endswith(("7b", "8b"))
    lora = "lora" in path.stem
    assert (args.rollout, args.use_vllm, args.vllm_mode) == ("vllm-colocate", True, "colocate")
    assert args.vllm_max_model_length == options.max_prompt_tokens + args.max_completion_length
    assert "math" not in path.stem or args.vllm_max_model_length <= 4096  # Qwen2.5-Math's whole context
    assert args.vllm_enable_sleep_mode == (big or lora)
    assert 0 < args.vllm_gpu_memory_utilization < 1
    # RL's small updates would be rounded away in bfloat16 weights; under LoRA those are frozen.
    assert options.dtype == ("bfloat16" if lora else "float32")
    assert (options.use_peft, options.lora_r, options.lora_alpha) == ((True, 64, 128) if lora else (False, 16, 32))


@pytest.mark.parametrize("path", [*FITS, *TRAININGS, *ONE_GPU], ids=stem)
def test_recipes_say_seed_batch_and_how_to_run_them(path):
    text, values = path.read_text(), yaml.safe_load(path.read_text())
    fits = path.stem.startswith("fit")
    script = "fit_flow.sh" if fits else "train.sh"
    assert values["seed"] == 42 and values["bf16"] is True
    assert f"bash scripts/{script} --recipe {path.stem} --model DIR --data FILE" in text
    assert ("--flow DIR" in text) == ("rlfr" in path.stem and not fits)
    head = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    device, accumulate = values["per_device_train_batch_size"], values["gradient_accumulation_steps"]
    assert f"= {device} per process x {accumulate} accumulation steps x {processes_of(path)} process" in head
    assert max(map(len, text.splitlines())) <= 119


def shared(name):
    return {k: v for k, v in values_of(name).items() if k != "method" and not k.startswith(("flow_", "entropy_"))}


@pytest.mark.parametrize("model", MODELS)
def test_the_baseline_differs_only_in_method_and_flow(model):
    rlfr, rlvr = values_of(f"train_rlfr_{model}"), values_of(f"train_rlvr_{model}")
    assert (rlfr["method"], rlvr["method"]) == ("rlfr", "rlvr")
    assert not [key for key in rlvr if key.startswith(("flow_", "entropy_"))]
    assert shared(f"train_rlfr_{model}") == shared(f"train_rlvr_{model}")


@pytest.mark.parametrize("model", ["qwen2.5-math-7b", "qwen2.5-vl-7b"])
def test_entropy_differs_only_in_method_and_bonus(model):
    entropy = values_of(f"train_entropy_{model}")
    assert entropy["method"] == "entropy" and not [key for key in entropy if key.startswith("flow_")]
    assert shared(f"train_entropy_{model}") == shared(f"train_rlvr_{model}")


def test_lora_differs_from_the_full_recipe_only_in_what_the_card_needs():
    full, lora = (values_of(f"train_rlfr_{name}qwen2.5-vl-3b") for name in ("", "lora_"))
    differing = {key for key in {*full, *lora} if full.get(key) != lora.get(key)}
    assert differing == {
        *("use_peft", "lora_r", "lora_alpha", "dtype", "learning_rate", "save_steps"),
        *("per_device_train_batch_size", "gradient_accumulation_steps"),
        *("vllm_gpu_memory_utilization", "vllm_enable_sleep_mode"),
    }


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=stem)
def test_accelerate_reads_its_configurations(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert (config.num_processes, config.num_machines, config.mixed_precision) == (8, 1, "no")
    kind = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}[path.stem]
    assert config.distributed_type.value == kind
    if kind == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(path.stem[-1])


def run(script, *arguments, cwd=ROOT, root=ROOT, **environment):
    return subprocess.run(
        ["bash", str(root / "scripts" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@pytest.fixture
def given(tmp_path):
    """A model's folder, rows and a field, with a space in each name."""
    model, data, flow = tmp_path / "a model", tmp_path / "some rows.jsonl", tmp_path / "a field"
    for folder in (model, flow):
        folder.mkdir()
    (model / "config.json").write_text("{}")
    data.write_text("")
    return {"--model": model, "--data": data, "--flow": flow}


def options_of(recipe, given):
    wanted = {key: value for key, value in given.items() if key != "--flow" or recipe.startswith("train_rlfr")}
    return ["--recipe", recipe, *(part for pair in wanted.items() for part in pair)]


def command_in(done):
    """What accelerate makes of the printed command, and the arguments of `rlfr`."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("+ "))
    words = shlex.split(line[2:])
    assert words[0].endswith(".venv/bin/accelerate") and words[1] == "launch"
    launch = launch_command_parser().parse_args(words[2:])
    launch.config_file = str(ROOT / launch.config_file)
    assert launch.module and launch.training_script == "rlfr_vlm.cli"
    return _validate_launch_command(launch)[0], launch.training_script_args


@pytest.mark.parametrize("path", [*FITS, *TRAININGS], ids=stem)
def test_dry_run_of_every_recipe(path, given, tmp_path):
    fits = path in FITS
    script = "fit_flow.sh" if fits else "train.sh"
    done = run(script, *options_of(path.stem, given), "--out", tmp_path / "o", "--dry-run", "--", "--seed", 7)
    launch, arguments = command_in(done)
    assert launch.num_processes == processes_of(path) and launch.num_machines == 1
    big = path.stem.endswith(("7b", "8b"))
    sharding = "ddp" if fits or "lora" in path.stem else "zero3" if big else "zero2"
    assert Path(launch.config_file).stem == sharding
    assert launch.use_deepspeed == sharding.startswith("zero")
    assert arguments[0] == ("fit-flow" if fits else "train")
    options, args = parsed(path, tmp_path, *arguments[3:])
    assert arguments[1:3] == ["--config", f"scripts/configs/{path.stem}.yaml"]
    assert (options.model_name_or_path, options.dataset_name) == (str(given["--model"]), str(given["--data"]))
    assert (args.output_dir, args.seed) == (str(tmp_path / "o"), 7)  # what follows -- wins
    assert args.gradient_accumulation_steps == values_of(path.stem)["gradient_accumulation_steps"]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("path", [path for path in TRAININGS if "lora" not in path.stem], ids=stem)
def test_two_nodes_keep_the_batch(path, given, tmp_path):
    recipe = values_of(path.stem)
    nodes = ["--node-rank", 1, "--main-address", "main-host", "--main-port", 29511]
    done = run("train_two_nodes.sh", *nodes, *options_of(path.stem, given), "--dry-run")
    launch, arguments = command_in(done)
    assert (launch.num_processes, launch.num_machines, launch.machine_rank) == (16, 2, 1)
    assert (launch.main_process_ip, launch.main_process_port) == ("main-host", 29511)
    if launch.use_deepspeed:  # else accelerate would have DeepSpeed start the other node's processes over ssh
        assert launch.deepspeed_multinode_launcher == "standard"
    _, args = parsed(path, tmp_path, *arguments[3:])
    assert args.gradient_accumulation_steps * 2 == recipe["gradient_accumulation_steps"]
    an_update = args.per_device_train_batch_size * args.gradient_accumulation_steps * 16
    assert an_update == (1536 if "rlpr" in path.stem else 128)
    assert args.generation_batch_size % (args.per_device_train_batch_size * 16) == 0


def test_other_numbers_of_gpus_keep_the_batch_or_are_refused(given):
    options = options_of("train_rlvr_qwen2.5-vl-3b", given)  # 4 rows x 4 steps x 8 processes
    _, arguments = command_in(run("train.sh", *options, "--gpus", 2, "--dry-run"))
    assert arguments[arguments.index("--gradient_accumulation_steps") + 1] == "16"
    done = run("train.sh", *options, "--gpus", 6, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "train: 6 GPUs cannot share an update of 128 rows evenly. Choose a number that divides 32.\n"
    done = run("train.sh", *options, "--gpus", "many", "--dry-run")
    assert done.stderr == "train: --gpus is many; it must be a whole number of 1 or more.\n"


def test_resume_sharding_and_default_output(given):
    options = options_of("train_rlvr_qwen2.5-vl-7b", given)
    done = run("train.sh", *options, "--resume", "--accelerate", "fsdp2", "--dry-run")
    launch, arguments = command_in(done)
    assert launch.use_fsdp and arguments[-2:] == ["--resume", "auto"]
    assert arguments[arguments.index("--output_dir") + 1] == "outputs/train_rlvr_qwen2.5-vl-7b"
    assert "results in outputs/train_rlvr_qwen2.5-vl-7b" in done.stdout  # said before it is done


@pytest.fixture
def elsewhere(tmp_path):
    """A copy of scripts/ whose accelerate and hf only say what they were given."""
    root = tmp_path / "a copy"
    shutil.copytree(SCRIPTS, root / "scripts")
    (root / ".venv/bin").mkdir(parents=True)
    for name in ("accelerate", "hf"):
        tool = root / ".venv/bin" / name
        tool.write_text('#!/usr/bin/env bash\nprintf "<%s>" "$@"; echo\n')
        tool.chmod(0o755)
    return root


def test_what_is_printed_is_what_is_started(given, elsewhere, tmp_path):
    options = options_of("train_rlfr_qwen2.5-vl-3b", {**given, "--data": "some rows.jsonl"})
    done = run("train.sh", *options, "--", "--flow_timesteps", "0.5", "0.8", root=elsewhere, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed, started = done.stdout.splitlines()[1:]
    words = shlex.split(printed[2:])
    assert words[0] == str(elsewhere / ".venv/bin/accelerate")  # paths of the user's stay the user's
    assert "".join(f"<{word}>" for word in words[1:]) == started
    assert started.endswith("<--flow_timesteps><0.5><0.8>") and "<some rows.jsonl>" in started
    shutil.rmtree(elsewhere / ".venv")
    done = run("train.sh", *options, root=elsewhere, cwd=tmp_path)
    assert done.returncode == 2 and "Run: bash scripts/setup.sh --extras vllm,deepspeed,lora" in done.stderr


MODEL_HELP = "Name a model's folder or hub id, or get one with scripts/download_data.sh."
DATA_HELP = (
    f"Name a file or folder of rows, a hub id or a built-in task ({' '.join(EMBEDDED_TASKS)}), or get one with "
    "scripts/download_data.sh."
)


@pytest.mark.parametrize("script", ["train.sh", "fit_flow.sh"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--model", "nothing", f"no model in nothing: nothing/config.json is missing. {MODEL_HELP}"),
        ("--model", None, f"--model is not given. {MODEL_HELP}"),
        ("--data", "nothing.jsonl", f"no data at nothing.jsonl. {DATA_HELP}"),
        ("--data", None, f"--data is not given. {DATA_HELP}"),
    ],
)
def test_missing_paths_are_one_message(script, option, value, message, given):
    recipe = "train_rlfr_qwen2.5-vl-3b" if script == "train.sh" else "fit_flow_qwen2.5-vl-3b"
    changed = {key: path for key, path in {**given, option: value}.items() if path is not None}
    for last in ([], ["--dry-run"]):
        done = run(script, *options_of(recipe, changed), *last)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"{script.removesuffix('.sh')}: {message}\n"


@pytest.mark.parametrize(
    ("script", "recipe"), [("train.sh", "train_rlfr_qwen2.5-vl-3b"), ("fit_flow.sh", "fit_flow_qwen2.5-vl-3b")]
)
def test_a_hub_id_needs_no_folder(script, recipe, given, tmp_path):
    done = run(script, *options_of(recipe, {**given, "--model": "Qwen/Qwen2.5-VL-3B-Instruct"}), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "--model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct" in done.stdout
    for path in ("./Qwen/policy", "a/b/c", "scripts/policy"):  # the last one: there is a folder scripts
        done = run(script, *options_of(recipe, {**given, "--model": path}), "--dry-run")
        assert done.returncode == 2 and f"no model in {path}" in done.stderr


@pytest.mark.parametrize("name", ["hiyouga/geometry3k", "reasoning_gym:chain_sum?size=20", *EMBEDDED_TASKS])
def test_data_may_be_of_the_hub_or_built_in(name, given):
    options = options_of("train_rlvr_qwen2.5-vl-3b", {**given, "--data": name})
    _, arguments = command_in(run("train.sh", *options, "--dry-run"))
    assert arguments[arguments.index("--dataset_name") + 1] == name


@pytest.mark.parametrize("name", ["owner/train.jsonl", "scripts/rows", "./a/b", "a/b/c", "chart"])
def test_data_that_is_none_of_these(name, given):
    done = run("train.sh", *options_of("train_rlvr_qwen2.5-vl-3b", {**given, "--data": name}), "--dry-run")
    assert (done.returncode, done.stderr) == (2, f"train: no data at {name}. {DATA_HELP}\n")


@pytest.mark.parametrize("option", [["--method", "rlvr"], ["--method=rlvr"]])
def test_a_method_on_the_command_line_decides_whether_a_field_is_needed(option, given):
    options = options_of("train_rlfr_qwen2.5-vl-3b", given)
    assert run("train.sh", *options[:-2], "--dry-run", "--", *option).returncode == 0
    done = run("train.sh", *options, "--dry-run", "--", *option)
    assert done.returncode == 2 and "but --method rlvr uses no flow rewards. Leave --flow out" in done.stderr
    done = run("train.sh", *options_of("train_rlvr_qwen2.5-vl-3b", given), "--dry-run", "--", "--method", "rlfr+rlpr")
    assert done.returncode == 2 and "--method rlfr+rlpr uses flow rewards, but --flow is not given" in done.stderr


def test_other_mistakes_are_one_message(given):
    rlfr, rlvr = (options_of(f"train_{name}_qwen2.5-vl-3b", given) for name in ("rlfr", "rlvr"))
    address = ["--main-address", "main-host"]
    cases = [
        ("train.sh", rlfr[:-2], "uses flow rewards, but --flow is not given: there is no field. Fit one with"),
        ("train.sh", [*rlfr[:-1], "nothing"], "no flow field at nothing. Fit one with scripts/fit_flow.sh"),
        ("train.sh", [*rlvr, "--flow", "x"], "--flow is x, but train_rlvr_qwen2.5-vl-3b uses no flow rewards."),
        ("train.sh", [*rlvr, "--accelerate", "zero9"], "--accelerate is zero9; choose one of: ddp fsdp2 zero2 zero3"),
        ("train.sh", ["--recipe", "nope", *rlvr[2:]], "no recipe nope. Choose one of: train_entropy_"),
        ("train.sh", ["--recipe", "fit_flow_qwen2.5-vl-3b", *rlvr[2:]], "no recipe fit_flow_qwen2.5-vl-3b."),
        ("train.sh", rlvr[2:], "--recipe is not given. Choose one of: train_entropy_"),
        ("train.sh", [*rlvr, "--seed", 7], "unknown option --seed; see the head of scripts/train.sh, and put options"),
        ("train.sh", [*rlvr, "--out"], "--out has no value"),
        ("train.sh", [*rlvr, "--node-rank", 0], "unknown option --node-rank; it is an option of"),
        ("train_two_nodes.sh", [*rlvr, *address], "--node-rank is not given; it is 0 on the main node and 1 on"),
        ("train_two_nodes.sh", [*rlvr, *address, "--node-rank", 2], "--node-rank is 2; it is 0 on"),
        ("train_two_nodes.sh", [*rlvr, "--node-rank", 0], "--main-address is not given."),
        ("fit_flow.sh", ["--recipe", "fit_flow_qwen2.5-vl-3b", *rlvr[2:], "--flow", "x"], "unknown option --flow"),
    ]
    for script, words, message in cases:
        done = run(script, *words, "--dry-run")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (words, done)
        assert message in done.stderr, done.stderr


@pytest.mark.parametrize("script", ["train.sh", "train_two_nodes.sh", "fit_flow.sh", "download_data.sh"])
def test_without_arguments_launchers_show_how(script):
    done = run(script)
    assert done.returncode == 2 and f"bash scripts/{script} " in done.stdout and "set -euo" not in done.stdout


@pytest.mark.parametrize("path", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_bash_and_carry_no_secrets(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert not re.search(r"--token|hf_[A-Za-z0-9]{8}|sk-[A-Za-z0-9]{8}", text)
    assert path.parent.name == "lib" or "set -euo pipefail" in text


def test_download_lists_and_prints_without_getting_anything(elsewhere):
    done = run("download_data.sh", "--list", root=elsewhere)
    assert done.returncode == 0
    table = {line.split()[0]: line for line in done.stdout.splitlines() if line.count("/") > 1}
    assert {"openr1-math", "mmpr", "rlfr-vlm", "math-3to5", "mm-eureka", "rlpr-train", *MODELS} <= set(table)
    assert "data/mm-eureka" in table["mm-eureka"] and "see its data card" in table["mm-eureka"]
    done = run("download_data.sh", "openr1-math@abc123", "qwen2.5-vl-3b", "--dry-run", root=elsewhere)
    assert [shlex.split(line)[1:] for line in done.stdout.splitlines()] == [
        [
            ".venv/bin/hf",
            "download",
            "open-r1/OpenR1-Math-220k",
            "--repo-type",
            "dataset",
            "--local-dir",
            "data/openr1-math",
            "--include",
            "data/*",
            "--revision",
            "abc123",
        ],
        [
            ".venv/bin/hf",
            "download",
            "Qwen/Qwen2.5-VL-3B-Instruct",
            "--repo-type",
            "model",
            "--local-dir",
            "data/models/qwen2.5-vl-3b",
        ],
    ]
    done = run("download_data.sh", "mm-eureka", "nope", root=elsewhere)
    assert (done.returncode, done.stdout) == (2, "") and "nothing is called nope. Choose one of: openr1" in done.stderr
    assert not (elsewhere / "data").exists()


def test_download_records_what_came(elsewhere):
    (elsewhere / ".venv/bin/python").symlink_to(sys.executable)
    hf = elsewhere / ".venv/bin/hf"
    hf.write_text(
        "#!/usr/bin/env bash\nset -eu\nnotes=$6/.cache/huggingface/download\nmkdir -p $notes\n"
        "printf 12345 >$6/rows.jsonl\nprintf 'c0ffee\\netag\\n' >$notes/rows.jsonl.metadata\n"
    )
    done = run("download_data.sh", "mm-eureka", root=elsewhere)
    assert done.returncode == 0, done.stderr
    hf.write_text("#!/usr/bin/env bash\necho no network >&2; exit 1\n")
    done = run("download_data.sh", "rlpr-train", root=elsewhere)
    assert done.returncode == 2 and "rlpr-train did not arrive whole" in done.stderr
    record = json.loads((elsewhere / "data/downloads.json").read_text())
    assert list(record) == ["mm-eureka"] and record["mm-eureka"].pop("time")
    assert record["mm-eureka"] == {
        "kind": "dataset",
        "hub_id": "FanqingM/MM-Eureka-Dataset",
        "revision": "c0ffee",
        "folder": "data/mm-eureka",
        "files": 1,
        "bytes": 5,
    }
