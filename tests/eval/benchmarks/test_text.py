"""Benchmark files, suites, prompt presets, problems and their lock."""

import json
import re
import urllib.error
import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_eval.benchmarks.lockfile import LOCK_FILE
from rlfr_eval.benchmarks.text import Benchmark, build, load_benchmark, resolve, shipped, suites, with_overrides
from rlfr_eval.benchmarks.text_fetch import fetch
from rlfr_eval.benchmarks.text_presets import BOX, PRESETS, preset
from rlfr_eval.benchmarks.text_problems import Problem, content_hash, read_problems
from rlfr_vlm.errors import UserError

MATH = ["aime24", "aime25", "amc23", "math500", "minerva_math", "olympiadbench"]
RLPR = ["mmlu_pro_1000", "gpqa_diamond", "theoremqa", "webinstruct_val", "math500", "minerva_math", "aime24"]


def test_suites_hold_what_the_papers_measured():
    assert [one.name for one in resolve(["math"])] == MATH
    assert all((one.sampling.temperature, one.sampling.samples, one.sampling.max_tokens) == (0, 1, 8192)
               for one in resolve(["math"]))  # fmt: skip
    rlpr = {one.name: one for one in resolve(["rlpr"])}
    assert list(rlpr) == RLPR
    assert {name: one.sampling.samples for name, one in rlpr.items()} == {
        "mmlu_pro_1000": 2, "gpqa_diamond": 4, "theoremqa": 2, "webinstruct_val": 2, "math500": 2, "minerva_math": 2,
        "aime24": 16,
    }  # fmt: skip
    assert all((one.sampling.temperature, one.sampling.max_tokens) == (1.0, 3072) for one in rlpr.values())
    assert rlpr["mmlu_pro_1000"].judge == rlpr["gpqa_diamond"].judge == "never"


def test_published_values_are_those_of_the_papers():
    found = {(name, r.model, r.method): r.value for name, one in shipped().items() for r in one.reference}
    assert found["math500", "Qwen2.5-Math-7B", "RLFR"] == 80.6
    assert found["aime24", "Qwen2.5-Math-1.5B", "RLVR"] == 16.7
    assert found["amc23", "Llama-3.1-8B", "RLFR"] == 12.0
    assert found["theoremqa", "Qwen2.5-7B", "RLPR"] == 55.4
    assert all(r.source.startswith("arXiv ") for one in shipped().values() for r in one.reference)


@pytest.mark.parametrize("name", MATH)
def test_the_six_suites_are_the_copies_their_files_were_made_with(shared, name):
    benchmark = shipped()[name]
    data = read_problems(benchmark, shared / "data" / "math_suites")
    assert len(data.problems) == benchmark.n and data.sha256 == benchmark.content_sha256
    assert all(problem.golds for problem in data.problems)


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UserError, match=r"Unknown benchmark 'math50'\. Did you mean 'math500'"):
        resolve(["math50"])
    with pytest.raises(UserError, match="asked for with two settings"):
        resolve(["math", "rlpr"])
    assert [one.name for one in resolve(["aime24", "aime24"])] == ["aime24"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("judgee = 'never'", "unknown key 'judgee'. Did you mean 'judge'"),
        ("judge = 'always'", "judge is 'always'; it is 'never' or 'undecided'"),
        ("tolerance = 'x'", "tolerance is 'x', a str; it must be a float"),
        ("prompt2 = 1", "unknown key"),
        ("answer_type = 'letter'", "answer_type is 'letter'; it is '' or 'option' or 'text'"),
        ("tolerance = nan", "tolerance is nan; it is relative"),
        ("reference = 5", "reference is 5"),
        ("[[reference]]\nmodel = 1", "model is 1, a int; it must be a str"),
    ],
)
def test_broken_files_say_what_is_wrong(toy, more, message):
    with pytest.raises(UserError, match=message):
        resolve([toy(more=more)])


def test_incomplete_and_missing_files(alone):
    with pytest.raises(UserError, match="is incomplete: missing 3 required"):
        build(Benchmark, {"name": "x"}, "x.toml")
    (alone / "x.toml").write_text("answer_type = 'text'\n")
    (benchmark,) = resolve([str(alone / "x.toml")])
    assert (benchmark.name, benchmark.title, benchmark.licence, benchmark.n) == ("x", "x", "your own", 0)
    with pytest.raises(UserError, match=r"x\.jsonl is missing\. Set `path` in the benchmark's TOML file, or name"):
        read_problems(benchmark, alone)
    with pytest.raises(UserError, match="Cannot read"):
        load_benchmark(alone / "nothing.toml")


