"""Broken rows by kind: each is a bad row whose message says what is wrong, in training as in `rlfr check-data`."""

import ast
import json
import re
from pathlib import Path

import datasets
import pytest
from PIL import Image

from rlfr_vlm.commands.check_data import render_report
from rlfr_vlm.commands.run_trainer import training_dataset
from rlfr_vlm.data.across_rows import refused_in_training
from rlfr_vlm.data.check import DataReport, check_row, check_rows, notes_of_rows
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.mends import MENDS
from rlfr_vlm.data.read import TEXT_COLUMN, RawDataset
from rlfr_vlm.data.rows import MEDIA_KEYS, BadRow
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions, RunOptions

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ("prompt", "answer")
LISTED = {"prompt": "which?\nA. red\nB. blue\nC. green\nD. grey", "options": ["red", "blue", "green", "grey"]}
TEXT = {"type": "text", "text": "sum?"}
WITH_IMAGE = {"images": ["a.png"], "answer": "7"}
NO_CAUSE = re.compile(r"\b\w+Error: |object at 0x|\ban? (?:int|str|dict|float|NoneType)\b|not iterable|sequence elem")


def asked(*messages):
    return {"prompt": list(messages), "answer": "7"}


def user(*blocks):
    return asked({"role": "user", "content": list(blocks)})


def choice(answer, *options, **columns):
    return {**LISTED, "answer": answer, **({"options": list(options)} if options else {}), **columns}


