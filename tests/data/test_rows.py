"""Conversion of other tools' rows to the documented format."""

import json

import pytest

from rlfr_vlm.data.rows import BadRow, Converter, check_columns, detect
from rlfr_vlm.errors import UserError

MESSAGES = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "sum?"}]}]

CASES = {
    "documented": (
        {"id": 3, "prompt": "q", "images": ["a.png"], "answer": ["7", "8"], "answer_type": "text", "other": 1},
        "plain",
        {"id": 3, "prompt": "q", "images": ["a.png"], "answer": ["7", "8"], "answer_type": "text", "other": 1},
    ),
    "math suites": (
        {"id": "aime24-0", "problem": "p", "answer": "204"}, "plain",
        {"id": "aime24-0", "prompt": "p", "answer": "204", "images": []},
    ),
    "Geometry3K": (
        {"images": [{"bytes": b"x", "path": None}], "problem": "<image>Find x", "answer": "3"}, "plain",
        {"prompt": "<image>Find x", "answer": "3", "images": [{"bytes": b"x", "path": None}]},
    ),
    "one image": ({"question": "q", "image": "a.png", "label": 7}, "plain",
                  {"prompt": "q", "answer": 7, "images": ["a.png"]}),
    "MM-Eureka": (
        {"id": "1", "prompt": json.dumps(MESSAGES), "answer": "7"}, "mm_eureka",
        {"id": "1", "prompt": MESSAGES, "answer": "7", "images": ["a.png"]},
    ),
    "OpenRLHF": (
        {"message": json.dumps(MESSAGES), "answer": "7", "images": ["b.png"]}, "mm_eureka",
        {"prompt": MESSAGES, "answer": "7", "images": ["b.png"]},
    ),
    "RLPR": (
        {"data_source": "d", "prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "7"},
         "extra_info": {"index": 4}}, "rlpr",
        {"extra_info": {"index": 4}, "id": 4, "prompt": [{"role": "user", "content": "q"}], "answer": "7",
         "source": "d", "images": []},
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "so 7"}],
         "system": "be brief", "images": ["a.png"]}, "sharegpt",
        {"prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "<image>q"}],
         "response": "so 7", "images": ["a.png"]},
    ),
    "OpenAI messages": (
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "so 7"}], "answer": "7"},
        "sharegpt",
        {"prompt": [{"role": "user", "content": "q"}], "response": "so 7", "answer": "7", "images": []},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_presets(name):
    raw, preset, expected = CASES[name]
    assert detect(raw) == preset
    assert Converter()(raw) == expected
    assert Converter(preset)(raw) == expected


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ([1, 2], "json"),
        ({"prompt": "[{broken"}, None),  # a question that begins with a bracket, not messages
        ({"prompt": '[{"role": "user"'}, "prompt"),
        ({"prompt": "q", "options": 4}, "options"),
        ({"conversations": ["hello", {"from": "gpt"}]}, None),
        ({"prompt": "q", "reward_model": {"ground_truth": "7"}, "extra_info": "text"}, None),
        ({"conversations": [{"from": "narrator", "value": "q"}]}, "prompt"),
    ],
)
def test_rows_with_unexpected_content(raw, reason):
    convert = Converter()
    if reason is None:
        assert convert(raw).get("prompt") == raw.get("prompt")
        return
    with pytest.raises(BadRow) as caught:
        convert(raw)
    assert caught.value.reason == reason


@pytest.mark.parametrize("value", [None, "", []])
def test_an_empty_answer_is_no_answer(value):
    with pytest.raises(BadRow, match="no answer"):
        check_columns({"prompt": "q", "answer": value}, ("prompt", "answer"))
    check_columns({"prompt": "q", "answer": 0}, ("prompt", "answer"))


def test_unknown_preset():
    with pytest.raises(UserError, match=r"dataset_format is 'sharegtp'.*Did you mean 'sharegpt'"):
        Converter("sharegtp")


def test_the_math_suites_load(shared):
    from rlfr_vlm.data.load import load_rows

    counts = {}
    for path in sorted((shared / "data" / "math_suites").glob("*.jsonl")):
        loaded = load_rows(str(path), columns=("prompt", "answer"))
        counts[path.stem] = len(loaded)
        assert loaded[0]["prompt"][0]["role"] == "user" and loaded[0]["answer"]
    assert sum(counts.values()) == 1590


def test_messages_are_recognised_with_any_white_space():
    for text in (json.dumps(MESSAGES, indent=1), " [ " + json.dumps(MESSAGES)[1:]):
        assert Converter()({"prompt": text})["images"] == ["a.png"]
    assert Converter()({"prompt": MESSAGES})["images"] == ["a.png"]


def test_documented_format_of_mm_eureka():
    raw = {"conversations": [{"role": "user", "content": "<image>q"}], "answer": "7", "image_urls": ["file:///a.png"]}
    assert Converter()(raw)["images"] == ["file:///a.png"]


def test_options_in_every_shape():
    assert Converter()({"prompt": "q", "options": {"B": "2", "A": 1}})["options"] == ["1", "2"]
    with pytest.raises(BadRow, match="options"):
        Converter()({"prompt": "q", "options": "A. 1"})


def test_a_mapped_column_may_be_empty_in_a_row():
    convert = Converter("auto", {"prompt": "frage", "images": "bilder"})
    assert convert({"frage": "q", "bilder": None})["images"] == []
    assert "frage" not in convert({"frage": "q"})


def test_converters_and_bad_rows_travel_between_processes():
    import pickle

    assert pickle.loads(pickle.dumps(Converter("auto", {"prompt": "q"}))) == Converter("auto", {"prompt": "q"})
    error = pickle.loads(pickle.dumps(BadRow("image", "\x1b[31m")))
    assert (error.reason, error.detail) == ("image", "\\x1b[31m")