def test_sampling_that_makes_no_sense():
    benchmark = shipped()["aime24"]
    with pytest.raises(UserError, match="would all be the same answer"):
        with_overrides(benchmark, samples=4)
    with pytest.raises(UserError, match=r"4 samples at top_k 1 would all be the same answer\. Set --top-k -1"):
        with_overrides(benchmark, samples=4, temperature=1.0, top_k=1)
    with pytest.raises(UserError, match="temperature -1"):
        with_overrides(benchmark, temperature=-1.0)
    assert with_overrides(benchmark, samples=4, temperature=1.0).sampling.samples == 4


def test_presets_put_the_question_where_it_belongs():
    assert preset("qwen-box").body("1+1?") == {
        "prompt": f"<|im_start|>system\n{BOX}<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n",
        "stop": ["<|im_end|>", "<|endoftext|>"],
    }
    assert preset("none").body("1+1?") == {"prompt": "1+1?", "stop": []}
    assert preset("chat").body("{x} \\boxed{1}") == {
        "messages": [{"role": "system", "content": BOX}, {"role": "user", "content": "{x} \\boxed{1}"}]
    }
    assert "<think>" in preset("r1").body("q")["messages"][0]["content"]
    assert preset("r1-nothink").body("q")["messages"] == [
        {
            "role": "user",
            "content": "q\nPlease reason step by step, and put your final answer within <answer> </answer>.",
        }
    ]


def test_hashes_of_presets_pin_their_text():
    # a changed text needs a new version, and then a new line here
    assert {name: (one.version, one.digest) for name, one in PRESETS.items()} == {
        "qwen-box": (1, "cdbd44362c03"), "qwen-tag": (1, "5a7cd33285b5"), "llama3-box": (1, "e51d3b1f1f5f"),
        "r1": (1, "28a8af3363e5"), "r1-nothink": (1, "62b14e667b31"), "chat": (1, "0839a52836ba"),
        "bare-chat": (1, "0d40a97427e8"), "none": (1, "3bc317c8a9df"),
    }  # fmt: skip
    with pytest.raises(UserError, match="Did you mean 'qwen-box'"):
        preset("qwen-bx")


def test_options_are_listed_under_the_question():
    problem = Problem("1", "Which?", ("B",), ("red", "blue"))
    assert problem.text == "Which?\n\nA. red\nB. blue"
    assert content_hash([problem]) == content_hash([Problem("other id", "Which?", ("B",), ("red", "blue"))])
    assert content_hash([problem]) != content_hash([Problem("1", "Which?", ("A",), ("red", "blue"))])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Line 2 .* is not JSON"),
        ('{"problem": "x"}', "Line 2 .* has no answer"),
        ("[1]", "has no problem and no answer"),
        ('{"problem": "x", "answer": ""}', "has an empty answer"),
        ('{"id": "p0", "problem": "x", "answer": "1"}', "has the id 'p0' 2 times"),
        ('{"problem": null, "answer": "1"}', "has no problem"),
        ('{"problem": 5, "answer": "1"}', "problem is 5; it must be text"),
        ('{"problem": "x", "answer": {"a": 1}}', "answer is {'a': 1}; it must be text, a number"),
        ('{"problem": "x", "answer": NaN}', "answer is nan"),
        ('{"problem": "x", "answer": "1", "options": "A. x"}', "options is 'A. x'; it must be a list"),
        ('{"problem": "\\ud800", "answer": "1"}', "half of a character pair"),
        ("[" * 100000, "is not JSON"),
    ],
)
def test_broken_rows_are_named(toy, alone, line, message):
    (benchmark,) = resolve([toy(n=2)])
    path = alone / "data" / "toy.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        read_problems(benchmark, alone / "data")


def test_ids_belong_to_what_a_run_is_tied_to(toy, alone):
    (benchmark,) = resolve([toy(rows=[{"problem": "a", "answer": "1"}, {"problem": "b", "answer": "2"}])])
    path = alone / "data" / "toy.jsonl"
    first = read_problems(benchmark, alone / "data")
    assert [problem.id for problem in first.problems] == ["toy-0", "toy-1"]
    path.write_text("\n" + path.read_text())  # blank lines are no rows and shift no id
    assert read_problems(benchmark, alone / "data") == first
    path.write_text('{"id": "x", "problem": "a", "answer": "1"}\n{"problem": "b", "answer": "2"}\n')
    again = read_problems(benchmark, alone / "data")
    assert again.sha256 == first.sha256 and again.identity != first.identity


