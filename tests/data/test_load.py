"""Data sets by name, and everything that can be wrong with them."""

import json

import pytest
from PIL import Image

from rlfr_vlm.data.load import load_rows, open_image
from rlfr_vlm.errors import UserError


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
    rows.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "folder").mkdir()
    rows.to_json(str(tmp_path / "folder" / "train.jsonl"))
    for name in ("rows.parquet", "rows.csv", "saved", "folder"):
        loaded = load_rows(str(tmp_path / name), columns=("prompt", "answer"))
        assert str(loaded[0]["answer"]) == "7", name


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


def test_embedded_images_stay_encoded_until_read(tmp_path):
    import datasets

    features = datasets.Features({"prompt": datasets.Value("string"), "images": datasets.List(datasets.Image())})
    rows = [{"prompt": "q", "images": [Image.new("RGB", (30, 30))]}]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    loaded = load_rows(str(tmp_path / "rows.parquet"))
    assert loaded.features["images"].feature.decode is False
    assert loaded[0]["images"][0].size == (30, 30)


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
    (tmp_path / "broken.jsonl").write_text('{"prompt": ')
    with pytest.raises(UserError, match="Cannot load dataset"):
        load_rows(str(tmp_path / "broken.jsonl"))


def test_missing_image_names_row_and_path(tmp_path):
    name = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "images": ["gone.png"], "answer": "7"}])
    with pytest.raises(UserError, match=r"Row 0 names the image 'gone\.png', which does not exist"):
        load_rows(name)


def test_image_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "secret.png")
    name = write_rows(tmp_path / "data" / "rows.jsonl", [{"prompt": "q", "images": ["../secret.png"], "answer": "7"}])
    with pytest.raises(UserError, match="leads outside"):
        load_rows(name)


def test_unreadable_image_names_the_file(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    name = write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "images": ["bad.png"], "answer": "7"}])
    with pytest.raises(UserError, match=r"Cannot read the image bad\.png"):
        load_rows(name)[0]
    with pytest.raises(UserError, match="Cannot read the image <bytes>"):
        open_image(b"no")
