"""Data sets by name, and everything that can be wrong with them."""

import json

import pytest
from PIL import Image

from rlfr_vlm.data.load import as_dataset, load_rows, read_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions


def write_rows(path, rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


@pytest.fixture
def with_image(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images" / "a.png")
    rows = [{"prompt": "<image> what?", "images": ["images/a.png"], "answer": "7"}] * 3
    return write_rows(tmp_path / "rows.jsonl", rows)


def test_digits_by_name_is_deterministic():
    first, again = load_rows("digits", limit=5), load_rows("digits", limit=5)
    assert len(first) == 5
    assert [row["answer"] for row in first] == [row["answer"] for row in again]
    assert first[0]["images"][0].size == (56, 28)
    assert first[0]["prompt"][0]["content"][0] == {"type": "image"}


def test_file_with_relative_images_and_system_prompt(with_image):
    rows = load_rows(with_image, columns=("prompt", "answer"), system_prompt="be brief", limit=2)
    assert len(rows) == 2
    assert rows[0]["images"][0].size == (40, 30)
    assert [m["role"] for m in rows[0]["prompt"]] == ["system", "user"]


def test_repeated_rows_share_one_decoded_image(with_image):
    batch = load_rows(with_image).__getitems__([0, 0, 1])
    assert batch[0]["images"][0] is batch[1]["images"][0]


def test_formats_agree(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([{"prompt": "q", "answer": "7"}])
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    rows.to_csv(str(tmp_path / "rows.csv"))
    rows.to_csv(str(tmp_path / "rows.tsv"), sep="\t")
    rows.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "list.json").write_text(json.dumps([{"prompt": "q", "answer": 7}]))
    (tmp_path / "folder").mkdir()
    rows.to_json(str(tmp_path / "folder" / "train.jsonl"))
    (tmp_path / "arrows").mkdir()
    next((tmp_path / "saved").glob("*.arrow")).rename(tmp_path / "arrows" / "data.arrow")
    for name in ("rows.parquet", "rows.csv", "rows.tsv", "list.json", "folder", "arrows", "arrows/data.arrow"):
        loaded = load_rows(str(tmp_path / name), columns=("prompt", "answer"))
        assert len(loaded) == 1 and str(loaded[0]["answer"]) == "7", name


def test_splits(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([{"prompt": "q", "answer": "7"}])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "saved"))
    assert len(load_rows(str(tmp_path / "saved"), split="test")) == 1
    with pytest.raises(UserError, match=r"no split 'tst'; it has train, test\. Did you mean 'test'\?"):
        load_rows(str(tmp_path / "saved"), split="tst")
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    with pytest.raises(UserError, match="is one file and has no split 'test'"):
        load_rows(str(tmp_path / "rows.parquet"), split="test")
    with pytest.raises(UserError, match="digits has no split 'validation'"):
        load_rows("digits", split="validation")


def test_a_column_of_two_types_costs_nothing(tmp_path):
    name = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "answer": a} for a in ("7", 8, ["9", "10"], 0.5)])
    assert [row["answer"] for row in load_rows(name, columns=("prompt", "answer"))] == ["7", 8, ["9", "10"], 0.5]


def test_a_column_under_another_name(tmp_path):
    name = write_rows(tmp_path / "rows.jsonl", [{"frage": "q", "loesung": "7", "problem": "other"}])
    loaded = load_rows(name, columns=("prompt", "answer"), dataset_columns=["prompt=frage", "answer=loesung"])
    assert loaded[0]["prompt"] == [{"role": "user", "content": "q"}] and loaded[0]["answer"] == "7"
    with pytest.raises(UserError, match=r"dataset_columns names 'promt'.*Did you mean 'prompt'"):
        load_rows(name, dataset_columns=["promt=frage"])
    with pytest.raises(UserError, match="write pairs such as prompt=question"):
        load_rows(name, dataset_columns=["prompt"])


def test_embedded_images_stay_encoded_until_read(tmp_path):
    import datasets

    features = datasets.Features({"prompt": datasets.Value("string"), "images": datasets.List(datasets.Image())})
    rows = [{"prompt": "q", "images": [Image.new("RGB", (30, 30))]}]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.parquet")))
    assert isinstance(rows.raw.dataset[0]["images"][0]["bytes"], bytes)
    assert as_dataset(rows)[0]["images"][0].size == (30, 30)


def test_missing_column_names_the_nearest(tmp_path):
    name = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "anwser": "7"}])
    with pytest.raises(UserError, match=r"no column 'answer'; it has prompt, anwser\. Did you mean 'anwser'\?"):
        load_rows(name, columns=("prompt", "answer"))


@pytest.mark.parametrize("name", ["./nothing.jsonl", "/nothing/here", "nothing.parquet", "no-such-org/no-such-set"])
def test_no_such_dataset(name):
    with pytest.raises(UserError, match=r"(No dataset at|Cannot load dataset)"):
        load_rows(name)


def test_empty_and_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*\.xlsx suffix"):
        (tmp_path / "rows.xlsx").write_text("x")
        load_rows(str(tmp_path / "rows.xlsx"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no rows"):
        load_rows(str(tmp_path / "empty.jsonl"))
    (tmp_path / "broken.json").write_text('[{"prompt": ')
    with pytest.raises(UserError, match="Cannot load dataset"):
        load_rows(str(tmp_path / "broken.json"))


def many_rows(tmp_path, bad: dict[int, str], size: int = 100, **settings):
    """`size` rows of which some are broken lines; gives the dataset."""
    lines = [bad.get(i) or json.dumps({"prompt": f"q{i}", "answer": str(i)}) for i in range(size)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl"), **settings), ("prompt", "answer"))


def test_a_bad_row_is_replaced_always_by_the_same_one_and_counted(tmp_path):
    rows = many_rows(tmp_path, {60: "{broken", 61: '{"prompt": "q"}'})
    dataset = as_dataset(rows)
    dataset[0:50]
    replaced = [dataset[60]["answer"] for _ in range(3)]
    assert len(set(replaced)) == 1 and replaced[0] not in ("60", None)
    assert dataset.__getitems__([60, 60, 59])[0] == dataset.__getitems__([59, 60, 60])[1]
    assert rows.bad_rows.reasons == {"json": 1} and rows.bad_rows.bad == {60}


def test_too_many_bad_rows_stop_the_run(tmp_path):
    rows = many_rows(tmp_path, dict.fromkeys(range(0, 100, 4), "{broken"), bad_row_limit=0.1)
    with pytest.raises(
        UserError, match=r"of \d+ rows read so far are bad \(json \d+\), more than bad_row_limit 0\.1.*che"
    ):
        as_dataset(rows)[0:100]


def test_a_set_of_bad_rows_alone(tmp_path):
    rows = many_rows(tmp_path, dict.fromkeys(range(5), "{broken"), size=5)
    with pytest.raises(UserError, match="No row of the dataset can be used"):
        as_dataset(rows)[0]