def test_other_problems_than_the_known_copy_are_refused(toy, alone, run_eval):
    name = toy(2, more='content_sha256 = "0123456789abcdef"')
    (benchmark,) = resolve([name])
    with pytest.raises(UserError, match=r"is not the copy of Toy that is known.*--relock"):
        read_problems(benchmark, alone / "data")
    assert run_eval("fetch", name, "--data-dir", "data")[0] == 2
    code, out, _ = run_eval("fetch", name, "--data-dir", "data", "--relock")
    assert code == 0 and "(not the copy its file was made with)" in out
    read_problems(benchmark, alone / "data")  # accepted, and on record in the lock


def test_names_of_benchmarks_are_names_of_files(toy):
    with pytest.raises(UserError, match=r"Benchmark name 'a/b' must be letters"):
        with_overrides(resolve([toy()])[0], name="a/b")


def test_missing_file_gives_the_command_and_wrong_count_is_refused(toy, alone):
    (benchmark,) = resolve([toy(n=3)])
    with pytest.raises(UserError, match="Get it with `rlfr-eval fetch toy --data-dir"):
        read_problems(benchmark, alone)
    path = alone / "data" / "toy.jsonl"
    path.write_text(path.read_text().split("\n", 1)[1])
    with pytest.raises(UserError, match="has 2 problems; Toy has 3"):
        read_problems(benchmark, alone / "data")


def test_fetch_maps_columns_locks_and_never_replaces(alone, run_eval):
    source = alone / "source"
    source.mkdir()
    rows = [{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{i}"}],
             "reward_model": {"ground_truth": str(i)}} for i in range(3)]  # fmt: skip
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    toml = alone / "b.toml"
    toml.write_text(
        'name = "b"\ntitle = "B"\nlicence = "mit"\nn = 3\n[source]\n'
        f'repo = "{source}"\nfile = "rows.jsonl"\nproblem = "prompt"\nanswer = "reward_model.ground_truth"\n'
    )
    code, out, _ = run_eval("fetch", str(toml), "--data-dir", "d")
    assert code == 0 and out.startswith("b: 3 rows, hash ")
    kept = [json.loads(line) for line in (alone / "d" / "b.jsonl").read_text().splitlines()]
    assert kept[1] == {"id": "b-1", "problem": "q1", "answer": "1"}
    lock = json.loads((alone / "d" / LOCK_FILE).read_text())["b"]
    assert (lock["rows"], lock["licence"], lock["source"]) == (3, "mit", str(source))

    path = alone / "d" / "b.jsonl"
    path.write_text(path.read_text().replace('"answer": "1"', '"answer": "7"'))
    benchmark = load_benchmark(toml)
    with pytest.raises(UserError, match=r"has changed since it was locked.*--relock"):
        read_problems(benchmark, alone / "d")
    assert run_eval("fetch", str(toml), "--data-dir", "d")[0] == 2  # still refused, and the file is not replaced
    assert '"answer": "7"' in path.read_text()
    assert run_eval("fetch", str(toml), "--data-dir", "d", "--relock")[0] == 0
    assert read_problems(benchmark, alone / "d").problems[1].golds == ("7",)


def test_fetch_says_what_it_could_not_get(alone, monkeypatch):
    (alone / "empty").mkdir()
    toml = alone / "b.toml"
    toml.write_text('name = "b"\ntitle = "B"\nlicence = "mit"\nn = 3\n[source]\nrepo = "{}"\n'.format(alone / "empty"))
    with pytest.raises(UserError, match=r"Cannot get .*copy NAME.jsonl with the columns"):
        fetch(load_benchmark(toml), alone / "d")
    toml.write_text(toml.read_text().replace(str(alone / "empty"), "nobody/nothing"))
    with pytest.raises(UserError, match=r"Cannot get nobody/nothing"):
        fetch(load_benchmark(toml), alone / "d")
    (alone / "empty" / "r.jsonl").write_text('{"problem": "q", "answer": "1"}\n')
    toml.write_text(toml.read_text().replace("nobody/nothing", str(alone / "empty")) + 'file = "r.jsonl"\n')
    with pytest.raises(UserError, match=r"has 1 rows; B has 3. Nothing was written"):
        fetch(load_benchmark(toml), alone / "d")
    toml.write_text(toml.read_text() + 'answer = "anser"\n')
    with pytest.raises(UserError, match=r"no column 'anser'\. Did you mean 'answer'"):
        fetch(load_benchmark(toml), alone / "d")