# Kind -> (what is broken, row or line of JSON, reason, words of the message)
BROKEN = {
    "answers": [
        ("NaN", {"prompt": "q", "answer": float("nan")}, "answer", "not a finite number"),
        ("infinite", {"prompt": "q", "answer": float("inf")}, "answer", "not a finite number"),
        ("text nan", {"prompt": "q", "answer": "nan"}, "answer", "missing value"),
        ("text None", {"prompt": "q", "answer": "None"}, "answer", "missing value"),
        ("text N/A", {"prompt": "q", "answer": "N/A"}, "answer", "missing value"),
        ("text n/a", {"prompt": "q", "answer": " n/a"}, "answer", "missing value"),
        ("failed formula", {"prompt": "q", "answer": "#DIV/0!"}, "answer", "missing value"),
        ("object", {"prompt": "q", "answer": {"value": 7}}, "answer", "an object"),
        ("nested list", {"prompt": "q", "answer": [["7"]]}, "answer", "a list"),
        ("list with null", {"prompt": "q", "answer": ["7", None]}, "answer", "null"),
        ("blank", {"prompt": "q", "answer": "  \n"}, "answer", "blank"),
        ("zero-width", {"prompt": "q", "answer": "\u200b\u2060"}, "answer", "blank"),
        ("blank in a list", {"prompt": "q", "answer": ["7", " "]}, "answer", "blank"),
        ("solution without its end", {"prompt": "q", "answer": "24 + 48 = 72\n#### "}, "answer", "without a final"),
        ("end of a turn", {"prompt": "q", "answer": "7<|im_end|>"}, "text", "<|im_end|>"),
        ("lone surrogate", '{"prompt": "q", "answer": "\\ud800"}', "text", "surrogate"),
        ("byte that is not UTF-8", {"prompt": "q", "answer": "caf\ufffd"}, "text", "UTF-8"),
        ("reward_model without object", {"prompt": "q", "reward_model": 7}, "no answer", "prompt"),
    ],
    "multiple choice": [
        ("letter of no option", choice("E"), "options", "'E'"),
        ("text of no option", choice("black"), "options", "'black'"),
        ("index of no option", choice(4), "options", "4"),
        ("negative index", choice(-1), "options", "-1"),
        ("letter with another text", choice("B. red"), "options", "'B. red'"),
        ("true without such an option", choice(True), "options", "'True'"),
        ("letter and text of another option", choice("B", "B", "A", "C"), "options", "the text of option A"),
        ("two options but for case", choice("pa", "Pa", "PA"), "options", "options A and B"),
        ("without options", choice("red", answer_type="option") | {"options": None}, "options", "without options"),
        ("words that begin with a letter", {"prompt": "q", "answer": "a cat", "answer_type": "option"}, "options",
         "without options"),
        ("one option", choice("A", "red"), "options", "one option"),
        ("empty option", choice("A", "red", ""), "options", "empty"),
        ("invisible option", choice("A", "red", "\u200b"), "options", "empty"),
        ("doubled", choice("A", "red", "red"), "options", "equal"),
        ("null", choice("A", "red", None), "options", "null"),
        ("NaN", choice("A", "red", float("nan")), "options", "nan"),
        ("records", choice("A", {"label": "A", "text": "red"}, {"label": "B", "text": "blue"}), "options",
         "an object"),
        ("lists", choice("A", ["red"], ["blue"]), "options", "a list"),
        ("30 of them", choice("A", *map(str, range(30))), "options", "A to J"),
        ("12 of them", choice("L", *map(str, range(12))), "options", "A to J"),
        ("letters with a gap", choice("C", options={"A": "red", "C": "blue"}), "options", "named A, C"),
        ("numbers as names", choice("2", options={"1": "red", "2": "blue"}), "options", "named 1, 2"),
        ("text", choice("A", options="A. red B. blue"), "options", "'A. red B. blue'"),
        ("number", choice("A", options=4), "options", "4"),
    ],
    "messages": [
        ("no role", asked({"content": "q"}), "prompt", "role None"),
        ("unknown role", asked({"role": "narrator", "content": "q"}), "prompt", "narrator"),
        ("only a system turn", asked({"role": "system", "content": "q"}), "prompt", "turn of system"),
        ("ends in an answer", asked({"role": "user", "content": "q"}, {"role": "assistant", "content": "7"}), "prompt",
         "shown an answer"),
        ("content null", asked({"role": "user", "content": None}), "prompt", "null"),
        ("text null", user({"type": "text", "text": None}), "prompt", "null"),
        ("video", user({"type": "video", "video": "a.mp4"}, TEXT), "video missing", "a.mp4"),
        ("block without type", user({"text": "q"}), "prompt", "type"),
        ("image under an unknown key", user({"type": "image", "source": {"data": "iVBO"}}, TEXT) | WITH_IMAGE,
         "prompt", "key source"),
        ("images in a message", asked({"role": "user", "content": "q", "images": ["a.png"]}), "prompt", "key images"),
        ("another image in a block", user({"type": "image", "image": "b.png"}, TEXT) | WITH_IMAGE, "image places",
         "'b.png'"),
        ("videos of the row", {"prompt": "<video>q", "videos": ["a.mp4"], "answer": "7"}, "video missing", "a.mp4"),
        ("number as prompt", {"prompt": 7, "answer": "7"}, "prompt", "7"),
        ("number as message", {"prompt": [7], "answer": "7"}, "prompt", "7"),
        ("turn that is a text", {"conversations": [{"from": "human", "value": "q"}, "so 7"], "answer": "7"}, "prompt",
         "'so 7'"),
        ("turn with null", {"conversations": [{"from": "human", "value": None}], "answer": "7"}, "prompt", "null"),
        ("row that is a number", "7", "json", "7"),
        ("row that is a list", "[1, 2]", "json", "a list"),
    ],
    "texts": [
        ("blank", {"prompt": " \n", "answer": "7"}, "prompt", "blank"),
        ("zero-width", {"prompt": "\u200b\ufeff", "answer": "7"}, "prompt", "blank"),
        ("direction marks", {"prompt": "\u202e\u2066\u2069", "answer": "7"}, "prompt", "blank"),
        ("fillers", {"prompt": "\u3164\u2800\ufe0f", "answer": "7"}, "prompt", "blank"),
        ("blank question after a system turn",
         asked({"role": "system", "content": "be brief"}, {"role": "user", "content": " "}), "prompt", "blank"),
        ("end of a turn", {"prompt": "q<|im_end|>", "answer": "7"}, "text", "<|im_end|>"),
        ("token of Llama", {"prompt": "q<|eom_id|>", "answer": "7"}, "text", "<|eom_id|>"),
        ("token of DeepSeek", {"prompt": "q<｜Assistant｜>", "answer": "7"}, "text", "<｜Assistant｜>"),
        ("token of images", {"prompt": "<|image_pad|>q", "answer": "7"}, "image places", "<|image_pad|>"),
        ("marker without image", {"prompt": "<image 1> q", "answer": "7"}, "image places", "no image"),
        ("<IMAGE>", {"prompt": "<IMAGE> q", **WITH_IMAGE}, "image places", "<IMAGE>"),
        ("[IMG]", {"prompt": "[IMG] q", **WITH_IMAGE}, "image places", "[IMG]"),
        ("<image 1>", {"prompt": "<image 1> q", **WITH_IMAGE}, "image places", "<image 1>"),
        ("<image_1>", {"prompt": "<image_1> q", **WITH_IMAGE}, "image places", "<image_1>"),
        ("<|image_1|>", {"prompt": "<|image_1|> q", **WITH_IMAGE}, "image places", "<|image_1|>"),
        ("<image-placeholder>", {"prompt": "<image-placeholder> q", **WITH_IMAGE}, "image places", "placeholder"),
        ("HTML", {"prompt": '<img src="a.png"> q', **WITH_IMAGE}, "image places", "<img src"),
        ("Markdown", {"prompt": "![figure](a.png) q", **WITH_IMAGE}, "image places", "![figure](a.png)"),
        ("marker and block", user({"type": "image"}, {"type": "text", "text": "<image>q"}) | WITH_IMAGE,
         "image places", "2 image place"),
        ("byte that is not UTF-8", {"prompt": "caf\ufffd?", "answer": "7"}, "text", "'caf\ufffd?'"),
        ("two values for a key", '{"prompt": "q", "answer": "7", "answer": "8"}', "json", "'answer' occurs twice"),
        ("two values in a message", '{"prompt": [{"role": "user", "content": "q", "content": "r"}], "answer": "7"}',
         "json", "'content' occurs twice"),
    ],
    "images": [
        ("URL", {"prompt": "q", "images": ["https://a.org/b.png"], "answer": "7"}, "image is a URL", "download"),
        ("URL in capitals", {"prompt": "q", "images": ["HTTPS://A.ORG/b.png"], "answer": "7"}, "image is a URL",
         "download"),
        ("URL after a space", {"prompt": "q", "images": [" https://a.org/b.png"], "answer": "7"}, "image is a URL",
         "download"),
        ("bucket", {"prompt": "q", "images": ["s3://a/b.png"], "answer": "7"}, "image is a URL", "download"),
        ("backslash", {"prompt": "q", "images": ["sub\\b.png"], "answer": "7"}, "image missing", "'sub/b.png' does"),
        ("backslash, no such file", {"prompt": "q", "images": ["c\\b.png"], "answer": "7"}, "image missing",
         "write / for"),
        ("path of Windows", {"prompt": "q", "images": ["C:\\a\\b.png"], "answer": "7"}, "image missing", "Windows"),
        ("other case", {"prompt": "q", "images": ["A.PNG"], "answer": "7"}, "image missing", "'a.png' does, in other"),
        ("other case of the folder", {"prompt": "q", "images": ["Sub/b.png"], "answer": "7"}, "image missing",
         "'sub/b.png' does, in other"),
        ("percent signs", {"prompt": "q", "images": ["%61.png"], "answer": "7"}, "image missing", "'a.png' does"),
        ("folder", {"prompt": "q", "images": ["sub"], "answer": "7"}, "image missing", "is a folder"),
        ("list as text", {"prompt": "q", "images": '["a.png"]', "answer": "7"}, "image missing", "list written as"),
        ("link to itself", {"prompt": "q", "images": ["loop.png"], "answer": "7"}, "image missing", "link"),
        ("link to nothing", {"prompt": "q", "images": ["broken.png"], "answer": "7"}, "image missing", "is a link to"),
        ("null beside an image", {"prompt": "q", "images": ["a.png", None], "answer": "7"}, "image missing",
         "image 2 of 2 is null"),
        ("no bytes and no path", {"prompt": "q", "images": [{"bytes": None, "path": None}], "answer": "7"},
         "image unreadable", "neither bytes nor a path"),
        ("number", {"prompt": "q", "images": 7, "answer": "7"}, "image unreadable", "7 (int)"),
        ("data URL of text", {"prompt": "q", "images": ["data:image/svg+xml,<svg/>"], "answer": "7"},
         "image unreadable", "no data URL"),
        ("pointer of Git LFS", {"prompt": "q", "images": ["lfs.png"], "answer": "7"}, "image unreadable", "lfs pull"),
        ("web page", {"prompt": "q", "images": ["page.png"], "answer": "7"}, "image unreadable", "web page"),
        ("SVG", {"prompt": "q", "images": ["drawing.png"], "answer": "7"}, "image unreadable", "convert it to PNG"),
        ("empty file", {"prompt": "q", "images": ["empty.png"], "answer": "7"}, "image unreadable", "is empty"),
        ("other bytes", {"prompt": "q", "images": ["text.png"], "answer": "7"}, "image unreadable", "b'not an image'"),
    ],
}  # fmt: skip
# Rows that look broken and have one meaning: (row, column, its value for training)
CONVERTED = {
    "true": ({"prompt": "q", "answer": True}, "answer", ["yes", "true"]),
    "false in a list": ({"prompt": "q", "answer": [False, "0"]}, "answer", ["no", "false", "0"]),
    "true beside options": (choice(True, "False", "True"), "answer", "B"),
    "yes beside options": (choice(True, "no", "Yes", "maybe"), "answer", "B"),
    "solution of GSM8K": ({"prompt": "q", "answer": "24 + 48 = <<24+48=72>>72\n#### 72"}, "answer", "72"),
    "solution with a box": ({"prompt": "q", "answer": "So $x = 2$ and \\boxed{72}."}, "answer", "72"),
    "answer in tags": ({"prompt": "q", "answer": "<answer>72</answer>"}, "answer", "72"),
    "answer in a sentence": ({"prompt": "q", "answer": ["The answer is 72.", 72]}, "answer", ["72", 72]),
    "index": (choice(1), "answer", "B"),
    "letter and text": (choice("B. blue"), "answer", "B"),
    "None is an option": (choice("None", "red", "None"), "answer", "None"),
    "an option but for case": (choice("Pa", "PA", "Pa"), "answer", "B"),
    "options by letter": (choice("B", options={"b": "blue", "a": "red"}), "options", ["red", "blue"]),
    "block with a path": (user({"type": "image", "path": "a.png"}, TEXT), "image_paths", ["a.png"]),
    "block with a URL of a file": (user({"type": "image", "url": "a.png"}, TEXT), "image_paths", ["a.png"]),
    "marker in a block": (
        user({"type": "text", "text": "sum <image>?"}) | WITH_IMAGE, "prompt",
        [{"role": "user", "content": [{"type": "text", "text": "sum "}, {"type": "image"}, TEXT | {"text": "?"}]}],
    ),
    "HTML without image": ({"prompt": "what does <img> do?", "answer": "7"}, "answer", "7"),
    "bars in a formula": ({"prompt": "is 0<|x|>-1 or <|a_1|>?", "answer": "7"}, "answer", "7"),
}  # fmt: skip
ALL_BROKEN = [(kind, *case) for kind, cases in BROKEN.items() for case in cases]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    (folder / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/b.png"):
        Image.new("RGB", (40, 30), "red").save(folder / name)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "broken.png").symlink_to("gone.png")
    for name, content in {
        "lfs.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "page.png": b"<!DOCTYPE html><p>",
        "drawing.png": b"\n<svg xmlns=''/>", "empty.png": b"", "text.png": b"not an image",
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    return folder


def rows_of(media, *rows, needed=NEEDS, **options):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    raw = RawDataset(datasets.Dataset.from_dict({TEXT_COLUMN: lines}), media)
    return Rows(raw, DataOptions(**options), needed)


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [case[2:] for case in ALL_BROKEN],
    ids=[f"{kind}: {what}" for kind, what, *_ in ALL_BROKEN],
)  # fmt: skip
def test_a_broken_row_is_bad_and_says_why(media, row, reason, words):
    rows = rows_of(media, row)
    with pytest.raises(BadRow) as caught:
        rows.load(0)
    assert caught.value.reason == reason and words in caught.value.detail
    assert not NO_CAUSE.search(caught.value.detail)
    checked = check_row(rows, 0, None, DataOptions())
    assert (checked.reason, checked.detail) == (caught.value.reason, caught.value.detail)


