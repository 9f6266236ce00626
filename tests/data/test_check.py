"""Checking a data set: bad rows are counted by reason, and the remaining rows are written."""

import json

import pytest
from PIL import Image

from rlfr_vlm.data.check import DataReport, check_rows
from rlfr_vlm.data.clean import write_clean
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import unreadable_golds
from rlfr_vlm.options import DataOptions

NEEDS = ("prompt", "answer")


@pytest.fixture
def broken(tmp_path):
    """Ten rows: three good ones, and seven that are bad for different reasons."""
    Image.new("RGB", (56, 28), "red").save(tmp_path / "a.png")
    Image.new("RGB", (56, 28), "blue").save(tmp_path / "b.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [
        {"prompt": "one", "images": ["a.png"], "answer": "7"},
        {"prompt": "one", "images": ["b.png"], "answer": ["x+1", "7"]},
        {"prompt": "text", "answer": "B"},
        {"prompt": "one", "images": ["a.png"], "answer": "8"},  # contradicts row 0
        {"prompt": "gone", "images": ["gone.png"], "answer": "7"},
        {"prompt": "bad", "images": ["bad.png"], "answer": "7"},
        {"prompt": "<image><image>two places", "images": ["a.png"], "answer": "7"},
        {"prompt": "no answer"},
        {"prompt": "gold", "answer": "???"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join([*map(json.dumps, rows), "{broken"]))
    return DataOptions(dataset_name=str(tmp_path / "rows.jsonl"))


REASONS = {
    "two answers": 1,
    "image missing": 1,
    "image unreadable": 1,
    "image places": 1,
    "no answer": 1,
    "gold answer": 1,
    "json": 1,
}


@pytest.mark.parametrize("workers", [1, 2])
def test_reasons_counts_and_examples(broken, workers, monkeypatch):
    monkeypatch.setattr("rlfr_vlm.data.check.CHUNK", 3)
    report = check_rows(broken, NEEDS, workers=workers, progress=False)
    assert (report.rows, report.kept, report.images) == (10, [0, 1, 2], 2)
    assert report.dropped == REASONS
    assert report.examples["image missing"][0].startswith("row 4: 'gone.png' does not exist")
    assert report.examples["gold answer"] == ["row 8: '???': unreadable gold"]
    assert report.dropped_share == pytest.approx(0.7)


def test_the_clean_data_set_has_no_bad_rows(broken, tmp_path):
    report = check_rows(broken, NEEDS, workers=1, progress=False)
    clean, settings = write_clean(broken, report, tmp_path / "out")
    assert settings == {"dataset_name": str(clean), "media_root": str(tmp_path)}
    options = DataOptions(**settings)
    again = check_rows(options, NEEDS, workers=1, progress=False)
    assert (again.rows, again.kept, sum(again.dropped.values())) == (3, [0, 1, 2], 0)
    assert load_rows(str(clean), columns=NEEDS, media_root=str(tmp_path))[1]["answer"] == ["x+1", "7"]


def test_embedded_images_stay_embedded(tmp_path):
    import datasets

    text = datasets.Value("string")
    features = datasets.Features({"prompt": text, "answer": text, "images": datasets.List(datasets.Image())})
    rows = [{"prompt": f"q{i}", "answer": "7", "images": [Image.new("RGB", (30, 30))]} for i in range(3)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    options = DataOptions(dataset_name=str(tmp_path / "rows.parquet"))
    report = check_rows(options, NEEDS, workers=1, progress=False)
    report.kept = [0, 2]
    clean, settings = write_clean(options, report, tmp_path)
    assert settings == {"dataset_name": str(clean)}
    assert [row["prompt"][0]["content"][1]["text"] for row in load_rows(str(clean))] == ["q0", "q2"]


def test_the_clean_data_set_keeps_columns_that_are_null_in_the_first_row_or_later(tmp_path):
    """Colours of `shapes` have options, goals of `grids` and times of `clocks` an answer_type."""
    for name, column in (("shapes", "options"), ("grids", "answer_type"), ("clocks", "answer_type")):
        options = DataOptions(dataset_name=name, dataset_limit=6)
        clean, _ = write_clean(options, check_rows(options, NEEDS, workers=1, progress=False), tmp_path / name)
        given, kept = ([row.get(column) for row in load_rows(source, limit=6)] for source in (name, str(clean)))
        assert given == kept and None in given and any(given)


def test_duplicates_of_dropped_rows_and_rows_with_other_responses_are_kept(tmp_path):
    rows = [
        {"prompt": "q", "answer": "???"},
        {"prompt": "q", "answer": "7", "response": "so 7"},
        {"prompt": "q", "answer": "???", "response": "thus 7"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = DataOptions(dataset_name=str(tmp_path / "rows.jsonl"))
    assert check_rows(options, NEEDS, workers=1, progress=False).kept == [1]
    expert = check_rows(options, ("prompt", "response"), workers=1, progress=False)
    assert expert.kept == [1, 2]  # golds are not checked if no answer is needed
    assert expert.dropped == {"no response": 1}


def test_invalid_settings_raise_an_error(broken):
    for changes, message in (
        ({"long_prompts": "dorp"}, "Did you mean 'drop'"),
        ({"max_prompt_tokens": 9}, "only counted"),
    ):
        with pytest.raises(UserError, match=message):
            check_rows(DataOptions(dataset_name=broken.dataset_name, **changes), NEEDS, progress=False)
    with pytest.raises(UserError, match="workers is -1"):
        check_rows(broken, NEEDS, workers=-1, progress=False)
    with pytest.raises(UserError, match="Cannot load the model"):
        check_rows(broken, NEEDS, "./nothing", workers=2, progress=False)


def test_token_histogram_and_limit(processor, tmp_path):
    processor.save_pretrained(tmp_path / "policy")
    from transformers import Qwen2_5_VLConfig

    Qwen2_5_VLConfig().save_pretrained(tmp_path / "policy")
    lines = [json.dumps({"prompt": "sum? " * count, "answer": "7"}) for count in (1, 30, 300)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = DataOptions(dataset_name=str(tmp_path / "rows.jsonl"))
    report = check_rows(options, NEEDS, str(tmp_path / "policy"), workers=1, progress=False)
    assert sum(report.tokens.values()) == 3 and len(report.tokens) >= 2
    options.max_prompt_tokens = report.longest - 1
    shorter = check_rows(options, NEEDS, str(tmp_path / "policy"), workers=1, progress=False)
    assert shorter.kept == [0, 1] and shorter.dropped == {"prompt too long": 1}


def test_unreadable_golds():
    golds = ["7", "1,000", r"\frac{1}{2}", "12 cm", "B", "no solution", "x^2+1", "(1,2)", r"\text{Evelyn}", "1 and 2"]
    bad = ["???", "", r"\frac{1}{", r"\begin{pmatrix} 1 & 2"]
    assert set(unreadable_golds(golds + bad)) == set(bad)


@pytest.mark.slow
def test_golds_of_the_suites_can_be_read(shared):
    golds = []
    for path in sorted((shared / "data" / "math_suites").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            answer = json.loads(line)["answer"]
            golds.append(str(answer[0] if isinstance(answer, list) else answer))
    assert len(unreadable_golds(golds)) <= 0.03 * len(golds)  # a few are sentences with formulas


def test_an_empty_report_is_not_usable():
    assert DataReport().dropped_share == 1.0
