"""Page data of rollouts: token texts, token classes, counts of rewarded tokens, choice of groups."""

import base64

import numpy as np
import pytest
from PIL import Image

from rlfr_vlm.errors import UserError
from rlfr_vlm.page.html import compressed
from rlfr_vlm.report.group_choice import choose_groups, thin_groups
from rlfr_vlm.report.read_run import LoggedGroup, read_run
from rlfr_vlm.report.rollouts import RolloutPage, mark_changes
from rlfr_vlm.report.token_text import TokenDecoder, load_tokenizer, token_classes
from rlfr_vlm.trainer.records.rollout_log import pack
from tests.report.fake_run import group, response, write_run


class ByteTokenizer:
    """Tokenizer with one byte per token, so that a character beyond ASCII needs several tokens."""

    def decode(self, ids, **settings):
        return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_of_several_tokens_stands_at_the_first():
    assert TokenDecoder(ByteTokenizer()).texts(list("a√b".encode())) == ["a", "√", "", "", "b"]
    assert TokenDecoder(ByteTokenizer()).texts([0xE2, 0x41, 0xE2]) == [
        "�",
        "A",
        "�",
    ]  # bytes that never form a character


def test_pieces_join_to_the_text(processor):
    text = "9 - 3 = 6. \\boxed{6} ½日本"
    ids = processor.tokenizer(text)["input_ids"]
    assert "".join(TokenDecoder(processor.tokenizer).texts(ids)) == text


def test_answers_are_found_in_nested_braces_and_tags():
    pieces = [" \\boxed{", "\\frac", "{1}", "{2", "}", "}", " so", " <answer>", "7", "</answer>"]
    classes = ["words", "answer", "answer", "answer", "answer", "other", "words", "words", "answer", "words"]
    assert token_classes(pieces) == classes
    assert token_classes(["\\boxed{", "12"]) == ["words", "answer"]  # cut off inside


def test_a_tokenizer_that_is_nowhere_says_what_was_tried(tmp_path):
    with pytest.raises(UserError, match=r"tried .*run, gone\. Name the policy's folder with --tokenizer"):
        load_tokenizer([tmp_path / "run", "gone"], None)


@pytest.fixture
def page(tmp_path):
    """Two responses with the bytes of "1 a" and "2b"; one image exists, the other is missing."""
    groups = [
        group(
            3,
            7,
            [
                response(list(b"1 a"), True, [0.01, 0.0, -0.005], [1.0, 4.0, 7.0]),
                response(list(b"2b"), None, [0.01, 0.0], [3.0, 0.0]),
            ],
            thumbnails=["rank0-thumbnails/x.png", "rank0-thumbnails/gone.png"],
        ),
    ]
    run = read_run(write_run(tmp_path / "run", groups, [0.5]))
    (run.folder / "rollouts" / "rank0-thumbnails").mkdir()
    Image.new("RGB", (8, 8)).save(run.folder / "rollouts" / "rank0-thumbnails" / "x.png")
    page = RolloutPage()
    page.add_run(0, run, [logged.read() for logged in run.groups], TokenDecoder(ByteTokenizer()))
    return page


def test_data_for_the_script(page):
    data = page.data()
    [only] = data["groups"]
    assert (only["system"], only["question"], only["gold"]) == ("Be brief.", "2+3?", "5")
    assert (only["right"], only["wrong"], only["undecided"]) == (1, 0, 1)
    assert only["images"] == [0] and only["images_missing"] == 1 and len(data["images"]) == 1
    indices = np.frombuffer(base64.b64decode(only["responses"][0]["pieces"]), dtype="<u4")
    assert [data["vocabulary"][index] for index in indices] == ["1", " ", "a"]
    assert data["classes"] == ["digits", "other", "words", "digits", "words"]
    # rewarded: "1" and "2"; penalised: "a"; each occurs once, at step 3
    assert data["token_counts"] == [[0, 3, 0, 1, 0, 1], [0, 3, 2, 0, 1, 1], [0, 3, 3, 1, 0, 1]]
    assert data["reward_names"] == ["accuracy", "format"] and data["layers"] == [1, 3]


def test_scales_and_quantiles_by_hand(page):
    """The mean of the layers is 1.5 times the first layer; the last token has deviation 0, so no partner."""
    scales = page.scales()
    assert scales["flow_reward"] == [pytest.approx(-0.01, rel=1e-3), 0.0, pytest.approx(0.01, rel=1e-3)]
    assert scales["deviation"][1] == pytest.approx(np.median([1.5, 6.0, 10.5, 4.5]))
    assert scales["layer_3"][1] == pytest.approx(np.median([2.0, 8.0, 14.0, 6.0]))
    rows = {(row["outcome"], row["class"]): row for row in page.deviations_by_class()}
    assert set(rows) == {("right", "digits"), ("right", "other"), ("right", "words"), ("undecided", "digits")}
    assert rows["right", "words"]["n"] == 1 and rows["right", "words"]["quantiles"] == [10.5] * 5