@pytest.mark.parametrize("name", CONVERTED)
def test_a_row_with_one_meaning_is_converted(media, name):
    row, column, value = CONVERTED[name]
    assert rows_of(media, row).load(0)[column] == value


@pytest.mark.parametrize("response", ["\u200b", "so 7<|im_end|>", "caf\ufffd"])
def test_an_expert_response_is_checked_as_well(media, response):
    with pytest.raises(BadRow, match="response"):
        rows_of(media, {"prompt": "q", "response": response}, needed=("prompt", "response")).load(0)


def test_a_system_prompt_does_not_hide_a_blank_question(media):
    with pytest.raises(BadRow, match="blank"):
        rows_of(media, {"prompt": "\u200b", "answer": "7"}, system_prompt="Put the answer into a box.").load(0)


def test_special_tokens_of_the_policy_are_refused_in_texts(media):
    rows = rows_of(media, {"prompt": "what is [SEP]?", "answer": "7"})
    assert rows.load(0)["answer"] == "7"
    rows.special_tokens = ("[SEP]",)
    with pytest.raises(BadRow, match=r"\[SEP\], a token"):
        rows.load(0)


# Across rows


TWO_ANSWERS = [
    {"prompt": "sum of 3 and 4?", "answer": "7"},
    {"prompt": "sum of 3 and 4?", "answer": "8"},  # contradicts row 0
    {"prompt": "sum of 3 and 4?", "answer": "7.0"},  # repeats row 0
    {"prompt": "sum of 1 and 1?", "answer": "???"},  # cannot be read
    {"prompt": "colour?", "answer": "the red car"},
    {"prompt": "colour?", "answer": "red car"},  # other words may say the same
    {"prompt": "count", "images": ["a.png"], "answer": "1"},
    {"prompt": "count", "images": ["b.png"], "answer": "2"},  # another image
]


