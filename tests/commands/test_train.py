"""Mistakes about the held-out rows of `rlfr train` name the settings of the held-out rows."""

import json
import re
from types import SimpleNamespace

import pytest

from rlfr_vlm.commands.train import held_out_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import ScriptArguments

OF_TRAINING_ROWS = re.compile(r"(?<![\w/])dataset_(name|split)\b(?!/)")


def refusal(name: str, split: str, processor) -> str:
    options = ScriptArguments(dataset_name="digits", eval_dataset_name=name, eval_dataset_split=split)
    with pytest.raises(UserError) as error:
        held_out_rows(options, SimpleNamespace(seed=0), processor)
    assert not OF_TRAINING_ROWS.search(str(error.value))
    return str(error.value)


def test_a_single_file_has_no_test_split(processor, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"prompt": "sum?", "answer": "1"}))
    message = refusal(str(path), "test", processor)
    assert (
        message == f"The held-out rows {path} are one file, which has no split 'test'. Set eval_dataset_split: train."
    )
    options = ScriptArguments(dataset_name="digits", eval_dataset_name=str(path), eval_dataset_split="train")
    assert len(held_out_rows(options, SimpleNamespace(seed=0), processor)) == 1  # what the message advises


def test_a_split_that_does_not_exist(processor):
    message = refusal("digits", "nothing", processor)
    assert message.endswith("Set eval_dataset_split to one of them.") and "no split 'nothing'" in message


def test_a_path_stays_as_it_is(processor, tmp_path):
    path = tmp_path / "dataset_split" / "dataset_name.jsonl"
    assert refusal(str(path), "train", processor).startswith(f"No dataset at {path}.")