def test_changed_prompts_are_marked():
    def entry_of(step, row, right, wrong):
        return {"step": step, "row": row, "right": right, "wrong": wrong, "change": ""}

    groups = [
        entry_of(0, 1, 0, 2),
        entry_of(0, 2, 2, 0),
        entry_of(0, 2, 0, 2),
        entry_of(1, 1, 1, 1),
        entry_of(2, 1, 2, 0),
        entry_of(2, 2, 2, 0),
        entry_of(2, 3, 2, 0),
        entry_of(3, 1, 0, 1),
    ]
    mark_changes(groups)
    # a tie in between does not hide a change; two groups of the same step are no change
    assert [entry["change"] for entry in groups] == ["", "", "", "", "up", "up", "", "down"]


def page_of(tmp_path, *responses, **extra):
    run = read_run(write_run(tmp_path / "odd", [group(0, 1, list(responses), **extra)], [0.5]))
    page = RolloutPage()
    page.add_run(0, run, [logged.read() for logged in run.groups], TokenDecoder(ByteTokenizer()))
    return page


def test_nan_is_left_out(tmp_path):
    """A diverged run has NaN in deviations and entropies."""
    odd = response(list(b"12"), True, [0.01, 0.0], [float("nan"), 4.0]) | {"entropy": pack([float("nan"), 2.0])}
    page = page_of(tmp_path, odd)
    assert page.scales()["deviation"] == [6.0] * 3 and page.scales()["entropy"] == [2.0] * 3
    assert [row["n"] for row in page.deviations_by_class()] == [1]
    assert compressed(page.data())


def test_older_logs_are_read(tmp_path):
    """Older logs have only the mean of the layers, only the reward, or no layer labels."""
    whole = response(list(b"12"), True, [0.01, 0.0])
    mean = {key: value for key, value in whole.items() if key != "deviations"} | {"deviation": pack([3.0, 4.0])}
    data = page_of(tmp_path / "mean", mean).data()
    assert data["groups"][0]["responses"][0]["layers"] == [mean["deviation"]] and data["layers"] == []
    assert "deviation" in data["scales"]
    bare = {key: value for key, value in whole.items() if key != "deviations"}
    assert page_of(tmp_path / "bare", bare).data()["groups"][0]["responses"][0]["layers"] == []
    assert page_of(tmp_path / "labels", whole, layers=None).data()["layers"] == []


def test_a_token_counts_where_it_was_not_chosen_too(tmp_path):
    groups = [group(0, 1, [response(list(b"1"), True, [0.01])]), group(1, 2, [response(list(b"1"), True, [0.0])])]
    run = read_run(write_run(tmp_path / "run", groups, [0.5]))
    page = RolloutPage()
    page.add_run(0, run, [logged.read() for logged in run.groups], TokenDecoder(ByteTokenizer()))
    assert page.data()["token_counts"] == [[0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1]]


def test_right_is_what_the_trainer_counts(tmp_path):
    """The first reward decides, whatever its name."""
    line = response(list(b"1"), False) | {"rewards": {"reference_probability": 0.9, "accuracy": 0.0}}
    assert page_of(tmp_path, line).data()["groups"][0]["responses"][0]["outcome"] == "right"


def test_thinning_keeps_whole_prompts_spread_over_the_run():
    groups = [LoggedGroup(step, step % 10, 2, []) for step in range(20)]
    kept = thin_groups(groups, 12)  # each prompt has two groups of two responses: three prompts fit
    assert [logged.step for logged in kept] == [0, 8, 9, 10, 18, 19]
    assert sum(logged.responses for logged in kept) == 12
    assert thin_groups(groups, 10**6) == groups and thin_groups(groups, 0) == []


def test_runs_that_are_compared_show_prompts_they_share(tmp_path):
    both = [group(step, step, [response([1], True)] * 2) for step in range(10)]
    first = read_run(write_run(tmp_path / "a", both, [0.5]))
    second = read_run(write_run(tmp_path / "b", [*both[5:], group(3, 99, [response([1], True)] * 2)], [0.5]))
    a, b = choose_groups([first, second], 20)  # ten responses each: five prompts, all of them shared
    assert [logged.row for logged in a] == [logged.row for logged in b] == [5, 6, 7, 8, 9]
