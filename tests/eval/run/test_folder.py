"""Files that survive being killed, and a run folder that never mixes configurations."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_eval.run.folder import RunStore, differences
from rlfr_eval.run.lines import TAIL, Lines
from rlfr_eval.schema import Sample
from rlfr_vlm.errors import UserError
from rlfr_vlm.provenance import short_hash

MODEL = {"name": "m"}
CONFIG = {"prompt": {"name": "chat"}, "sampling": {"temperature": 0.0}}
ABOUT = {"specs": {"b": {}}, "limits": {"b": None}}


def row(sample_id, store=None, raw=""):
    config = store.config_of("b") if store else "x"
    _, problem, number = sample_id.split("/")
    return Sample(
        sample_id, "b", problem, int(number), config, raw, "d", None, "none", "stop", 1, 1, 0.1, 1, "m", 0, 0.0
    ).write()


def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id": 2}\n{"id": 3, "te')
    with Lines(path) as lines:
        assert lines.repaired
        lines.append({"id": 4}, {"id": 5})
        assert [line["id"] for line in lines] == [1, 2, 4, 5]
    with Lines(path) as lines:
        assert not lines.repaired


@pytest.mark.parametrize("kept", [b"", b'{"id": 1}\n'])
def test_a_torn_line_longer_than_a_block(tmp_path, kept):
    path = tmp_path / "a.jsonl"
    path.write_bytes(kept + b"x" * (2 * TAIL + 7))
    with Lines(path) as lines:
        assert lines.repaired
    assert path.read_bytes() == kept


def test_damage_in_the_middle_is_passed_over_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\nnoise\n[3]\n{"id": 2}\n')
    with Lines(path) as lines:
        assert [line["id"] for line in lines] == [1, 2]
        assert lines.damaged == 2


def test_line_ends_inside_of_texts_and_odd_characters_stay_one_line(tmp_path):
    text = "a\nb\u2028c\ud800\x00"
    with Lines(tmp_path / "a.jsonl") as lines:
        lines.append({"raw": text})
        assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 1
        assert [line["raw"] for line in lines] == [text]


def test_answers_of_another_configuration_do_not_count_and_the_first_answer_stands(tmp_path):
    with RunStore(tmp_path) as store:
        store.begin(MODEL, {"b": CONFIG}, ABOUT)
        store.samples.append(row("b/1/0", store, raw="first"), row("b/1/0", store, raw="second"), row("b/2/0"))
        assert [answer.raw for answer in store.answers()] == ["first"]


def test_mixing_is_refused_with_what_differs(tmp_path):
    with RunStore(tmp_path) as store:
        store.begin(MODEL, {"b": CONFIG}, ABOUT)
    with RunStore(tmp_path) as store:
        store.begin(MODEL, {"b": CONFIG}, ABOUT)  # the same again is a resume
        store.begin(MODEL, {"c": CONFIG}, {"specs": {"c": {}}, "limits": {"c": 1}})  # another benchmark joins
        assert set(store.run["benchmarks"]) == set(store.run["specs"]) == {"b", "c"}
        other = {**CONFIG, "sampling": {"temperature": 1.0}}
        with pytest.raises(UserError, match=r"b\.sampling\.temperature: 0\.0 -> 1\.0.*never mixed"):
            store.begin(MODEL, {"b": other}, ABOUT)
        with pytest.raises(UserError, match=r"model\.name: 'm' -> 'n'"):
            store.begin({"name": "n"}, {"b": CONFIG}, ABOUT)


def test_one_writer_at_a_time(tmp_path):
    with RunStore(tmp_path), pytest.raises(UserError, match="Another rlfr-eval is writing"):
        RunStore(tmp_path)
    RunStore(tmp_path).close()


def test_what_is_no_run_folder_says_so(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        RunStore(tmp_path, read_only=True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="is broken"):
        RunStore(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="has format 99"):
        RunStore(tmp_path)


def test_digest_and_differences():
    assert short_hash({"a": 1, "b": 2}) == short_hash({"b": 2, "a": 1}) != short_hash({"a": 1, "b": 3})
    assert differences({"a": {"b": [1]}}, {"a": {"b": [2]}, "c": 0}) == ["a.b: [1] -> [2]", "c: None -> 0"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
RULES = {"id": "b/1/0", "by": "rules", "answer": "d", "grading": "g", "verdict": "right", "reason": ""}
JUDGED = {"id": "b/1/0", "by": "judge", "answer": "d", "judge": "j", "verdict": "wrong", "reason": ""}


def changed(line):
    changes = st.dictionaries(st.sampled_from(sorted(line)), VALUES, max_size=2)
    return changes.map(lambda values: json.dumps({**line, **values}).encode())


def garbled(line):
    """Lines of a kind: whole, with other values, cut short, and lines that are none."""
    text = json.dumps(line).encode()
    cut = st.integers(0, len(text)).map(lambda end: text[:end])
    return st.lists(st.one_of(st.just(text), changed(line), cut, st.binary(max_size=8)), max_size=4).map(b"\n".join)


@settings(derandomize=True, max_examples=200)
@given(
    samples=garbled(row("b/1/0")),
    verdicts=garbled(RULES) | garbled(JUDGED),
    failures=garbled({"id": "x", "kind": "y"}),
)
def test_fuzz_lines(tmp_path_factory, samples, verdicts, failures):
    """Torn and garbled lines are passed over: what is read has the types that the harness counts on."""
    folder = tmp_path_factory.mktemp("fuzz")
    with RunStore(folder) as store:
        store.begin(MODEL, {"b": CONFIG}, ABOUT)
        config = store.config_of("b")
    for name, lines in (("samples", samples), ("verdicts", verdicts), ("failures", failures)):
        (folder / f"{name}.jsonl").write_bytes(lines.replace(b'"config": "x"', f'"config": "{config}"'.encode()))
    with RunStore(folder, read_only=True) as store:
        answers, found, failed = list(store.answers()), list(store.all_verdicts()), list(store.failed_requests())
    assert len({sample.id for sample in answers}) == len(answers)
    assert all(isinstance(sample.raw, str) and sample.config == config for sample in answers)
    assert all(verdict.verdict.value in ("right", "wrong", "undecided") for verdict in found)
    assert len(failed) <= failures.count(b"\n") + 1


@settings(derandomize=True, max_examples=150)
@given(
    text=st.dictionaries(
        st.sampled_from(["format", "kind", "model", "benchmarks", "specs", "limits", "judges", "sessions"]),
        st.just({}) | st.just(1) | VALUES,
    ).map(json.dumps).map(str.encode)
    | st.binary(max_size=8)
)  # fmt: skip
def test_fuzz_records(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "run.json").write_bytes(text)
    try:
        with RunStore(folder, read_only=True) as store:
            assert store.run["format"] == 1 and isinstance(store.run["model"], dict) and list(store.answers()) == []
    except UserError as error:
        assert "run.json" in str(error)


def test_deeply_nested_json_is_a_damaged_line_and_a_broken_record(tmp_path):
    with RunStore(tmp_path) as store:
        store.begin(MODEL, {"b": CONFIG}, ABOUT)
    (tmp_path / "failures.jsonl").write_text(
        "[" * 100_000 + '\n{"id": null, "kind": "x"}\n{"id": "b/p/0", "kind": "x"}\n'
    )
    with RunStore(tmp_path, read_only=True) as store:
        assert [failure.id for failure in store.failed_requests()] == ["b/p/0"] and store.failures.damaged == 2
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"run\.json is broken"):
        RunStore(tmp_path, read_only=True)
