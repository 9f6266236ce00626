"""Extraction of the final answer from responses, including responses without one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlfr_vlm.grading import extract, last_boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\fbox{x}", "x"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {7}", "7"),
        ("no box", None),
        (r"\boxed 7", None),
        (r"first \boxed{8}, then \boxed{7}", "7"),
        (r"\boxed{7} and then cut off in \boxed{", "7"),
        (r"\boxed{7", None),
        (r"\boxed{\boxed{7}}", "7"),
        (r"{ \boxed{7} \boxed{8 {", "7"),
        (r"\boxed{a \\} b", "a \\\\"),  # an escaped backslash, then a real brace
        (r"\boxed{}", ""),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("response", "answer", "how", "reasoning"),
    [
        (r"so \boxed{7}", "7", "boxed", "none"),
        ("<think>maybe \\boxed{5}</think> \\boxed{7}", "7", "boxed", "closed"),
        ("the prompt opened it: \\boxed{5}</think> \\boxed{7}", "7", "boxed", "closed"),
        ("<think>cut off at \\boxed{5}", None, "none", "unclosed"),
        ("\\boxed{3} <think>cut off at \\boxed{5}", "3", "boxed", "unclosed"),
        ("<think>a</think> 3 <think>again \\boxed{5}", None, "none", "unclosed"),
        ("<answer> 7 </answer>", "7", "tag", "none"),
        ("<answer>\\boxed{7}</answer>", "7", "boxed", "none"),
        ("\\boxed{5} <answer>7</answer>", "7", "tag", "none"),
        ("<answer>5</answer> no, \\boxed{7}", "7", "boxed", "none"),
        ("<answer>7", "7", "tag", "none"),  # cut off right after the answer
        ("<answer></answer>", None, "none", "none"),
        ("The answer is 7.", "7", "phrase", "none"),
        ("the answer is 3. No: the final answer is $\\frac{1}{2}$ because of x", r"\frac{1}{2}", "phrase", "none"),
        ("Final answer: 3.5\nThank you", "3.5", "phrase", "none"),
        ("The answer is 12 because 3 times 4 is 12.", "12", "phrase", "none"),
        ("The answer is **42**.", "42", "phrase", "none"),
        ("The answer is: **29**", "29", "phrase", "none"),
        ("**The answer is:** 29", "29", "phrase", "none"),
        ("The answer is, 29.", "29", "phrase", "none"),
        ("The answer is: , 29", "29", "phrase", "none"),
        ("The answer is; 29", "29", "phrase", "none"),
        ("The answer is, however, $29$.", "29", "phrase", "none"),
        ("The answer is, therefore: 29", "29", "phrase", "none"),
        ("答案是，29。", "29", "phrase", "none"),
        ("The answer is indeed True.", "True", "phrase", "none"),
        ("The final answer is:\n\n$$\n42\n$$\nDone.", "42", "phrase", "none"),  # lines of its own
        ("The answer is\n\\[\nx =\n  \\frac{1}{2}\n\\]", r"x = \frac{1}{2}", "phrase", "none"),
        ("The answer is: $$3$$ or $$4$$", "$$3$$ or $$4$$", "phrase", "none"),
        ("<answer>: 29</answer>", "29", "tag", "none"),
        ("The answer is ,5", ",5", "phrase", "none"),  # a decimal comma
        ("The answer is, not 29", None, "none", "none"),
        ("The answer is, cats, dogs", None, "none", "none"),  # a list, or an aside and the answer
        ("The answer is -29.", "-29", "phrase", "none"),
        ("The answer is − 29.", "− 29", "phrase", "none"),  # a minus sign, not a dash
        ("The answer is - 29", None, "none", "none"),  # a dash or a minus sign
        ("The answer is — 29", None, "none", "none"),
        ("The answer is - $29$", None, "none", "none"),
        ("Answer:\n- 29", None, "none", "none"),
        ("The answer is -$29$.", "-$29$", "phrase", "none"),  # the formula alone has another sign
        ("The answer is 3$x$.", "3$x$", "phrase", "none"),
        (r"The answer is $\$36$.", r"\$36", "phrase", "none"),  # dollars of money do not end a formula
        (r"The answer is \$36.", r"\$36", "phrase", "none"),
        (r"The answer is \$5 and not $7$.", r"\$5 and not $7$", "phrase", "none"),  # nor begin one
        ("The answer is x = $5$ as shown", "5", "phrase", "none"),
        ("答案是 7。", "7", "phrase", "none"),
        ("**Answer**: 7", "7", "phrase", "none"),
        ("**Final Answer**\n\n7", "7", "phrase", "none"),
        ("答案：7", "7", "phrase", "none"),
        ("The answer is not 7", None, "none", "none"),
        ("5 + 2 = 7", None, "none", "none"),  # other text is not parsed as an answer
        ("", None, "none", "none"),
    ],
)
def test_extract(response, answer, how, reasoning):
    extraction = extract(response)
    assert (extraction.answer, extraction.how, extraction.reasoning) == (answer, how, reasoning)
    assert extraction.raw == response


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), ("**(B)**", "B"), ("I choose B", "B"),
        ("so the right one is (B).", "B"), ("Option B", "B"), ("the correct option is B", "B"), ("选B", "B"),
        ("(A) is wrong, so (B).", "B"),
        ("(A) is too small. (C) is not prime.\nTherefore (B).", "B"),
        ("We can rule out (A). The answer must be (D)", "D"),
        ("Not (A) but (C).", "C"),
        ("So it is A, not B.", "A"), ("The correct choice is (C), since A is wrong", "C"),
        ("B, C are wrong", None),  # mentioned and rejected
        ("The options.\n(A) 5\n(B) 6\n(C) 7\n(D) 8", None),  # a list of options, no conclusion
        ("Option A: 5\nOption B: 6\nI need to compute more", None), ("P(A) = 0.3 and so we", None),
        ("Then we get f(B)", None), ("if it is (B)", None),
        ("The Area is Big", None), ("A triangle has three sides", None),  # inside a word, or an article
        ("(A) or (B)", None), ("(A) 5 (B) 6 (C) 7 (D) 8", None), ("I am not sure", None),
    ],
)  # fmt: skip
def test_option_letters_in_plain_text(response, letter):
    assert extract(response, letters=True).answer == letter


def test_letters_are_only_extracted_on_request():
    assert extract("so (B)").answer is None


@given(st.text(max_size=80))
def test_any_text_has_an_extraction(text):
    for response in (text, "\\boxed{" + text, "<answer>" + text, "answer is " + text, "<think>" + text):
        extraction = extract(response, letters=True)
        assert extraction.answer is None or isinstance(extraction.answer, str)


@pytest.mark.parametrize(
    "response",
    [
        "\\boxed{" * 150_000,
        "\\boxed{" + "{" * 10_000 + "}" * 10_000 + "}",
        "answer is " * 100_000,
        "<think>" * 150_000,
        "$" * 1_000_000,
        "(A) " * 250_000,
        "<answer>" * 120_000,
        "not " * 250_000,
        "\\boxed{7}" * 110_000,
        " " * 1_000_000,
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.timeout(60)  # a megabyte in quadratic time would take hours
def test_a_megabyte_of_any_text_is_read_in_linear_time(response):
    extraction = extract(response, letters=True)
    assert extraction.raw == response
