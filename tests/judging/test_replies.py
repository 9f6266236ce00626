"""A judge's reply becomes the one thing that was asked for, or nothing."""

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_vlm.grading import Verdict
from rlfr_vlm.judging.prompt import code_of
from rlfr_vlm.judging.replies import VLM_READERS, read_verdict, vlm_reader

ABCD = {"A": "cat", "B": "dog", "C": "cow", "D": "a hen"}


@pytest.mark.parametrize(
    ("reads", "reply", "value"),
    [
        ("answer", "14", "14"),
        ("float", "1e999", None),
        ("integer", "1e999", None),
        ("answer", "Extracted answer: 14", "14"),
        ("answer", "Sure! Here it is.\n\nExtracted Answer: 14\n", "14"),
        ("answer", "**\\frac{1}{2}**", "\\frac{1}{2}"),
        ("answer", "No answer", ""),
        ("answer", "Extracted answer: none", ""),
        ("answer", "The model thinks that\nit may be 3, or 4.", None),
        ("answer", "It is a long story. " * 20, None),
        ("answer", "<think>maybe 7</think>14", "14"),
        ("integer", "14.0", "14"),
        ("integer", "The answer is 1,400 apples.", "1400"),
        ("integer", "between 3 and 4", None),
        ("integer", "many", None),
        ("integer", "14.5", "14.5"),
        ("float", "about 0.6", "0.6"),
        ("float", "-1.5e3", "-1500.0"),
        ("letter", "B", "B"),
        ("letter", " (b). ", "B"),
        ("letter", "Your output: B", "B"),
        ("letter", "**B. dog**", "B"),
        ("letter", "<<B>>", "B"),
        ("letter", "The answer is A", "A"),
        ("letter", "The correct option is B because it barks", "B"),
        ("letter", "A dog is an animal", None),
        ("letter", "either B or C", None),
        ("letter", "Z", "Z"),
        ("letter", "None", "Z"),
        ("letter", "X", None),
        ("letter", "I cannot help with this", None),
        ("option", "dog", "B"),
        ("option", "Extracted answer: D", "D"),
        ("option", "none", ""),
        ("option", "a horse", None),
        ("letters", "AD", "AD"),
        ("letters", "D, A", "DA"),
        ("letters", "Your output: B", "B"),
        ("letters", "none", "Z"),
        ("letters", "The second one", None),
        ("binary", "1", "1"),
        ("binary", "Judgement: 0", "0"),
        ("binary", "They are the same.\nJudgement: 1", "1"),
        ("binary", "0 or 1", None),
        ("binary", "10", None),
        ("binary", "0.5", None),
        ("binary", "yes", None),
    ],
)
def test_replies(reads, reply, value):
    assert vlm_reader(reads, ABCD)(reply, "stop").value == value


