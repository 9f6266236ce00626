"""Random rows and files: each row is usable or a bad row with a reason, and no other exception leaves the reader."""

import json
import re

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rlfr_vlm.data.across_rows import RowKey, bad_across_rows
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.mends import MENDS
from rlfr_vlm.data.read import TEXT_COLUMN, RawDataset
from rlfr_vlm.data.rows import CONVERTERS, BadRow
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.letters import LETTERS
from rlfr_vlm.options import DataOptions

NEEDS = ("prompt", "answer")
NO_CAUSE = re.compile(r"\b\w+Error: |object at 0x|\ban? (?:int|str|dict|float|NoneType)\b|not iterable")
# Texts that mean something to one of the checks, and any other text.
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "q", "sum?", "7", "A", "B. blue", "red", "nan", "<image>", "<image> q", "\u200b", "\ud800",
         "<|im_end|>", "a.png", "A.PNG", "gone.png", "data:image/png;base64,", "s3://a/b", "[1]", '[{"role": 1}]',
         '[{"role": "user", "content": "q"}]', "\ufffd", "A" * 300]
    ),
    st.text(max_size=12),
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
NAMES = st.sampled_from(
    ["type", "text", "image", "image_url", "url", "path", "bytes", "role", "content", "from", "value", "ground_truth",
     "A", "B", "1", "images"]
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "image_url", "video", None, 7])},
    optional={"text": VALUES, "image": VALUES, "path": VALUES, "image_url": VALUES},
)
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "system", "assistant", "tool", "human", None]),
                "content": TEXTS | st.lists(BLOCKS, max_size=3) | VALUES,
            }
        ),
        VALUES,
    ),
    max_size=3,
)
TURNS = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system", "x", None]), "value": VALUES})
    | st.dictionaries(NAMES, VALUES, max_size=2),
    max_size=3,
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": TEXTS | MESSAGES | VALUES,
        "answer": TEXTS | VALUES,
        "options": st.lists(TEXTS, max_size=4) | st.dictionaries(NAMES, TEXTS, max_size=3) | VALUES,
        "images": st.just(["a.png"]) | st.lists(TEXTS, max_size=2) | VALUES,
        "answer_type": st.sampled_from(["option", "text", None, 7]),
        "conversations": TURNS | VALUES,
        "messages": MESSAGES | VALUES,
        "message": TEXTS | VALUES,
        "reward_model": VALUES,
        "extra_info": VALUES,
        "system": VALUES,
        "response": VALUES,
        "videos": VALUES,
    },
)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    return folder


def rows_of(line, media, **options):
    return Rows(RawDataset(datasets.Dataset.from_dict({TEXT_COLUMN: [line]}), media), DataOptions(**options), NEEDS)


def assert_usable(row):
    """What training relies on in a row that is not bad."""
    last = row["prompt"][-1]
    assert last["role"] in ("user", "tool")
    blocks = [
        block for message in row["prompt"] if isinstance(message["content"], list) for block in message["content"]
    ]
    assert sum(block["type"] == "image" for block in blocks) == len(row["images"])
    assert all(image.mode == "RGB" for image in row["images"])
    golds = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    assert golds and all(isinstance(gold, str | int | float) and not isinstance(gold, bool) for gold in golds)
    for gold in golds if row.get("options") else ():
        texts = [option.strip().lower() for option in row["options"]]
        letter = str(gold).strip(" ().:").upper()
        assert letter in LETTERS[: len(texts)] or any(same(gold, text) for text in texts)


def same(gold, text):
    return re.sub(r"[\s$]", "", str(gold)).lower() == re.sub(r"[\s$]", "", text)


@settings(derandomize=True, max_examples=600)
@given(row=ROWS, row_format=st.sampled_from(["auto", "auto", *CONVERTERS]))
def test_fuzz_rows(media, row, row_format):
    rows = rows_of(json.dumps(row), media, dataset_format=row_format)
    try:
        loaded = rows.load(0)
    except BadRow as bad:
        assert bad.reason in MENDS and bad.detail and not NO_CAUSE.search(bad.detail), bad
    else:
        assert_usable(loaded)


@settings(derandomize=True, max_examples=300)
@given(prompt=MESSAGES, images=st.sampled_from([[], ["a.png"], ["a.png", "a.png"]]))
def test_fuzz_messages(media, prompt, images):
    try:
        loaded = rows_of(json.dumps({"prompt": prompt, "images": images, "answer": "7"}), media).load(0)
    except BadRow as bad:
        assert bad.reason in MENDS and not NO_CAUSE.search(bad.detail), bad
    else:
        assert_usable(loaded)


LINES = st.one_of(
    ROWS.map(json.dumps),
    TEXTS.map(lambda text: text.replace("\ud800", "?")),
    st.sampled_from(
        ['{"prompt": "q", "prompt": "r"}', '{"prompt": "q"', "[" * 2000, "1e999", "NaN", "[7]", '{"a": 1}}']
    ),
)


@settings(derandomize=True, max_examples=80)
@given(
    lines=st.lists(LINES, min_size=1, max_size=4), end=st.binary(max_size=6), suffix=st.sampled_from(["jsonl", "json"])
)
def test_fuzz_files_of_json(tmp_path_factory, lines, end, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"rows.{suffix}"
    path.write_bytes("\n".join(lines).encode() + end)
    try:
        rows = read_rows(DataOptions(dataset_name=str(path)), NEEDS)
    except UserError:
        return
    for number in range(len(rows.raw.dataset)):
        try:
            assert_usable(rows.load(number))
        except BadRow as bad:
            assert bad.reason in MENDS


@settings(derandomize=True, max_examples=60)
@given(golds=st.lists(st.lists(st.sampled_from(["7", "7.0", "8", "B", "red", "??", "x+1"]), max_size=2), max_size=5))
def test_fuzz_repeated_prompts(golds):
    """Of rows with one prompt, the first readable one stays and each other one has a reason."""
    keys = {number: RowKey(b"", tuple(row)) for number, row in enumerate(golds)}
    bad = bad_across_rows(keys)
    assert len(keys.keys() - bad.keys()) == bool(
        keys.keys() - {n for n, row in bad.items() if row.reason == "gold answer"}
    )
    assert all(set(keys[number].golds) == {"??"} for number, row in bad.items() if row.reason == "gold answer")
