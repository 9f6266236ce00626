"""Weights through a folder: what is written is read, and a worker says why it cannot."""

import json

import pytest
import torch

from rlfr_vlm.trainer.vllm import weight_folder, worker_extension
from rlfr_vlm.trainer.vllm.weight_folder import read_weights, write_weights
from rlfr_vlm.trainer.vllm.worker_extension import LoadsPolicy

WEIGHTS = [
    ("b.weight", torch.arange(6.0).reshape(2, 3).T),  # not contiguous
    ("a.weight", torch.tensor([1.5, -2.0])),
    ("count", torch.tensor([3, 4])),
]


def test_what_is_written_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_folder, "FILE_BYTES", 24)  # b fills a file, the others share one
    assert write_weights(tmp_path / "w", iter(WEIGHTS)) == 3
    read = dict(read_weights(tmp_path / "w"))
    assert read.keys() == {"a.weight", "b.weight", "count"}
    assert all(torch.equal(read[name], weight) for name, weight in WEIGHTS)
    assert len(list((tmp_path / "w").glob("*.safetensors"))) == 2


def test_weights_get_the_servers_type_but_numbers_that_count_do_not(tmp_path):
    write_weights(tmp_path / "w", iter(WEIGHTS), torch.bfloat16)
    assert {name: weight.dtype for name, weight in read_weights(tmp_path / "w")} == {
        "b.weight": torch.bfloat16, "a.weight": torch.bfloat16, "count": torch.int64}  # fmt: skip


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    write_weights(tmp_path / "w", iter(WEIGHTS))

    def breaks():
        yield "a.weight", torch.zeros(2)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_weights(tmp_path / "w", breaks())
    assert len(dict(read_weights(tmp_path / "w"))) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert write_weights(tmp_path / "w", iter(WEIGHTS[:1])) == 1
    assert len(dict(read_weights(tmp_path / "w"))) == 1


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    write_weights(tmp_path / "w", iter(WEIGHTS))
    (tmp_path / "w" / weight_folder.COUNT).write_text(json.dumps({"weights": 5}))
    with pytest.raises(ValueError, match="has 3 weights, and 5 were written"):
        list(read_weights(tmp_path / "w"))


def test_a_worker_loads_a_folder_or_says_why_not(tmp_path, monkeypatch):
    loaded = {}
    monkeypatch.setattr(worker_extension, "reload_weights", lambda runner, weights: loaded.update(weights))
    worker = LoadsPolicy()
    worker.model_runner = None
    assert worker.load_policy(str(tmp_path / "w")) == {"error": f"the server sees no weights in {tmp_path / 'w'}"}
    write_weights(tmp_path / "w", iter(WEIGHTS))
    assert worker.load_policy(str(tmp_path / "w")) == {"error": ""}
    assert torch.equal(loaded["a.weight"], WEIGHTS[1][1])
    (tmp_path / "w" / weight_folder.COUNT).write_text(json.dumps({"weights": 5}))
    assert "ValueError" in worker.load_policy(str(tmp_path / "w"))["error"]
