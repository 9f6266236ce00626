"""The token before the answer's marker, with a tokenizer of one character a token."""

import pytest

from rlfr_vlm.answer_position import token_before_answer


class Characters:
    def decode(self, token_ids, *, skip_special_tokens):
        return "".join(map(chr, token_ids))


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("so \\boxed{4}", 2),
        ("\\boxed{1} no, \\boxed{2}", 13),  # the last marker counts
        ("<answer>4</answer>", 0),
        ("no marker", 8),
        ("", 0),
    ],
)
def test_the_token_that_ends_before_the_marker(text, index):
    assert token_before_answer([ord(letter) for letter in text], Characters()) == index
