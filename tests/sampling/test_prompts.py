"""Which rows are sampled, and where a run goes on."""

import json

import pytest

from rlfr_vlm.data.load import read_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions
from rlfr_vlm.sampling.prompts import choose_prompts


@pytest.fixture
def make_prompts(tmp_path, text_tokenizer):
    """Prompts of a file with these questions; None is a row without a question."""

    def make(questions, count=None, processing_class=text_tokenizer, **options):
        lines = [json.dumps({"prompt": question, "answer": "7"}) for question in questions]
        (tmp_path / "data.jsonl").write_text("\n".join(lines))
        data = DataOptions(dataset_name=str(tmp_path / "data.jsonl"), bad_row_limit=1.0, **options)
        return choose_prompts(read_rows(data, ("prompt", "answer")), data, processing_class, count)

    return make


def places(draws):
    return [(draw.prompt, draw.sample) for draw in draws]


def test_all_responses_to_a_prompt_then_those_to_the_next(make_prompts):
    prompts = make_prompts(["sum?", "product?"])
    draws = list(prompts.draws(2))
    assert places(draws) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [draw.row["prompt"][0]["content"] for draw in draws] == ["sum?", "sum?", "product?", "product?"]


@pytest.mark.parametrize(
    ("after", "expected"), [((0, 0), [(0, 1), (1, 0), (1, 1)]), ((0, 1), [(1, 0), (1, 1)]), ((1, 1), [])]
)
def test_a_run_goes_on_behind_the_last_response(make_prompts, after, expected):
    assert places(make_prompts(["sum?", "product?"]).draws(2, after)) == expected


@pytest.mark.parametrize(
    ("count", "numbers"), [(None, [0, 1, 2, 3, 4]), (2, [0, 2]), (3, [0, 1, 3]), (9, [0, 1, 2, 3, 4])]
)
def test_prompts_are_spread_evenly(make_prompts, count, numbers):
    assert list(make_prompts(["sum?"] * 5, count).numbers) == numbers


def test_bad_rows_are_left_out_and_counted(make_prompts, caplog):
    """Training replaces them by other rows, which would here be sampled twice."""
    prompts = make_prompts(["sum?", None, "difference?"])
    assert places(prompts.draws(1)) == [(0, 0), (2, 0)]
    assert prompts.left_out({0, 2}) == {"no prompt": 1}
    assert "row 1 is bad and is left out: no prompt" in caplog.text


def test_a_prompt_that_the_chat_template_refuses_is_a_bad_row(make_prompts, text_tokenizer):
    text_tokenizer.chat_template = "{% if 'product' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}"
    assert places(make_prompts(["sum?", "product?"]).draws(1)) == [(0, 0)]


def test_data_without_a_usable_row(make_prompts):
    with pytest.raises(UserError, match=r"No row of the data can be used; row 1: no prompt.*check-data"):
        list(make_prompts([None, None]).draws(1))


def test_all_rows_too_long(make_prompts):
    with pytest.raises(UserError, match="All prompts are longer than max_prompt_tokens 2"):
        make_prompts(["sum?", "product?"], max_prompt_tokens=2)


def test_long_prompts_are_dropped(make_prompts, capsys):
    assert list(make_prompts(["sum?", "sum? " * 20], max_prompt_tokens=40).numbers) == [0]
    assert "prompts of at most 40 tokens" in capsys.readouterr().out


def test_a_server_cannot_count_tokens(make_prompts):
    with pytest.raises(UserError, match="max_prompt_tokens needs the policy's processor, which only the server has"):
        make_prompts(["sum?"], processing_class=None, max_prompt_tokens=2)


def test_changed_data_are_noticed(make_prompts):
    prompts = make_prompts(["sum?", "product?"])
    last = {"prompt_index": 1, "prompt": [{"role": "user", "content": "product?"}]}
    prompts.check_unchanged(last)
    for changed in ({"prompt": [{"role": "user", "content": "sum?"}]}, {"prompt_index": 7}):
        with pytest.raises(UserError, match=r"the data have changed. Name another --out"):
            prompts.check_unchanged(last | changed)
