"""Rows that would train a policy wrongly without an error: each must be converted, or be a bad row with its reason."""

import datetime
import decimal
import json
import random

import pytest
from PIL import Image

from rlfr_vlm.cli import main
from rlfr_vlm.commands.check_data import CheckOptions
from rlfr_vlm.data.bad_rows import BadRows
from rlfr_vlm.data.check import check_rows
from rlfr_vlm.data.load import as_dataset, read_rows
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import BadRow
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions

NEEDS = ("prompt", "answer")
GOOD = {"prompt": "sum of 3 and 4?", "answer": "7"}
LISTED = "which?\nA. 1\nB. 2\nC. 3\nD. 4"


@pytest.fixture
def load(tmp_path):
    """Loads the first of the rows, as training does."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")

    def load_first(row, *others):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, [row, *others, GOOD])))
        return read_rows(DataOptions(dataset_name=str(path)), NEEDS).load(0)

    return load_first


def check(tmp_path, rows, capsys):
    """Run `rlfr check-data` on rows; return what it prints, without the paths, and the report."""
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--dataset_name", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(["check-data", *arguments]) in (0, 1)
    out = capsys.readouterr().out.replace(str(tmp_path), "")
    return out, json.loads((tmp_path / "out" / "report.json").read_text())


def user(*content):
    return {"prompt": [{"role": "user", "content": list(content)}], "answer": "7"}


TEXT = {"type": "text", "text": "sum?"}


# Multiple choice


@pytest.mark.parametrize(("index", "letter", "text"), [(0, "A", "red"), (1, "B", "blue")])
def test_an_integer_answer_beside_choices_is_an_option_or_refused(load, index, letter, text):
    """ScienceQA counts its options from 0; the text "1" is the answer of no response."""
    try:
        row = load({"question": "which colour?\nA. red\nB. blue", "choices": ["red", "blue"], "answer": index})
    except BadRow as error:
        assert "choices" in str(error) or "options" in str(error)
    else:
        assert row["answer"] in (letter, text)


@pytest.mark.parametrize("index", [2, -1])
def test_an_integer_answer_outside_the_choices_is_refused(load, index):
    with pytest.raises(BadRow, match=r"choices|options"):
        load({"question": "which colour?\nA. red\nB. blue", "choices": ["red", "blue"], "answer": index})


def test_check_data_says_once_that_integer_answers_count_from_zero(tmp_path, capsys):
    question = "which colour is number {}?\nA. red\nB. blue"
    rows = [{"question": question.format(i), "choices": ["red", "blue"], "answer": i % 2} for i in range(24)]
    out, report = check(tmp_path, rows, capsys)
    assert out.count("0-based") == 1 or report["kept"] == 0


def hidden_options(count):
    return [
        {"prompt": f"which colour is number {i}?", "options": ["red", "blue"], "answer": "A"} for i in range(count)
    ]


def test_check_data_counts_options_that_the_prompt_does_not_show(tmp_path, capsys):
    rows = [*hidden_options(24), {"prompt": LISTED, "options": ["1", "2", "3", "4"], "answer": "A"}]
    out, _ = check(tmp_path, rows, capsys)
    assert "24 rows have options that their prompts do not show" in out


def test_check_data_says_nothing_of_options_that_the_prompt_shows(tmp_path, capsys):
    rows = [{"prompt": f"{i}: {LISTED}", "options": ["1", "2", "3", "4"], "answer": "A"} for i in range(24)]
    out, report = check(tmp_path, rows, capsys)
    assert "do not show" not in out and report["kept"] == 24


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"answer": "E"}, "'E'"),
        ({"answer": "17"}, "'17'"),
        ({"options": ["1", "1", "3", "4"]}, "options"),
        ({"options": ["1", None, "3", "4"]}, "options"),
        ({"options": {"label": ["A", "B"], "text": ["1", "2"]}}, "options"),
        ({"options": None, "answer_type": "option", "answer": "blue"}, "options"),
    ],
    ids=[
        "letter of no option", "text of no option", "doubled", "null", "labels and texts",
        "option without options",
    ],
)  # fmt: skip
def test_a_multiple_choice_row_that_no_response_can_answer_is_bad(load, changes, word):
    with pytest.raises(BadRow) as caught:
        load({"prompt": LISTED, "options": ["1", "2", "3", "4"], "answer": "A", **changes})
    assert word in str(caught.value)


@pytest.mark.parametrize("answer", ["A", "d", "(B)", "3", ["A", "1"]])
def test_usual_answers_of_multiple_choice_stay_good(load, answer):
    assert load({"prompt": LISTED, "options": ["1", "2", "3", "4"], "answer": answer})["answer"] == answer


# Content blocks


def data_url(tmp_path):
    import base64

    return "data:image/png;base64," + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()


def assert_keeps_its_image(load, column, block):
    row = load({column: [{"role": "user", "content": [block, TEXT]}], "answer": "7"})
    assert [image.size for image in row["images"]] == [(40, 30)]
    assert row["prompt"][0]["content"] == [{"type": "image"}, TEXT]


def test_an_image_block_in_a_prompt_keeps_its_image(load):
    assert_keeps_its_image(load, "prompt", {"type": "image", "image": "a.png"})


def test_an_image_block_in_messages_keeps_its_image(load):
    assert_keeps_its_image(load, "messages", {"type": "image", "image": "a.png"})


@pytest.mark.parametrize("column", ["prompt", "messages"])
@pytest.mark.parametrize("style", ["path", "data URL", "plain path"])
def test_image_url_blocks_keep_their_image(load, tmp_path, style, column):
    value = {"path": {"url": "a.png"}, "data URL": {"url": data_url(tmp_path)}, "plain path": "a.png"}[style]
    assert_keeps_its_image(load, column, {"type": "image_url", "image_url": value})


@pytest.mark.parametrize("kind", ["video", "audio", "input_audio", "foo"])
def test_a_content_block_of_an_unknown_type_is_bad_by_name(load, kind):
    with pytest.raises(BadRow, match=kind):
        load(user({"type": kind, kind: "a"}, TEXT))


# Answers


@pytest.mark.parametrize(
    "answer",
    [
        float("nan"), float("inf"), float("-inf"), "nan", "NaN", "None", "null", "N/A", {"value": 7}, [float("nan")],
        ["7", None], [["7"], ["8"]],
    ],
    ids=repr,
)  # fmt: skip
def test_an_answer_without_a_value_is_bad(load, answer):
    with pytest.raises(BadRow, match="answer"):
        load({"prompt": "sum?", "answer": answer})


def parquet(tmp_path, answers):
    import pyarrow
    import pyarrow.parquet

    prompts = [f"sum {number}?" for number in range(len(answers))]
    pyarrow.parquet.write_table(pyarrow.table({"prompt": prompts, "answer": answers}), tmp_path / "rows.parquet")
    return DataOptions(dataset_name=str(tmp_path / "rows.parquet"))


def test_decimal_answers_are_numbers(tmp_path):
    options = parquet(tmp_path, [decimal.Decimal("7.50"), decimal.Decimal("8.00")])
    assert [float(row["answer"]) for row in as_dataset(read_rows(options, NEEDS))] == [7.5, 8.0]
    report = check_rows(options, NEEDS, workers=1, progress=False)
    assert report.kept == [0, 1]


@pytest.mark.parametrize(
    "answer", [datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2)], ids=["date", "datetime"]
)
def test_dates_as_answers_do_not_crash_the_check(tmp_path, answer):
    report = check_rows(parquet(tmp_path, [answer, answer]), NEEDS, workers=1, progress=False)
    if report.kept:  # they were converted
        (first, *_) = as_dataset(read_rows(parquet(tmp_path, [answer, answer]), NEEDS))
        assert first["answer"].startswith("2020-01-02")
    else:
        assert report.dropped and all(
            "date" in example for examples in report.examples.values() for example in examples
        )


def test_bytes_as_an_answer_are_not_the_number_of_their_character(tmp_path):
    """Iterated, b"7" is the number 55."""
    report = check_rows(parquet(tmp_path, [b"7", b"8"]), NEEDS, workers=1, progress=False)
    assert report.kept == []


# Messages and prompts


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([{"content": "sum?"}], "role"),
        ([{"role": None, "content": "sum?"}], "role"),
        ([{"role": "narrator", "content": "sum?"}], "narrator"),
        ([{"role": "system", "content": "be brief"}], "user"),
        ([{"role": "user", "content": "sum?"}, {"role": "assistant", "content": "7"}], "assistant"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "text"),
        ([{"role": "user", "content": [{"type": "text"}]}], "text"),
        ([{"role": "user", "content": None}], "content"),
    ],
    ids=[
        "no role", "role null", "unknown role", "only a system turn", "ends in an assistant turn", "text null",
        "no text", "content null",
    ],
)  # fmt: skip
def test_messages_that_are_no_question_are_bad(load, messages, word):
    with pytest.raises(BadRow) as caught:
        load({"prompt": messages, "answer": "7"})
    assert word in str(caught.value)


def test_a_content_block_without_type_is_bad(load):
    with pytest.raises(BadRow, match="type"):
        load(user({"text": "sum?"}))


BLANK = ["   ", "\n\t", "\u200b\u200b", "\ufeff", "\u00a0"]


@pytest.mark.parametrize("prompt", BLANK, ids=ascii)
def test_a_blank_prompt_is_bad(load, prompt):
    with pytest.raises(BadRow, match=r"(?i)prompt.*(blank|empty|no text)"):
        load({"prompt": prompt, "answer": "7"})


@pytest.mark.parametrize("prompt", [*BLANK, "<image> "], ids=ascii)
def test_an_image_without_a_question_is_bad(load, prompt):
    with pytest.raises(BadRow, match=r"(?i)prompt.*(blank|empty|no text)"):
        load({"prompt": prompt, "images": ["a.png"], "answer": "7"})


SPECIAL = [(token, image) for token in ("<|im_end|>", "<|im_start|>", "<|endoftext|>") for image in (False, True)]


@pytest.mark.parametrize(("token", "with_image"), [("<|image_pad|>", False), *SPECIAL])
def test_special_tokens_in_the_text_are_bad(load, token, with_image):
    """The tokenizer reads them as the end of a turn or as an image, not as text."""
    row = {"prompt": f"what does {token} mean?", "answer": "7"} | ({"images": ["a.png"]} if with_image else {})
    with pytest.raises(BadRow) as caught:
        load(row)
    assert token in str(caught.value)


@pytest.mark.parametrize("marker", ["<IMAGE>", "[IMG]", "<image_1>"])
def test_markers_of_other_tools_are_not_left_as_text(load, marker):
    try:
        row = load({"prompt": f"{marker} sum?", "images": ["a.png"], "answer": "7"})
    except BadRow as error:
        assert marker in str(error)
    else:
        assert marker not in flatten_text(row["prompt"])[0]["content"] and len(row["images"]) == 1


# Bad-row limit


def record(limit, size, is_bad):
    """Read `size` rows in order; return how many were read before the run stopped."""
    rows = BadRows(limit, size)
    for number in range(size):
        try:
            rows.record(number, BadRow("json", "broken") if is_bad(number) else None)
        except UserError:
            return number + 1
    return size


@pytest.mark.parametrize("position", [0, 10])
def test_one_bad_row_before_the_limit_applies_does_not_stop_the_run(position):
    assert record(0.02, 1000, lambda number: number == position) == 1000


@pytest.mark.parametrize("position", [19, 25])
def test_one_bad_row_among_the_first_is_not_more_than_two_percent(position):
    """With 2 % of bad rows, one among the first 20 is expected in a third of all runs."""
    assert record(0.02, 1000, lambda number: number == position) == 1000


def test_a_share_at_the_limit_passes_in_any_order():
    stopped = 0
    for seed in range(50):
        bad = set(random.Random(seed).sample(range(1000), 15))  # 1.5 %
        stopped += record(0.02, 1000, bad.__contains__) < 1000
    assert stopped <= 2


def test_many_bad_rows_stop_the_run_early():
    assert record(0.02, 1000, lambda number: number % 4 == 0) <= 60


def test_the_check_and_training_share_one_default_limit():
    assert CheckOptions().max_dropped == DataOptions().bad_row_limit


@pytest.mark.parametrize("size", [20, 30])
def test_training_reads_a_set_that_the_check_calls_usable(tmp_path, size):
    lines = [json.dumps({"prompt": f"sum {i}?", "answer": str(i)}) for i in range(size - 1)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, "{broken"]))
    command = ["check-data", "--dataset_name", str(tmp_path / "rows.jsonl"), "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    dataset = as_dataset(read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")), NEEDS))
    assert len(dataset[:]["prompt"]) == size
