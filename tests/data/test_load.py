"""Loading data sets by name, and errors in data sets."""

import json

import pytest
from PIL import Image

from rlfr_vlm.data.load import as_dataset, load_rows, read_rows
from rlfr_vlm.data.rows import BadRow
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


def test_a_column_may_have_several_types(tmp_path):
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


def test_trl_accepts_messages_with_image_blocks(tmp_path):
    from trl.data_utils import prepare_multimodal_messages

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    messages = [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "sum?"}]}]
    row = load_rows(write_rows(tmp_path / "rows.jsonl", [{"prompt": json.dumps(messages), "answer": "7"}]))[0]
    filled = prepare_multimodal_messages(row["prompt"], images=row["images"])
    assert filled[0]["content"][0]["image"].size == (40, 30)


def test_other_columns_are_kept(tmp_path):
    rows = load_rows(write_rows(tmp_path / "rows.jsonl", [{"prompt": "q", "difficulty": 3}, {"prompt": "r"}]))
    assert rows[0]["difficulty"] == 3 and rows[0:2]["difficulty"] == [3, None]


def test_csv_cells_stay_as_they_are_written(tmp_path):
    (tmp_path / "rows.csv").write_text(
        'prompt,answer,images\nq,007,"[""a.png""]"\nq,None,\nq,12345678901234567,\nq,,\n'
    )
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.csv")))
    raw = [rows.raw.row(stored) for stored in rows.raw.dataset]
    assert [row["answer"] for row in raw] == ["007", "None", "12345678901234567", None]
    assert raw[0]["images"] == ["a.png"] and raw[1]["images"] is None


def test_byte_order_marks_odd_names_and_broken_bytes(tmp_path):
    for name in ("v[2].jsonl", "bom.jsonl"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "a"}\n{"prompt": "\xff"}\n')
        assert load_rows(str(tmp_path / name))[0]["prompt"][0]["content"] == "a"
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + b'[{"prompt": "a"}]')
    assert len(load_rows(str(tmp_path / "bom.json"))) == 1
    (tmp_path / "object.json").write_text('{\n"data": []}')
    with pytest.raises(UserError, match="is one JSON object over many lines"):
        load_rows(str(tmp_path / "object.json"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="the file is empty"):
        load_rows(str(tmp_path / "empty.jsonl"))


def test_folders_with_several_files(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("data", "test", "latest"):
        write_rows(folder / f"{name}.jsonl", [{"prompt": name}])
    (folder / "dataset_infos.json").write_text("{}")
    assert sorted(row["prompt"][0]["content"] for row in load_rows(str(folder))) == ["data", "latest"]
    assert [row["prompt"][0]["content"] for row in load_rows(str(folder), split="test")] == ["test"]
    with pytest.raises(UserError, match="has no file for split 'dev'"):
        load_rows(str(folder), split="dev")


def test_a_broken_first_row_is_one_bad_row(tmp_path):
    name = write_rows(
        tmp_path / "rows.jsonl", [{"prompt": "q", "answer": None}, *[{"prompt": "q", "answer": "7"}] * 60]
    )
    assert load_rows(name, columns=("prompt", "answer"), bad_row_limit=0.5)[0]["answer"] == "7"
    with pytest.raises(UserError, match=r"maps answer to 'anwser', but .* has prompt, answer\. Did you mean 'answer'"):
        load_rows(name, dataset_columns=["answer=anwser"])


def test_a_replacement_is_one_of_the_kept_rows_and_marked(tmp_path):
    rows = many_rows(tmp_path, {1: "{broken"}, size=40, bad_row_limit=0.5)
    dataset = as_dataset(rows, keep=[1, 2, 3])
    row = dataset[0]
    assert row["answer"] in ("2", "3") and row["replaced_row"].startswith("row 1: json")
    assert "replaced_row" not in dataset[1]


@pytest.mark.parametrize(
    "row", [{"prompt": ["hello"]}, {"prompt": "\ud800"}, {"prompt": "<image> <|image_pad|>", "images": ["a.png"]}]
)
def test_rows_that_the_tokenizer_or_processor_cannot_handle_are_bad(tmp_path, row):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    rows = read_rows(DataOptions(dataset_name=write_rows(tmp_path / "rows.jsonl", [row])))
    with pytest.raises(BadRow):
        rows.parse(0)


def test_a_text_policy_takes_no_images(with_image):
    rows = read_rows(DataOptions(dataset_name=with_image))
    rows.for_text_policy = True
    with pytest.raises(BadRow, match="text-only"):
        rows.parse(0)


def many_rows(tmp_path, bad: dict[int, str], size: int = 100, **settings):
    """Return `size` rows in which the lines `bad` are replaced."""
    lines = [bad.get(i) or json.dumps({"prompt": f"q{i}", "answer": str(i)}) for i in range(size)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl"), **settings), ("prompt", "answer"))


def test_a_bad_row_always_has_the_same_replacement_and_is_counted(tmp_path):
    rows = many_rows(tmp_path, {60: "{broken", 61: '{"prompt": "q"}'}, bad_row_limit=0.05)
    dataset = as_dataset(rows)
    dataset[0:55]
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


def test_a_data_set_without_good_rows(tmp_path):
    rows = many_rows(tmp_path, dict.fromkeys(range(5), "{broken"), size=5, bad_row_limit=1.0)
    with pytest.raises(UserError, match="No row of the dataset can be used"):
        as_dataset(rows)[0]
