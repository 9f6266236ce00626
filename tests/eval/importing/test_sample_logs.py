"""Logs of lm-eval and lmms-eval: what is an answer in them, and what is told of the run."""

import json

import pytest

from rlfr_eval.importing.formats import read_file
from rlfr_vlm.errors import UserError
from tests.eval.importing.logs import DATE, GENERATION, lm_eval_line, lmms_eval_line, write_lines


def test_what_lm_eval_logs_of_a_question(tmp_path):
    log = write_lines(tmp_path / f"samples_hendrycks_math500_{DATE}.jsonl", [lm_eval_line(0, "1+1?", ["2", "3"], "2")])
    (tmp_path / f"results_{DATE}.json").write_text(
        json.dumps({"model_name": "org/m", "lm_eval_version": "0.4.13", "git_hash": "abc"})
    )
    file = read_file(log, None, ())
    assert (file.format, file.task, file.model, file.version) == ("lm-eval", "hendrycks_math500", "org/m", "0.4.13")
    assert file.sampling == {key: GENERATION[key] for key in ("do_sample", "temperature", "max_gen_toks")}
    (entry,) = file.entries
    assert entry.answers == ("2", "3") and entry.target == "2" and entry.where == "line 1"
    assert entry.texts == ("1+1?", "2", "It is so.") and entry.prompt == "Problem: 1+1?\nAnswer:"


def test_responses_under_two_filters_are_one_answer(tmp_path):
    lines = [lm_eval_line(0, "1+1?", ["so 2"], used_filter=name) for name in ("strict-match", "flexible-extract")]
    file = read_file(write_lines(tmp_path / "samples_x_1.jsonl", lines), None, ())
    assert [entry.answers for entry in file.entries] == [("so 2",)]
    assert file.notes == ("1 lines have the same responses under another filter, and count once",)


@pytest.mark.parametrize(
    ("responses", "answers"),
    [
        ({"filtered_resps": "7"}, ("7",)),
        ({"resps": ["<think>1</think>7"], "filtered_resps": "7"}, ("<think>1</think>7",)),
        ({"resps": [["7"], ["8"]], "filtered_resps": ["7", "8"]}, ("7", "8")),
        ({"filtered_resps": ""}, ("",)),
        ({"filtered_resps": []}, ()),
    ],
)
def test_what_lmms_eval_logs_of_a_question(tmp_path, responses, answers):
    line = {**lmms_eval_line(0, "1+6?", "", "7"), **responses}
    file = read_file(write_lines(tmp_path / "20260806_102223_samples_mathvista.jsonl", [line]), None, ())
    (entry,) = file.entries
    assert (file.format, file.task) == ("lmms-eval", "mathvista") and entry.answers == answers
    assert entry.prompt == "1+6?" and not entry.texts and bool(entry.failure) == (not answers)


def test_an_older_log_has_lists_of_arguments(tmp_path):
    line = {**lm_eval_line(0, "1+1?", ["2"]), "arguments": [["the prompt", {"until": []}]]}
    assert read_file(write_lines(tmp_path / "a.jsonl", [line]), None, ()).entries[0].prompt == "the prompt"


def test_settings_that_differ_between_lines_are_left_out(tmp_path):
    lines = [lm_eval_line(i, f"{i}?", ["2"]) for i in range(2)]
    lines[1]["arguments"]["gen_args_0"]["arg_1"] = {**GENERATION, "temperature": 1.0}
    assert "temperature" not in read_file(write_lines(tmp_path / "a.jsonl", lines), None, ()).sampling


LIKELIHOODS = {
    **lm_eval_line(0, "1+1?", []),
    "arguments": {"gen_args_0": {"arg_0": "1+1?", "arg_1": " 2"}},
    "resps": [[["-0.25", "True"]], [["-3.5", "False"]]],
}


@pytest.mark.parametrize(
    ("content", "chosen", "said"),
    [
        ("", None, "is empty; there are no answers"),
        (" \n\n", None, "is empty; there are no answers"),
        ("problem,answer\n1+1?,2\n", None, "no known format; it begins with 'problem,answer"),
        ('{"results": {"toy": 1}}', None, "has no known format"),
        ('{\n  "results": {}\n}', "lm-eval", "line 1, is not JSON"),
        ('{"doc_id": 0}\n', "lm-eval", "line 1, has no doc_id with resps"),
        (json.dumps(lm_eval_line(0, "1?", ["2"])) + '\n{"doc_id": 1, "re', None, "line 2, is not JSON"),
        (json.dumps(LIKELIHOODS), None, "log-likelihoods of options and no answer in text"),
        (json.dumps(lm_eval_line(0, "1?", ["2"])), "vlmeval", "has no column index and no column prediction"),
    ],
)
def test_a_file_that_is_none_has_one_message(tmp_path, content, chosen, said):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=r"a\.jsonl") as caught:
        read_file(path, chosen, ())
    assert said in str(caught.value)


def test_a_folder_and_no_file(tmp_path):
    with pytest.raises(UserError, match="is a folder; name its files"):
        read_file(tmp_path, None, ())
    with pytest.raises(UserError, match="is no file"):
        read_file(tmp_path / "a", None, ())