def test_check_data_counts_two_answers_apart_from_duplicates(media, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "b.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, TWO_ANSWERS)))
    report = check_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")), NEEDS, workers=1, progress=False)
    assert report.dropped == {"two answers": 1, "duplicate": 2, "gold answer": 1}
    assert report.examples["two answers"] == ["row 1: it has the answer '8', and row 0 with the same prompt '7'"]
    assert report.kept == [0, 4, 6, 7]


def test_training_refuses_what_the_check_drops_but_repeated_rows(media, text_tokenizer):
    rows = rows_of(media, *TWO_ANSWERS)
    refused = refused_in_training(rows, text_tokenizer, graded=True)
    assert {number: bad.reason for number, bad in refused.items()} == {1: "two answers", 3: "gold answer"}
    rows.refused = refused
    with pytest.raises(BadRow, match="'8', and row 0"):
        rows.load(1)
    assert rows.load(2)["answer"] == "7.0"
    assert refused_in_training(rows_of(media, *TWO_ANSWERS), text_tokenizer, graded=False) == {}


def test_training_replaces_the_rows_that_it_refuses(media, text_tokenizer):
    options = RunOptions(bad_row_limit=0.5)
    dataset = training_dataset(
        rows_of(media, *TWO_ANSWERS[:6], bad_row_limit=0.5), options, text_tokenizer, graded=True
    )
    replaced = {number: dataset[number].get("replaced_row") for number in range(6)}
    assert [number for number, reason in replaced.items() if reason] == [1, 3]
    assert replaced[1].startswith("row 1: two answers") and replaced[3].startswith("row 3: gold answer")


def test_messages_that_the_chat_template_refuses_are_bad_rows(media, text_tokenizer):
    text_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    rows = rows_of(media, asked({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), TWO_ANSWERS[0])
    refused = refused_in_training(rows, text_tokenizer, graded=True)
    assert list(refused) == [0] and "refuses the messages: no system turn" in refused[0].detail


def test_whole_solutions_are_noted(media):
    note = "note: 1 rows have a whole solution as answer"
    rows = rows_of(media, {"prompt": "q", "answer": "#### 72"}, {"prompt": "r", "answer": "72"})
    assert next(line[: len(note)] for line in notes_of_rows(rows)) == note


# Files


def test_a_key_twice_in_a_json_list_is_one_bad_row(tmp_path):
    (tmp_path / "rows.json").write_text('[{"prompt": "q", "answer": "7"}, {"prompt": "r", "answer": 1, "answer": 2}]')
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.json")), NEEDS)
    assert rows.load(0)["answer"] == "7"
    with pytest.raises(BadRow, match="'answer' occurs twice"):
        rows.load(1)


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"prompt": "caf\xe9 sum?", "answer": "7"}\n{"prompt": "q", "answer": "7"}')
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")), NEEDS)
    with pytest.raises(BadRow, match="not UTF-8, in 'caf\ufffd sum"):
        rows.load(0)
    assert rows.load(1)["answer"] == "7"


@pytest.mark.parametrize(
    ("text", "words"),
    [("prompt,answer\nq,7,x\n", "2 columns in its head, and 3"), ("prompt,answer,answer\nq,7,8\n", "'answer' twice")],
)
def test_a_table_whose_head_does_not_fit_is_named(tmp_path, text, words):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_rows(DataOptions(dataset_name=str(tmp_path / "rows.csv")), NEEDS)


@pytest.mark.parametrize(
    ("name", "words"),
    [("s3://bucket/rows.jsonl", "is a URL"), ("HTTPS://a.org/rows.jsonl", "is a URL"), ("data\\rows.jsonl", "with /")],
)
def test_a_data_set_that_is_no_path_is_named(name, words):
    with pytest.raises(UserError, match=words):
        read_rows(DataOptions(dataset_name=name), NEEDS)


# The report and the guides


def test_the_report_has_one_line_a_kind_with_an_example_and_what_mends_it():
    report = DataReport(rows=4)
    report.drop(1, "answer", "the answer is nan")
    report.drop(2, "no hint", "the row has\nq")
    report.drop(3, "answer", "the answer is null")
    lines = render_report(report).splitlines()
    assert lines[1] == f"         2  answer: row 1: the answer is nan. To mend: {MENDS['answer']}."
    assert lines[2].startswith("         1  no hint: row 2: the row has q. To mend: fill the column")
    assert "[hint=...]" in lines[2]
    assert len(lines) == 3


def test_every_kind_of_bad_row_has_a_mend():
    kinds = set()
    for path in (ROOT / "rlfr_vlm").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        made = [call.args[0] for call in calls if getattr(call.func, "id", "") == "BadRow"]
        kinds |= {argument.value for argument in made if isinstance(argument, ast.Constant)}
        formatted = [argument.values for argument in made if isinstance(argument, ast.JoinedStr)]
        for _, *rest in (values for values in formatted if getattr(values[0].value, "id", "") == "kind"):
            kinds |= {kind + "".join(part.value for part in rest) for kind in MEDIA_KEYS}
    across = {"gold answer", "two answers", "duplicate"}  # constants of across_rows.py
    checked = {"prompt too long", *(f"no {column}" for column in ("prompt", "answer", "response"))}
    assert kinds | across | checked == set(MENDS)


def test_the_guide_names_every_kind_of_bad_row():
    guide = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    assert [kind for kind in MENDS if not re.search(rf"^\|.*`{kind}`.*\|.*\|$", guide, re.MULTILINE)] == []


def random_cases(path):
    """The number of cases that the tests `test_fuzz_*` of a file make."""
    text = path.read_text(encoding="utf-8")
    examples = re.findall(r"^@settings\(derandomize=True, max_examples=(\d+)\)$", text, re.MULTILINE)
    assert len(examples) == len(re.findall(r"^def test_fuzz_", text, re.MULTILINE))
    return sum(map(int, examples))


def test_the_readme_counts_the_rows_tried():
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8").split("## Rows tried")[1]
    table = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| `([\w/.]+)` \|$", text, re.MULTILINE)
    stated = {(kind, file): int(count.replace(",", "")) for kind, count, file in table}
    here = "tests/data/test_broken_rows.py"
    counted = {(f"broken rows: {kind}", here): len(cases) for kind, cases in BROKEN.items()}
    counted |= {("rows with one meaning", here): len(CONVERTED), ("rows that repeat others", here): len(TWO_ANSWERS)}
    fuzzed = {str(path.relative_to(ROOT)): random_cases(path) for path in (ROOT / "tests").rglob("test_*.py")}
    assert {file: count for (kind, file), count in stated.items() if kind.startswith("random")} == {
        file: count for file, count in fuzzed.items() if count
    }
    assert {key: count for key, count in stated.items() if not key[0].startswith("random")} == counted
