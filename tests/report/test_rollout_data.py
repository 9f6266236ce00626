r"""Rollouts as page data: pieces of text, classes of tokens, which ones flow rewards chose, what fits."""

import base64

import numpy as np
import pytest
from PIL import Image

from rlfr_vlm.errors import UserError
from rlfr_vlm.page.html import compressed
from rlfr_vlm.report.group_choice import choose, thin
from rlfr_vlm.report.read_run import LoggedGroup, read_run
from rlfr_vlm.report.rollouts import RolloutPage, mark_changes
from rlfr_vlm.report.token_text import Pieces, load_tokenizer, token_classes
from rlfr_vlm.trainer.records.rollout_log import pack
from tests.report.fake_run import group, response, write_run


class Bytes:
    """A tokenizer whose tokens are single bytes, so that a letter beyond ASCII needs several."""

    def decode(self, ids, **settings):
        return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_of_several_tokens_stands_at_the_first():
    assert Pieces(Bytes()).of(list("a√b".encode())) == ["a", "√", "", "", "b"]
    assert Pieces(Bytes()).of([0xE2, 0x41, 0xE2]) == ["�", "A", "�"]  # bytes that never become one


def test_pieces_join_to_the_text(processor):
    text = "9 - 3 = 6. \\boxed{6} ½日本"
    ids = processor.tokenizer(text)["input_ids"]
    assert "".join(Pieces(processor.tokenizer).of(ids)) == text


def test_answers_are_found_in_nested_braces_and_tags():
    pieces = [" \\boxed{", "\\frac", "{1}", "{2", "}", "}", " so", " <answer>", "7", "</answer>"]
    assert token_classes(pieces) == ["words", "answer", "answer", "answer", "answer", "other", "words", "words",
                                     "answer", "words"]  # fmt: skip
    assert token_classes(["\\boxed{", "12"]) == ["words", "answer"]  # cut off inside


def test_a_tokenizer_that_is_nowhere_says_what_was_tried(tmp_path):
    with pytest.raises(UserError, match=r"tried .*run, gone\. Name the policy's folder with --tokenizer"):
        load_tokenizer([tmp_path / "run", "gone"], None)


@pytest.fixture
def page(tmp_path):
    """Two responses by hand: bytes of "1 a" and "2b"; one image there, one gone."""
    groups = [
        group(3, 7, [response(list(b"1 a"), True, [0.01, 0.0, -0.005], [1.0, 4.0, 7.0]),
                     response(list(b"2b"), None, [0.01, 0.0], [3.0, 0.0])],
              thumbnails=["rank0-thumbnails/x.png", "rank0-thumbnails/gone.png"]),
    ]  # fmt: skip
    run = read_run(write_run(tmp_path / "run", groups, [0.5]))
    (run.folder / "rollouts" / "rank0-thumbnails").mkdir()
    Image.new("RGB", (8, 8)).save(run.folder / "rollouts" / "rank0-thumbnails" / "x.png")
    page = RolloutPage()
    page.add_run(0, run, [one.read() for one in run.groups], Pieces(Bytes()))
    return page


def test_what_the_script_reads(page):
    data = page.data()
    [only] = data["groups"]
    assert (only["system"], only["question"], only["gold"]) == ("Be brief.", "2+3?", "5")
    assert (only["right"], only["wrong"], only["undecided"]) == (1, 0, 1)
    assert only["images"] == [0] and only["images_missing"] == 1 and len(data["images"]) == 1
    indices = np.frombuffer(base64.b64decode(only["responses"][0]["pieces"]), dtype="<u4")
    assert [data["vocabulary"][index] for index in indices] == ["1", " ", "a"]
    assert data["classes"] == ["digits", "other", "words", "digits", "words"]
    # rewarded: "1" and "2"; penalised: "a"; each seen once, at step 3
    assert data["token_counts"] == [[0, 3, 0, 1, 0, 1], [0, 3, 2, 0, 1, 1], [0, 3, 3, 1, 0, 1]]
    assert data["reward_names"] == ["accuracy", "format"] and data["layers"] == [1, 3]


def test_scales_and_quantiles_by_hand(page):
    """Mean of the layers is 1.5 times the first one's; the last token's deviation 0 means it has none."""
    scales = page.scales()
    assert scales["flow_reward"] == [pytest.approx(-0.01, rel=1e-3), 0.0, pytest.approx(0.01, rel=1e-3)]
    assert scales["deviation"][1] == pytest.approx(np.median([1.5, 6.0, 10.5, 4.5]))
    assert scales["layer_3"][1] == pytest.approx(np.median([2.0, 8.0, 14.0, 6.0]))
    rows = {(row["outcome"], row["class"]): row for row in page.deviations_by_class()}
    assert set(rows) == {("right", "digits"), ("right", "other"), ("right", "words"), ("undecided", "digits")}
    assert rows["right", "words"]["n"] == 1 and rows["right", "words"]["quantiles"] == [10.5] * 5


