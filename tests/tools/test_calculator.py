"""The calculator: exact arithmetic, and nothing but arithmetic."""

import pytest

from rlfr_vlm.tools import calculator


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("4 * 9", "36"),
        ("(3 + 4) * 12 - 1", "83"),
        ("0.1 + 0.2", "0.3"),  # exact, unlike floating point
        ("1 / 3", "0.3333333333"),
        ("-2 ** 2", "-4"),
        ("2 ** -2", "0.25"),
        (" 7 ", "7"),
        ("1 / 3 * 3", "1"),
    ],
)
def test_results(expression, result):
    assert calculator(expression) == result


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1 / 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("2 ** 101", "at most 100"),
        ("10 ** 99 * 100", "too large"),
        ("2 ** 0.5", "must be whole"),
        ("__import__('os').system('true')", "no arithmetic"),
        ("'a' * 3", "no arithmetic"),
        ("True + 1", "no arithmetic"),
        ("x + 1", "no arithmetic"),
        ("7 // 2", "no arithmetic"),
        ("1 +", "no arithmetic expression"),
        ("", "no arithmetic expression"),
        ("1" * 201, "201 characters"),
        ("(" * 100 + "1" + ")" * 99, "no arithmetic expression"),
        ("9" * 150, "too large"),
    ],
)
def test_what_is_no_arithmetic_is_refused(expression, message):
    with pytest.raises(ValueError, match=message):
        calculator(expression)
