"""Result of a check: one line, its status, the exit code."""

import pytest

from rlfr_vlm.doctor import checks
from rlfr_vlm.doctor.checks import FAIL, OK, WARN, Check


def test_a_check_is_one_line_with_what_to_do():
    check = checks.fail("port 80", "in use\nby \x1b[31mx", "choose another")
    assert check.line() == "FAIL  port 80: in use by \\x1b[31mx -> choose another"
    assert checks.ok("memory", "9 GB").at("rank 1 on b").line() == "ok    memory [rank 1 on b]: 9 GB"
    assert checks.warn("a", "b", "c").line(colour=True) == "\x1b[33mwarn\x1b[0m  a: b -> c"


def test_what_is_not_ok_needs_a_remedy():
    for status, remedy in ((FAIL, ""), (WARN, ""), (OK, "x"), ("bad", "x")):
        with pytest.raises(ValueError, match="needs a remedy"):
            Check("topic", status, "found", remedy)


def test_only_a_failure_makes_the_exit_code_2():
    good, poor, bad = checks.ok("a", "b"), checks.warn("a", "b", "c"), checks.fail("a", "b", "c")
    assert [checks.exit_code(found) for found in ([], [good, poor], [good, bad, good])] == [0, 0, 2]
    assert checks.summary([good, poor, bad, good]) == "2 ok, 1 warn, 1 FAIL"
