"""Mixtures of data sets: each source's images, options and bad rows, and mistakes."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from rlfr_vlm.data.across_rows import refused_in_training
from rlfr_vlm.data.draws import describe_mixture, draws_of
from rlfr_vlm.data.load import as_dataset, load_rows, read_rows
from rlfr_vlm.data.mixture import labels_of, refuse_unscored_sources
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions

NEEDED = ("prompt", "answer")


def write_rows(folder: Path, name: str, rows: list) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(folder / name)


def texts(folder: Path, name: str, count: int, **changes: object) -> str:
    """A file of text rows whose answers are their numbers, with the name in the prompt."""
    return write_rows(folder, name, [{"prompt": f"{name} {n}?", "answer": str(n), **changes} for n in range(count)])


@pytest.fixture
def colours(tmp_path) -> list[str]:
    """Two folders with an image of the same name and another colour."""
    names = []
    for colour in ("red", "blue"):
        folder = tmp_path / colour
        folder.mkdir()
        Image.new("RGB", (40, 30), colour).save(folder / "a.png")
        rows = [{"prompt": f"<image> {colour} {n}?", "images": ["a.png"], "answer": str(n)} for n in range(2)]
        names.append(write_rows(folder, f"{colour}.jsonl", rows))
    return names


def test_each_source_has_its_own_folder_of_images(colours):
    rows = load_rows(colours, columns=NEEDED)
    batch = rows.__getitems__([3, 0, 2, 0])
    assert [row["images"][0].getpixel((0, 0)) for row in batch] == [(0, 0, 255), (255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert [row["mixture_source"] for row in batch] == ["blue", "red", "blue", "red"]
    assert [(row["row_number"], row["answer"]) for row in batch] == [(3, "1"), (0, "0"), (2, "0"), (0, "0")]
    assert batch[1]["images"][0] is batch[3]["images"][0]  # decoded once


def test_text_and_image_rows_have_the_same_columns(colours, tmp_path):
    rows = load_rows([colours[0], texts(tmp_path, "text.jsonl", 2, difficulty=3)], columns=NEEDED)
    image, text = rows.__getitems__([0, 2])
    assert image.keys() == text.keys() and text["images"] == [] and text["difficulty"] == 3
    assert image["difficulty"] is None


def test_a_bad_row_is_replaced_within_its_source(tmp_path):
    """Row 1 of 3: the stride 104,729 is 2 modulo 3, so its replacement is row (1 + 2) modulo 3 = 0."""
    good = [{"prompt": f"b {n}?", "answer": str(10 + n)} for n in range(3)]
    name = write_rows(tmp_path, "b.jsonl", [good[0], "{broken", good[2]])
    dataset = load_rows([texts(tmp_path, "a.jsonl", 40), name], columns=NEEDED, bad_row_limit=0.5)
    row = dataset[41]
    assert (row["mixture_source"], row["row_number"], row["answer"]) == ("b", 40, "10")
    assert row["replaced_row"].startswith("row 1 of b: json")


def test_the_share_of_bad_rows_is_each_sources_own(tmp_path):
    """1 of 3 rows is above the limit of 0.05, although 1 of 43 is not."""
    good = {"prompt": "q", "answer": "1"}
    name = write_rows(tmp_path, "b.jsonl", [good, "{broken", good])
    dataset = load_rows([texts(tmp_path, "a.jsonl", 40), name], columns=NEEDED)
    with pytest.raises(UserError, match=r"1 of 3 rows of b read so far are bad \(json 1\)"):
        dataset.__getitems__([40, 42, 41])


def test_rows_that_contradict_those_of_another_source_are_refused(processor, tmp_path):
    other = write_rows(
        tmp_path, "b.jsonl", [{"prompt": "b 0?", "answer": "0"}, {"prompt": "a.jsonl 1?", "answer": "7"}]
    )
    rows = read_rows(DataOptions(dataset_name=[texts(tmp_path, "a.jsonl", 3), other]), NEEDED)
    rows.suit(processor)
    refused = refused_in_training(rows, processor, graded=True)
    assert list(refused) == [4] and "row 1 of a with the same prompt '1'" in str(refused[4])
    rows.refused = refused
    assert list(rows.parts[1].refused) == [1] and rows.place(4) == "row 1 of b"


def test_columns_hold_for_the_sources_that_have_them(tmp_path):
    german = write_rows(tmp_path, "a.jsonl", [{"frage": "q", "loesung": "7", "prompt": "not this"}])
    names, columns = [german, texts(tmp_path, "b.jsonl", 1), "digits"], ["prompt=frage", "answer=loesung"]
    rows = load_rows(names, columns=NEEDED, dataset_columns=columns, limit=1)
    assert [row["answer"] for row in rows][:2] == ["7", "0"] and rows[0]["prompt"][0]["content"] == "q"
    with pytest.raises(UserError, match=r"maps answer to 'lösung', and no source of .* has that column"):
        load_rows(names, dataset_columns=["answer=lösung"])
    with pytest.raises(UserError, match=r"a\.jsonl has no column 'answer'; it has frage, loesung, prompt\."):
        load_rows(names, columns=NEEDED)


def test_format_split_and_limit_hold_for_the_sources_that_have_them(tmp_path):
    verl = write_rows(tmp_path, "a.jsonl", [{"prompt": "q", "reward_model": {"ground_truth": "7"}}] * 3)
    rows = load_rows([verl, "digits"], columns=NEEDED, dataset_format="rlpr", split="test", limit=2)
    assert labels_of(rows) == ["a", "a", "digits", "digits"] and rows[0]["answer"] == "7"
    assert [row["answer"] for row in rows][2:] == [row["answer"] for row in load_rows("digits", split="test", limit=2)]


def test_mistakes_name_the_source(tmp_path):
    name = texts(tmp_path, "a.jsonl", 2)
    with pytest.raises(UserError, match=r"Cannot load dataset 'digit' .*Did you mean 'digits'\?"):
        load_rows([name, "digit"])
    with pytest.raises(UserError, match=r"^No dataset at .*/b\.jsonl\. Did you mean 'a\.jsonl'\?"):
        load_rows(["digits", f"{tmp_path}/b.jsonl"])
    with pytest.raises(UserError, match=r"^Dataset .*empty\.jsonl .*has no rows"):
        load_rows([name, write_rows(tmp_path, "empty.jsonl", ["", ""])])


def test_the_reward_of_tasks_scores_no_other_rows(tmp_path):
    entry = json.dumps({"task": "gcd"})
    tasks, plain = texts(tmp_path, "tasks.jsonl", 2, reasoning_gym=entry), texts(tmp_path, "plain.jsonl", 2)
    rows = read_rows(DataOptions(dataset_name=[tasks, plain]), NEEDED)
    with pytest.raises(
        UserError, match=r"^The reward reasoning_gym scores rows .* the source .*plain\.jsonl has none"
    ):
        refuse_unscored_sources(rows, ["reasoning_gym"])
    refuse_unscored_sources(rows, ["accuracy"])
    both = [tasks, texts(tmp_path, "more.jsonl", 2, reasoning_gym=entry)]
    refuse_unscored_sources(read_rows(DataOptions(dataset_name=both), NEEDED), ["reasoning_gym"])


def test_the_line_at_the_start(tmp_path):
    """6 prompts an epoch: 4.5 for 6 rows, and 1.5 for 2 rows."""
    a, b = texts(tmp_path, "a.jsonl", 6), texts(tmp_path, "b.jsonl", 2)
    line = describe_mixture(load_rows([f"{a}:0.75", f"{b}:0.25"]), 6)
    assert line == (
        f"mixture, 6 prompts an epoch: a ({a}) 6 rows, weight 0.75, share 75.0%, 0.75 passes an epoch; "
        f"b ({b}) 2 rows, weight 0.25, share 25.0%, 0.75 passes an epoch"
    )
    assert "weight by rows, share 25.0%, 1.00 passes" in describe_mixture(load_rows([a, b]), 8)
    assert describe_mixture(load_rows(a), 6) == ""


def test_places_of_a_part_of_the_data(tmp_path):
    names = [texts(tmp_path, "a.jsonl", 6), texts(tmp_path, "b.jsonl", 4)]
    rows = read_rows(DataOptions(dataset_name=names))
    dataset = as_dataset(rows, keep=[1, 4, 5, 7, 9])
    assert rows.indices == [1, 4, 5, 7, 9] and labels_of(dataset) == ["a"] * 3 + ["b"] * 2
    assert draws_of(dataset).members == [[0, 1, 2], [3, 4]]
    assert draws_of(dataset.select([4, 0])).members == [[1], [0]]
    assert draws_of(load_rows(names[0])) is None
    with pytest.raises(UserError, match=r"^The source .*b\.jsonl has no rows left"):
        draws_of(dataset.select([0, 1]))


def test_held_out_rows_have_the_shares_and_no_row_twice(processor, tmp_path):
    """8 rows, 0.75 and 0.25: 6 and 2; with 0.25 and 0.75, 2 and as many as there are, which is 4 of 6."""
    from rlfr_vlm.commands.train import held_out_rows
    from rlfr_vlm.options import ScriptArguments

    a, b = texts(tmp_path, "a.jsonl", 20), texts(tmp_path, "b.jsonl", 4)

    def counts(*weights: float) -> Counter:
        names = [f"{name}:{weight}" for name, weight in zip((a, b), weights, strict=True)]
        options = ScriptArguments(dataset_name="digits", eval_dataset_name=names, eval_rows=8)
        dataset = held_out_rows(options, SimpleNamespace(seed=0), processor)
        assert len({row["row_number"] for row in dataset}) == len(dataset)
        return Counter(labels_of(dataset))

    assert counts(0.75, 0.25) == {"a": 6, "b": 2}
    assert counts(0.25, 0.75) == {"a": 2, "b": 4}


def test_a_fit_holds_out_the_same_part_of_each_source(tmp_path):
    """A quarter of 12 and of 4 rows, the last ones: 3 and 1."""
    from rlfr_vlm.trainer.flow_fit_trainer import hold_out

    dataset = load_rows([texts(tmp_path, "a.jsonl", 12), texts(tmp_path, "b.jsonl", 4)])
    fitted, held_out = hold_out(dataset, SimpleNamespace(eval_rows=100, eval_fraction=0.25))
    assert sorted(row["row_number"] for row in held_out) == [9, 10, 11, 15]
    assert sorted(row["row_number"] for row in fitted) == [*range(9), 12, 13, 14]
    assert labels_of(fitted)[:8] == ["a", "a", "a", "b"] * 2  # latents are measured on the first rows


def test_held_out_sources_are_no_training_sources(processor, tmp_path):
    from rlfr_vlm.commands.train import held_out_rows
    from rlfr_vlm.options import ScriptArguments

    name = texts(tmp_path, "a.jsonl", 4)
    for training, held_out in ((["digits", name], None), (name, ["digits", name]), (["digits", name], name)):
        options = ScriptArguments(dataset_name=training, eval_dataset_name=held_out, eval_dataset_split="test")
        if held_out == name:
            options.eval_dataset_split = "train"
        with pytest.raises(UserError, match=rf"^The held-out rows of {name} \(split train\) are training rows"):
            held_out_rows(options, SimpleNamespace(seed=0), processor)


def test_check_data_reads_all_sources_and_writes_one_clean_set(colours, tmp_path, capsys):
    from rlfr_vlm.cli import main

    bad = write_rows(tmp_path / "red", "c.jsonl", ["{broken", {"prompt": "red 0?", "answer": "8"}])
    arguments = ["--dataset_name", *colours, bad, "--out", str(tmp_path / "out"), "--max_dropped", "0.3"]
    assert main(["check-data", *arguments, "--workers", "1"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["dataset"], report["rows"], report["kept"]) == ([*colours, bad], 6, 5)
    assert report["examples"]["json"][0].startswith("row 0 of c: ")
    clean = load_rows(report["clean"]["dataset_name"], media_root=report["clean"]["media_root"])
    colour_of = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    for row in clean:
        for image in row["images"]:
            assert image.getpixel((0, 0)) == colour_of[row["mixture_source"]]
    assert [len(row["images"]) for row in clean] == [1, 1, 1, 1, 0]
