"""Building prompt messages."""

import pytest

from rlfr_vlm.data.prompts import build_messages, flatten_text
from rlfr_vlm.errors import UserError

IMAGE = {"type": "image"}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def test_images_without_markers_are_placed_first():
    assert build_messages("what?", 2) == [{"role": "user", "content": [IMAGE, IMAGE, text("what?")]}]


def test_markers_set_the_positions_of_images():
    built = build_messages("see <image> and <image>?", 2)
    assert built[0]["content"] == [text("see "), IMAGE, text(" and "), IMAGE, text("?")]


def test_blocks_are_kept_and_null_values_are_dropped():
    blocks = [{"type": "image", "text": None}, {"type": "text", "text": "sum?"}]
    assert build_messages([{"role": "user", "content": blocks}], 1)[0]["content"] == [IMAGE, text("sum?")]


def test_input_is_not_changed():
    messages = [{"role": "user", "content": "sum?"}]
    build_messages(messages, 1, "be brief")
    assert messages == [{"role": "user", "content": "sum?"}]


def test_system_prompt_is_added_unless_there_is_one():
    assert build_messages("q", 1, "be brief")[0] == {"role": "system", "content": [text("be brief")]}
    prompt = [{"role": "system", "content": "mine"}, {"role": "user", "content": "q"}]
    assert [m["role"] for m in build_messages(prompt, 0, "be brief")] == ["system", "user"]


@pytest.mark.parametrize(
    ("prompt", "images", "message"),
    [
        ("<image> q", 2, "1 image place.* 2 image"),
        ("<image> q", 0, "1 image place.* 0 image"),
        ([{"role": "system", "content": "s"}], 1, "no user message"),
    ],
)
def test_mismatch_of_markers_and_images_raises_an_error(prompt, images, message):
    with pytest.raises(UserError, match=message):
        build_messages(prompt, images)


def test_rows_without_images_have_plain_strings_for_text_only_templates():
    expected = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert build_messages("q", 0, "s") == expected
    assert build_messages([{"role": "user", "content": [text("q")]}], 0, "s") == expected
    assert flatten_text(build_messages("q", 1, "s")) == expected
