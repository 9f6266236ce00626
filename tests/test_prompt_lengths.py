"""Prompt lengths of a sample are those that the processor gives; `rlfr plan` uses them, or says what it assumes."""

import json

import pytest

from rlfr_vlm.cli import main
from rlfr_vlm.data.encode import encode_prompts
from rlfr_vlm.data.load import read_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions
from rlfr_vlm.prompt_lengths import PromptLengths, measure_prompts

QUESTIONS = ["sum?", "sum of both?", "difference of both?", "sum of the sum of both and of the other sum?"]


@pytest.fixture
def rows_file(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": q, "answer": "1"}) for q in QUESTIONS))
    return tmp_path / "rows.jsonl"


def tokens_of(processor, rows, number):
    return int(encode_prompts(processor, [rows.load(number)]).attention_mask.sum())


def test_all_rows_are_measured_as_the_processor_counts(processor, rows_file):
    rows = read_rows(DataOptions(dataset_name=str(rows_file)))
    tokens = [tokens_of(processor, rows, number) for number in range(4)]
    assert measure_prompts(rows, processor) == PromptLengths(max(tokens), sum(tokens) / 4, 4, 4)
    digits = read_rows(DataOptions(dataset_name="digits", dataset_limit=3))  # with images
    tokens = [tokens_of(processor, digits, number) for number in range(3)]
    assert measure_prompts(digits, processor) == PromptLengths(max(tokens), sum(tokens) / 3, 3, 3)


def test_a_sample_is_measured_and_bad_rows_are_left_out(processor, rows_file):
    rows = read_rows(DataOptions(dataset_name=str(rows_file)))
    lengths = measure_prompts(rows, processor, sample=2)
    assert (lengths.measured, lengths.rows) == (2, 4) and lengths.longest <= measure_prompts(rows, processor).longest
    rows_file.write_text(json.dumps({"prompt": "sum?", "images": ["gone.png"]}) + "\n" + rows_file.read_text())
    lengths = measure_prompts(read_rows(DataOptions(dataset_name=str(rows_file))), processor)
    assert (lengths.measured, lengths.rows) == (4, 5)
    rows_file.write_text(json.dumps({"prompt": "sum?", "images": ["gone.png"]}))
    with pytest.raises(UserError, match="no row can be read"):
        measure_prompts(read_rows(DataOptions(dataset_name=str(rows_file))), processor)


PLAN = ["plan", "--processes", "1", "--method", "rlvr", "--bf16", "false", "--num_generations", "4"]
PLAN += ["--per_device_train_batch_size", "4", "--max_completion_length", "8"]


def planned(capsys, *arguments):
    assert main([*PLAN, *map(str, arguments)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[0], next(line for line in lines if line.startswith("tokens"))


@pytest.fixture
def policy(make_policy, processor, tmp_path):
    make_policy().save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_the_plan_measures_prompts_where_it_can(processor, policy, rows_file, capsys):
    rows = read_rows(DataOptions(dataset_name=str(rows_file)))
    tokens = [tokens_of(processor, rows, number) for number in range(4)]
    longest, mean = max(tokens), sum(tokens) / 4
    named = ["--dataset_name", rows_file, "--model_name_or_path", policy]
    prompts, total = planned(capsys, *named)
    assert prompts == f"prompts       longest {longest} tokens, mean {mean:.0f}, measured in all rows"
    assert total.startswith(f"tokens        at most {4 * (longest + 8)} a rollout (prompts of {longest},")
    assert planned(capsys, *named, "--rows", 1000)[0] == prompts
    cut, total = planned(capsys, *named, "--max_prompt_tokens", longest - 1)
    assert cut == f"{prompts}, above max_prompt_tokens {longest - 1}" and f"(prompts of {longest - 1}," in total
    assert "(prompts of 20," in planned(capsys, *named, "--prompt-tokens", 20)[1]


def test_the_plan_says_that_it_assumes_and_why(policy, rows_file, capsys):
    end = ". --prompt-tokens sets another number"
    prompts, total = planned(capsys, "--rows", 8)
    assert prompts == f"prompts       1024 tokens assumed (a guess): no data to measure with{end}"
    assert "(prompts of 1024," in total
    prompts, total = planned(capsys, "--dataset_name", rows_file, "--max_prompt_tokens", 300)
    assert prompts == f"prompts       300 tokens assumed (max_prompt_tokens): no policy to measure with{end}"
    assert "(prompts of 300," in total
    gone = ["--dataset_name", "gone.jsonl", "--rows", 8, "--model_name_or_path", policy]
    assert "no data to measure with" in planned(capsys, *gone)[0]
    named = ["--dataset_name", rows_file, "--model_name_or_path", policy]
    (policy / "tokenizer.json").unlink()
    (policy / "tokenizer_config.json").unlink()
    assert "1024 tokens assumed (a guess): the policy's tokenizer makes no tokens" in planned(capsys, *named)[0]
    (policy / "processor_config.json").unlink()
    assert "1024 tokens assumed (a guess): Cannot load the model" in planned(capsys, *named)[0]