def test_list_names_everything(run_eval):
    code, out, _ = run_eval("list")
    assert code == 0 and all(name in out for name in [*shipped(), *suites(), *PRESETS])
    assert set(json.loads(run_eval("list", "--json")[1])["benchmarks"]) == set(shipped())


def test_a_hub_that_cannot_be_reached_is_asked_once_for_all_benchmarks(alone, run_eval, monkeypatch):
    from rlfr_eval.benchmarks import text_fetch

    asked = []

    def refuse(url, timeout):
        asked.append((url, timeout))
        raise urllib.error.URLError("no route to host")

    text_fetch.hub_unreachable.cache_clear()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("datasets.load_dataset", lambda *given, **more: pytest.fail("the hub was asked all the same"))
    code, _, err = run_eval("fetch", "math", "--data-dir", "data")
    text_fetch.hub_unreachable.cache_clear()
    assert code == 2 and len(asked) == 1 and asked[0][1] <= 10
    assert err.count("does not answer (no route to host). Where the hub cannot be reached, copy NAME.jsonl") == 6


SCALARS = st.sampled_from(
    ["1", "0", "-1", "0.5", "true", '"x"', '""', "nan", "inf", "1979-05-27", '"\\u0000"', "[]", "[1]", "{}",
     "{ a = 1 }", '["a"]', '"never"', '"qwen-box"']
)  # fmt: skip
KEYS = st.sampled_from(
    ["name", "title", "licence", "n", "prompt", "judge", "answer_type", "tolerance", "no_answer", "free_text",
     "source", "sampling", "reference", "other", "system_prompt"]
)  # fmt: skip
HEADS = st.sampled_from(["[source]", "[sampling]", "[[reference]]", "[other]", "[source"])
INNER = st.sampled_from(["repo", "split", "temperature", "top_p", "max_tokens", "samples", "model", "value", "x"])
LINES = st.one_of(
    st.tuples(KEYS, st.just(" = "), SCALARS).map("".join),
    st.tuples(HEADS, st.just("\n"), INNER, st.just(" = "), SCALARS).map("".join),
    st.text(max_size=6),
)
WHOLE = 'name = "b"\ntitle = "B"\nlicence = "MIT"\nn = 1\n'


@settings(derandomize=True, max_examples=300)
@given(
    start=st.sampled_from(["", WHOLE]),
    lines=st.lists(LINES, max_size=4),
    end=st.sampled_from(["", '[source]\nrepo = "r"']),
)
def test_fuzz_files(tmp_path_factory, start, lines, end):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes("\n".join([start, *lines, end]).encode("utf-8", "replace"))
    try:
        benchmark = load_benchmark(path)
    except UserError:
        return
    assert benchmark.name and isinstance(benchmark.n, int) and benchmark.judge in ("never", "undecided")
    assert 0 <= benchmark.tolerance < 1 and benchmark.sampling.samples >= 1
    assert isinstance(benchmark.source.repo, str) and (benchmark.name == "fuzz" or "name" in path.read_text())


def test_a_caution_about_the_data_stands_beside_the_score():
    minerva = shipped()["minerva_math"]
    assert minerva.extra_scores([], [], []) == {"notes": [minerva.caution]}
    assert shipped()["math500"].extra_scores([], [], []) == {}


def test_golds_of_minerva_that_the_prompt_states(shared):
    def plain(text):
        return re.sub(r"[\s$]|\\left|\\right|\\,|\.$", "", text)

    problems = read_problems(shipped()["minerva_math"], shared / "data" / "math_suites").problems
    given = re.compile(r"The final answer is (.*?)\. I hope", re.DOTALL)
    stated = [
        one for one in problems if {plain(gold) for gold in one.golds} & set(map(plain, given.findall(one.text)))
    ]
    assert f"in {len(stated)} of the {len(problems)} problems" in shipped()["minerva_math"].caution