def test_prompts_that_turned():
    def seen(step, row, right, wrong):
        return {"step": step, "row": row, "right": right, "wrong": wrong, "change": ""}

    groups = [seen(0, 1, 0, 2), seen(0, 2, 2, 0), seen(0, 2, 0, 2), seen(1, 1, 1, 1), seen(2, 1, 2, 0),
              seen(2, 2, 2, 0), seen(2, 3, 2, 0), seen(3, 1, 0, 1)]  # fmt: skip
    mark_changes(groups)
    # a tie in between does not hide a turn; two sights at one step are no turn
    assert [one["change"] for one in groups] == ["", "", "", "", "up", "up", "", "down"]


def made_of(tmp_path, *responses, **more):
    run = read_run(write_run(tmp_path / "odd", [group(0, 1, list(responses), **more)], [0.5]))
    page = RolloutPage()
    page.add_run(0, run, [one.read() for one in run.groups], Pieces(Bytes()))
    return page


def test_numbers_that_are_none_spoil_nothing(tmp_path):
    """A diverged run: NaN and infinity in deviations and entropies."""
    odd = response(list(b"12"), True, [0.01, 0.0], [float("nan"), 4.0]) | {"entropy": pack([float("nan"), 2.0])}
    page = made_of(tmp_path, odd)
    assert page.scales()["deviation"] == [6.0] * 3 and page.scales()["entropy"] == [2.0] * 3
    assert [row["n"] for row in page.deviations_by_class()] == [1]
    assert compressed(page.data())


def test_logs_of_before_are_read(tmp_path):
    """They kept the mean of the layers, or nothing but the reward; or labels are missing."""
    whole = response(list(b"12"), True, [0.01, 0.0])
    mean = {key: value for key, value in whole.items() if key != "deviations"} | {"deviation": pack([3.0, 4.0])}
    data = made_of(tmp_path / "mean", mean).data()
    assert data["groups"][0]["responses"][0]["layers"] == [mean["deviation"]] and data["layers"] == []
    assert "deviation" in data["scales"]
    bare = {key: value for key, value in whole.items() if key != "deviations"}
    assert made_of(tmp_path / "bare", bare).data()["groups"][0]["responses"][0]["layers"] == []
    assert made_of(tmp_path / "labels", whole, layers=None).data()["layers"] == []


def test_a_token_counts_where_it_was_not_chosen_too(tmp_path):
    groups = [group(0, 1, [response(list(b"1"), True, [0.01])]), group(1, 2, [response(list(b"1"), True, [0.0])])]
    run = read_run(write_run(tmp_path / "run", groups, [0.5]))
    page = RolloutPage()
    page.add_run(0, run, [one.read() for one in run.groups], Pieces(Bytes()))
    assert page.data()["token_counts"] == [[0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1]]


def test_right_is_what_the_trainer_counts(tmp_path):
    """Its first reward decides, whatever the others are called."""
    own = response(list(b"1"), False) | {"rewards": {"reference_probability": 0.9, "accuracy": 0.0}}
    assert made_of(tmp_path, own).data()["groups"][0]["responses"][0]["outcome"] == "right"


def test_thinning_keeps_whole_prompts_spread_over_the_run():
    groups = [LoggedGroup(step, step % 10, 2, []) for step in range(20)]
    kept = thin(groups, 12)  # each prompt was seen twice with two responses: three prompts fit
    assert [one.step for one in kept] == [0, 8, 9, 10, 18, 19]
    assert sum(one.responses for one in kept) == 12
    assert thin(groups, 10**6) == groups and thin(groups, 0) == []


def test_runs_that_are_compared_show_prompts_they_share(tmp_path):
    both = [group(step, step, [response([1], True)] * 2) for step in range(10)]
    first = read_run(write_run(tmp_path / "a", both, [0.5]))
    second = read_run(write_run(tmp_path / "b", [*both[5:], group(3, 99, [response([1], True)] * 2)], [0.5]))
    a, b = choose([first, second], 20)  # ten responses each: five prompts, all of them shared
    assert [one.row for one in a] == [one.row for one in b] == [5, 6, 7, 8, 9]