@pytest.mark.parametrize(
    ("reads", "reply"),
    [
        *(("float", reply) for reply in ("2.5cm", "0.6m", "Extracted answer: 1.45USD", "2.5π", "1,000km", "3,4", "1/2",
                                         "[2007,2008]", "60%", "minus 5", "It is not 7")),
        *(("integer", reply) for reply in ("2.9m", "3,4", "1,000km", "1 000")),
        *(("binary", reply) for reply in ("There is 1 difference between the two", "Judgement: not 1", "Score: 1/5",
                                          "-1", "1 of them is missing, so they differ.", "Judgement: 0, not 1",
                                          "Judgement: 1\nOn second thought, 0.")),
        *(("letter", reply) for reply in ("The correct answer is not B", "The response does not choose B.",
                                          "A. is wrong; B is right", "The answer is neither; it rules out C",
                                          "The response rejects option C", "Your output: B\nOr perhaps C.")),
        *(("option", reply) for reply in ("not B", "The response rejects option C")),
        *(("letters", reply) for reply in ("ERROR", "SORRY", "YES", "NO", "OK", "INVALID", "BB", "I", "AZ")),
        *(("answer", reply) for reply in ("The answer is not 14", "Extracted answer: 14\nLet me know if it helps.")),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_not_read(reads, reply):
    """The first part of a number, a letter that is denied, a word in capitals: each was a verdict once."""
    assert vlm_reader(reads, ABCD)(reply, "stop").value is None


def test_a_label_wants_a_colon_or_is_and_an_answer_may_have_several_parts():
    def read(reply):
        return vlm_reader("answer", {})(reply, "stop").value

    parts = "Domain: (-3, 3]\nRange: (-4, 1]"  # VLMEvalKit's own example 3 of MathVerse
    assert read(parts) == parts and read(f"Extracted Answer: {parts}") == parts
    for words in ("output voltage", "answers vary", "Judgement day", "Answer key"):
        assert read(words) == words
    assert [read(f"{label} 5") for label in ("Output:", "The answer is", "Answer：", "The answer is:")] == ["5"] * 4


def test_a_letter_goes_before_a_text_and_a_text_before_a_letter_in_it():
    swapped, degrees = {"A": "B", "B": "A"}, {"A": "3 C", "B": "5 C", "C": "9 C"}
    for kind in ("option", "letter"):
        assert vlm_reader(kind, swapped)("B", "stop").value == "B"  # as VLMEvalKit takes it
        assert vlm_reader(kind, degrees)("5 C", "stop").value == "B"


def test_a_reply_that_was_cut_off_says_nothing():
    assert vlm_reader("binary", {})("1", "length").reason == "judge cut off"
    assert vlm_reader("answer", {})("<think>so it is 14", "stop").value is None
    assert vlm_reader("letter", ABCD)("hm", "stop").reason == "judge gave no verdict"


PARTS = st.one_of(
    st.sampled_from(
        ["A", "B", "b", "I", "Z", " ", "\n", ":", "-", "−", ".", ",", "14", "0", "1", "0.5", "1.5e3", "1,400"]
    ),
    st.sampled_from(
        ["dog", "a hen", "Extracted answer: ", "Judgement: ", "The answer is ", "not ", "none", "or", "and", "**", "²",
         "<think>", "</think>", "<|im_end|>", "½", "٣", "I cannot help", "<html>", "\ud800", "\u202e"]
    ),
    st.text(max_size=4),
)  # fmt: skip
REPLIES = st.lists(PARTS, max_size=8).map("".join)


@settings(derandomize=True, max_examples=800)
@given(reply=REPLIES, kind=st.sampled_from(sorted(VLM_READERS)), finish=st.sampled_from(["stop", "length", ""]))
def test_fuzz_readers(reply, kind, finish):
    """What is read stands in the reply, and a reply without a value has a reason."""
    value, reason = vlm_reader(kind, ABCD)(reply, finish)
    assert (value is None) == bool(reason)
    if value is None:
        return
    assert finish != "length"
    if kind in ("letter", "option", "letters"):
        names = {"Z", *ABCD, *"EFGH"} if kind == "letters" else {"Z", "", *ABCD}
        assert value in names or set(value) <= names
        for letter in set(value) - {"Z"}:
            assert letter in reply.upper() or ABCD[letter] in reply.lower()
    elif kind == "binary":
        assert value in ("0", "1") and value in reply
    elif kind == "vlmevalkit":
        assert value.strip() and set(value) <= {*reply, "?"}  # ? for half of a surrogate pair
    elif kind == "answer":
        assert value == "" or value in reply.replace("<|im_end|>", "")
    elif value:
        digits = re.findall(r"[\d,]*\.?\d+(?:[eE][-+]?\d+)?", reply)
        assert abs(Decimal(value)) in [Decimal(number.replace(",", "")) for number in digits]


@settings(derandomize=True, max_examples=400)
@given(
    parts=st.lists(
        PARTS | st.sampled_from(["VERDICT ", "{code}", ": CORRECT", ": INCORRECT", "\n", "or\n"]), max_size=8
    )
)
def test_fuzz_verdicts(parts):
    """A verdict needs the code, and its word on the same line; two different ones decide nothing."""
    code = code_of("q", ["7"], "8")
    reply = "".join(parts).replace("{code}", code)
    decision = read_verdict(reply, "stop", "q", ["7"], "8")
    assert bool(decision.reason) == (decision.verdict is Verdict.UNDECIDED)
    if decision.verdict is not Verdict.UNDECIDED:
        word = "CORRECT" if decision.verdict is Verdict.RIGHT else "INCORRECT"
        assert re.search(rf"VERDICT\W+{code}\W+{word}\b", reply)
