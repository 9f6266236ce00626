"""`rlfr check-data`, `rlfr check-overlap` and `rlfr preview`."""

import json

import pytest
from PIL import Image

from rlfr_vlm.cli import main


@pytest.fixture
def data(tmp_path):
    Image.new("RGB", (56, 28), "red").save(tmp_path / "a.png")
    rows = [{"prompt": f"<image> sum {i}? <script>", "images": ["a.png"], "answer": str(i)} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "rows.jsonl"


@pytest.fixture
def policy(processor, tmp_path):
    from transformers import Qwen2_5_VLConfig

    processor.save_pretrained(tmp_path / "policy")
    Qwen2_5_VLConfig().save_pretrained(tmp_path / "policy")
    return str(tmp_path / "policy")


def test_a_good_set_is_usable(data, policy, tmp_path, capsys):
    arguments = ["--dataset_name", str(data), "--model_name_or_path", policy, "--out", str(tmp_path / "out")]
    assert main(["check-data", *arguments, "--workers", "1"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["rows"], report["kept"], report["usable"]) == (30, 30, True)
    assert report["clean"] == {"dataset_name": str(tmp_path / "out" / "clean.jsonl"), "media_root": str(tmp_path)}
    out = capsys.readouterr().out
    assert "30 rows: 30 kept, 0 dropped; 30 images" in out and "prompt tokens (longest" in out
    assert len((tmp_path / "out" / "clean.jsonl").read_text().splitlines()) == 30


def test_a_bad_set_is_not(data, tmp_path, capsys):
    data.write_text(data.read_text() + "\n" + '{"prompt": "\\u001b[31mq", "answer": "???"}\n' * 5)
    arguments = ["--dataset_name", str(data), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(["check-data", *arguments]) == 1
    captured = capsys.readouterr()
    assert "5  gold answer" in captured.out and "\x1b" not in captured.out and "not usable: 14.3%" in captured.out
    assert main(["check-data", *arguments, "--max_dropped", "0.2"]) == 0
    assert main(["check-data", "--dataset_name", "nowhere.jsonl"]) == 2


def test_a_training_configuration_serves(data, tmp_path, capsys):
    (tmp_path / "train.yaml").write_text(f"dataset_name: {data}\nlearning_rate: 1e-4\nflow_coef: 0.1\n")
    arguments = ["--config", str(tmp_path / "train.yaml"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(["check-data", *arguments]) == 0
    (tmp_path / "train.yaml").write_text("dataset_nam: x\n")
    assert main(["check-data", *arguments]) == 2
    assert "Unknown key 'dataset_nam'" in capsys.readouterr().err


def test_preview(data, policy, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["--dataset_name", str(data), "--model_name_or_path", policy, "--rows", "2", "--html", str(page)]
    assert main(["preview", *arguments]) == 0
    out = capsys.readouterr().out
    prompt = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|> sum 1? <script><|im_end|>"
    assert prompt in out and "images: 56 x 28; answer: '1'" in out and "row 2:" not in out
    text = page.read_text()
    assert text.count("<img ") == 2 and "&lt;script&gt;" in text and "<script" not in text
    assert "default-src 'none'" in text


def test_preview_counts_as_the_processor_does(data, policy, processor, capsys):
    assert main(["preview", "--dataset_name", str(data), "--model_name_or_path", policy, "--rows", "1"]) == 0
    question = "<|vision_start|><|image_pad|><|vision_end|> sum 0? <script>"
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    expected = processor(text=[text], images=[Image.new("RGB", (56, 28))])["input_ids"]
    assert f"row 0: {len(expected[0])} tokens" in capsys.readouterr().out


def test_preview_shows_a_bad_row_and_goes_on(data, policy, capsys):
    data.write_text('{"prompt": "q", "images": ["gone.png"]}\n{"prompt": "\\u001b[31mred"}\n')
    assert main(["preview", "--dataset_name", str(data), "--model_name_or_path", policy]) == 0
    out = capsys.readouterr().out
    assert "row 0: bad, image missing" in out and "\\x1b[31mred" in out and "\x1b[31m" not in out
    assert main(["preview", "--dataset_name", str(data)]) == 2


def test_overlap(data, tmp_path, capsys):
    data.write_text("\n".join(json.dumps({"prompt": f"sum {i}? <script>"}) for i in range(30)))
    (tmp_path / "bench.jsonl").write_text('{"problem": "sum 7? script", "answer": "1"}\n{"problem": "other"}')
    out = tmp_path / "overlap.json"
    arguments = ["check-overlap", str(data), "--against", str(tmp_path / "bench.jsonl")]
    assert main([*arguments, "--out", str(out)]) == 1  # a gate can use it
    assert "bench.jsonl: 1 of 2 rows overlap with 1 training rows (0 by image, 1 by text)" in capsys.readouterr().out
    (result,) = json.loads(out.read_text()).values()
    assert result["pairs"] == [{"train": 7, "benchmark": 0, "kind": "text", "value": 1.0}]
    assert main(["check-overlap", str(data)]) == 2
    assert main([*arguments, "--fail-above", "0.5"]) == 0  # half of the benchmark's rows is not above a half
    capsys.readouterr()
    assert main([*arguments, "--fail-above", "0.49"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"more rows of {tmp_path / 'bench.jsonl'} overlap than --fail-above 0.49 allows: exit code 1"
    assert main([*arguments, "--fail-above", "2"]) == 2
    (tmp_path / "bench.jsonl").write_text('{"problem": "other"}')
    assert main(arguments) == 0


def test_overlap_of_sets_that_cannot_be_read_is_not_none(data, tmp_path, capsys):
    """Finding no overlap would pass a gate, although nothing was compared."""
    (tmp_path / "bench.jsonl").write_text('{"problem": "<image> other", "images": ["gone.png"]}\n' * 2)
    assert main(["check-overlap", str(data), "--against", str(tmp_path / "bench.jsonl")]) == 2
    assert "No row of" in (message := capsys.readouterr().err) and "bench.jsonl can be opened" in message


def test_preview_and_check_data_show_videos(policy, tmp_path, capsys):
    """A strip of the six frames, their number and rate; check-data opens them and counts their tokens."""
    page = tmp_path / "page.html"
    arguments = ["--dataset_name", "digits_video", "--dataset_limit", "2", "--model_name_or_path", policy]
    assert main(["preview", *arguments, "--rows", "1", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "video: 6 frames of 28 x 28, 2 fps" in out and "<|vision_start|><|video_pad|><|vision_end|>" in out
    assert page.read_text().count("<img ") == 1
    assert main(["check-data", *arguments]) == 0
    assert "2 rows" in capsys.readouterr().out
