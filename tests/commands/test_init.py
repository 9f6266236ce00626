"""`rlfr init`: what it writes is read by `rlfr train` and `rlfr plan`, and says why."""

import json
import re

import pytest
import yaml
from PIL import Image

from rlfr_vlm.cli import main
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.options import METHODS, ScriptArguments

CPU = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
CONTEXT = 1200
FORMAT = " Put the final answer in \\boxed{}."


@pytest.fixture
def vision(processor, make_policy, tmp_path):
    folder = tmp_path / "a policy"
    processor.save_pretrained(folder)
    make_policy().config.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def text(text_tokenizer, make_text_policy, tmp_path):
    folder = tmp_path / "text"
    text_tokenizer.save_pretrained(folder)
    config = make_text_policy().config
    config.max_position_embeddings = CONTEXT
    config.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def write_rows(tmp_path):
    """Writes 40 rows, with or without an image in each."""

    def write(name="rows.jsonl", images=True, count=40, **columns):
        Image.new("RGB", (56, 28), "red").save(tmp_path / "a.png")
        media = {"images": ["a.png"]} if images else {}
        rows = [
            {"prompt": f"{'<image>' * images}sum {i}?", "answer": str(i), **media, **columns} for i in range(count)
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return str(tmp_path / name)

    return write


@pytest.fixture
def init(tmp_path, monkeypatch):
    """Runs `rlfr init` and returns the text of the file that it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        path = tmp_path / "made.yaml"
        assert main(["init", *map(str, arguments), "--to", str(path), "--overwrite"]) == 0
        return path.read_text()

    return run


def parsed(tmp_path):
    """The configuration as `rlfr train` reads it."""
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    return parse_config((ScriptArguments, RLFRConfig), ["--config", str(tmp_path / "made.yaml"), *CPU])


def joined(text):
    """The text without the breaks of its comments."""
    return " ".join(text.replace("\n# ", " ").split())


def uncommented(text):
    """Names of settings without a reason, behind them or in the line above."""
    lines = text.splitlines()
    settings = [(above, line) for above, line in zip(["", *lines], lines, strict=False) if re.match(r"\w+:", line)]
    assert settings
    return [line for above, line in settings if "  # " not in line and not above.startswith("# ")]


@pytest.mark.parametrize("method", METHODS)
def test_vision_policy(method, vision, write_rows, init, tmp_path, capsys):
    text = init("--model", vision, "--data", write_rows(), "--method", method)
    options, args = parsed(tmp_path)
    assert (options.model_name_or_path, options.dataset_name) == (vision, str(tmp_path / "rows.jsonl"))
    assert args.method == method and args.uses_flow == ("rlfr" in method)
    assert args.output_dir == f"outputs/{method.replace('+', '-')}-a policy"
    # 40 rows fill four rollouts of 10 prompts; 8 prompts x 8 responses are 64 = 8 rows x 8 steps x 1 process
    batch = (args.num_generations, args.per_device_train_batch_size, args.gradient_accumulation_steps)
    assert batch == (8, 8, 8) and args.generation_batch_size == 64
    assert args.save_steps == 2  # half of the five rollouts of an epoch
    assert ("<answer>" in options.system_prompt) == ("rlpr" in method)
    assert uncommented(text) == []
    assert (f"--flow_accept right --media_root {tmp_path} --dtype" in text) == ("rlfr" in method)
    assert (args.flow_path, "fit-flow" in text) == (("outputs/flow", True) if "rlfr" in method else (None, False))
    printed = capsys.readouterr().out.split("next:\n")[1].splitlines()
    commands = [line.split()[1] for line in printed]
    assert commands == ["check-data", "plan", *(["sample", "fit-flow"] if "rlfr" in method else []), "train"]
    assert main(["plan", "--config", str(tmp_path / "made.yaml")]) == 0
    assert "fits" in capsys.readouterr().out


@pytest.mark.parametrize("method", [method for method in METHODS if "visual" not in method])
def test_text_policy(method, text, write_rows, init, tmp_path, capsys):
    assert uncommented(init("--model", text, "--data", write_rows(images=False), "--method", method)) == []
    options, args = parsed(tmp_path)
    assert args.method == method and options.image_max_pixels is None
    # no responses to measure: the recipes' 1024 tokens, or what the context leaves
    assert args.max_completion_length == min(1024, CONTEXT - options.max_prompt_tokens)
    assert args.max_completion_length < 1024 or "rlpr" not in method  # whose system prompt is long
    assert main(["plan", "--config", str(tmp_path / "made.yaml")]) == 0
    assert main(["check-data", "--config", str(tmp_path / "made.yaml"), "--workers", "1"]) == 0
    assert "40 rows: 40 kept" in capsys.readouterr().out


def test_lengths_are_those_that_the_processor_makes(vision, processor, write_rows, init, tmp_path):
    response = "so it is \\boxed{3}"
    text = init("--model", vision, "--data", write_rows(response=response), "--method", "rlfr")
    options, args = parsed(tmp_path)
    system = f"<|im_start|>system\n{options.system_prompt}<|im_end|>\n"
    question = "<|vision_start|><|image_pad|><|vision_end|>sum 39?"  # all with two digits are the longest
    prompt = f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    longest = len(processor(text=[prompt], images=[Image.new("RGB", (56, 28))])["input_ids"][0])
    assert f"the longest of all 40 prompts has {longest}" in text
    assert 0 <= options.max_prompt_tokens - longest < 32 and options.max_prompt_tokens % 32 == 0
    tokens = len(processor.tokenizer(response)["input_ids"]) + 1
    assert f"the longest of 40 responses in the data, {tokens} tokens" in text
    assert args.max_completion_length == max(64, -(-2 * tokens // 32) * 32)
    command = (
        f"rlfr fit-flow --model_name_or_path '{vision}' --dataset_name {tmp_path / 'rows.jsonl'} --dtype bfloat16"
    )
    assert f"#   {command} --output_dir outputs/flow\nflow_path: outputs/flow\n" in text


def test_limit_on_images_follows_the_processors_patches(processor, make_policy, write_rows, init, tmp_path):
    import copy

    own = copy.deepcopy(processor)
    own.image_processor.size = {"shortest_edge": 784, "longest_edge": 1280 * 28 * 28}
    own.save_pretrained(tmp_path / "policy")
    make_policy().config.save_pretrained(tmp_path / "policy")
    text = init("--model", tmp_path / "policy", "--data", write_rows())
    assert parsed(tmp_path)[0].image_max_pixels == 640 * 28 * 28
    # 2048 x 2048 pixels become 25 x 25 squares of 28 pixels within 640, and 35 x 35 within 1280
    assert "at most about 625 tokens an image, up to 1225 without it; the largest one seen, 56 x 28," in joined(text)


def test_a_lower_limit_of_the_processor_stays(vision, write_rows, init, tmp_path):
    text = init("--model", vision, "--data", write_rows())
    # 8 x 8 squares of 28 pixels are its 50,176
    assert "# image_max_pixels: 501760  # not set: the processor itself makes at most 64 tokens of an image\n" in text
    assert parsed(tmp_path)[0].image_max_pixels is None


def test_prompts_that_ask_for_a_format_get_no_second_request(text, write_rows, init, tmp_path):
    rows = write_rows(images=False, prompt=f"sum?{FORMAT}", count=1)
    assert "\n# not set: all prompts looked at ask for the format" in init("--model", text, "--data", rows)
    assert parsed(tmp_path)[0].system_prompt is None


def test_nothing_is_looked_at_without_a_network(init, tmp_path, capsys):
    text = init("--model", "org/policy", "--data", "org/rows", "--method", "rlfr")
    options, args = parsed(tmp_path)
    assert (options.model_name_or_path, options.dataset_name) == ("org/policy", "org/rows")
    assert (options.max_prompt_tokens, args.per_device_train_batch_size) == (None, 1)
    assert "\n# max_prompt_tokens: 3000  # not set: no tokenizer was read" in text and uncommented(text) == []
    out = capsys.readouterr().out
    for part in ("config.json of org/policy", "the tokenizer of org/policy", "org/rows"):
        assert f"not looked at: {part}, because it is in no cache on this machine" in out
    assert "Not looked at: config.json of org/policy, because" in joined(text)


def test_nothing_is_named(init, tmp_path, capsys):
    text = init()
    assert "\n# model_name_or_path: path/to/policy  # no --model is given\n" in text
    assert main(["plan", "--config", str(tmp_path / "made.yaml")]) == 0
    assert "memory: not estimated" in capsys.readouterr().out


def test_names_that_yaml_would_read_otherwise(text, write_rows, init, tmp_path):
    rows = write_rows("a #b: c.jsonl", images=False)
    init("--model", text, "--data", rows)
    assert yaml.safe_load((tmp_path / "made.yaml").read_text())["dataset_name"] == rows


@pytest.mark.slow
def test_the_file_trains(vision, write_rows, init, tmp_path, capsys):
    """With the commands as printed; updates are few, and a policy with weights stands in the folder."""
    import shlex

    from transformers import AutoConfig, AutoModelForImageTextToText

    AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(vision)).save_pretrained(vision)
    init("--model", vision, "--data", write_rows(response="so it is \\boxed{3}"), "--method", "rlfr")
    commands = [shlex.split(line) for line in capsys.readouterr().out.split("next:\n")[1].splitlines()]
    fit, train = commands[-2:]
    one = ["--max_steps", "1", "--report_to", "none"]
    assert main([*fit[1:], *one]) == 0
    assert main([*train[1:], *one, "--max_completion_length", "8"]) == 0
    assert "trained policy in outputs/rlfr-a policy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "rlf"], "method is 'rlf'; choose one of rlvr"),
        (["--to", "."], "--to is ., which is a folder. Name a file, such as config.yaml."),
        (["--model", "./nothing"], "No model at ./nothing."),
        (["--model", "{folder}"], "Cannot read config.json of the model"),
        (["--data", "nothing.jsonl"], "No dataset at nothing.jsonl."),
        (["--processes", "0"], "--processes is 0; it must be above 0."),
        (["--gpu-memory", "-1"], "--gpu-memory is -1.0; it must be above 0."),
        (["--model", "{text}", "--data", "{rows}"], "None of the first 40 rows of"),
        (["--model", "{text}", "--method", "visual"], "takes no images. Leave the part visual out."),
        (["--data", "{plain}", "--method", "rlfr+visual"], "has no images: the part visual weighs tokens"),
        (["--data", "{plain}", "--processes", "41"], "The data has 40 rows, fewer than the 41 prompts"),
        (["--data", "{plain}", "--columns", "answer=gold"], "Here the pairs are given as --columns answer=..."),
    ],
)
def test_mistakes_give_one_message(arguments, message, text, write_rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    names = {"folder": "empty", "text": text, "rows": write_rows(), "plain": write_rows("plain.jsonl", images=False)}
    to = [] if "--to" in arguments else ["--to", "made.yaml"]
    assert main(["init", *(word.format(**names) for word in arguments), *to]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "made.yaml").exists()


def test_a_text_policy_without_tokenizer_refuses_images(make_text_policy, write_rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_text_policy().config.save_pretrained(tmp_path / "bare")
    assert main(["init", "--model", "bare", "--data", write_rows()]) == 2
    assert "has images, and bare takes none. Name a model with a vision tower." in capsys.readouterr().err


def test_an_existing_file_is_replaced_only_on_request(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text("mine")
    assert main(["init", "--to", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"rlfr: {path} exists already. Name another file with --to, or replace it with --overwrite.\n"
    )
    assert path.read_text() == "mine"
    assert main(["init", "--to", str(path), "--overwrite"]) == 0
    assert path.read_text().startswith("# A starting point")
