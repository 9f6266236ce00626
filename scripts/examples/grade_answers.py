"""Grade responses: right, wrong, or undecided with the reason.

python scripts/examples/grade_answers.py
"""

from rlfr_vlm import grade

if __name__ == "__main__":  # the grader starts worker processes
    for gold, response in [
        (r"\sqrt{12}", r"The side is \boxed{2\sqrt{3}}."),
        ("1/2", r"\boxed{0.5}"),
        ("B", "The answer is (C)."),
        ("a dog", r"\boxed{a cat}"),
        ("7", "I do not know."),
    ]:
        result = grade(gold=gold, response=response)
        print(f"gold {gold!r}, answer {result.extracted!r}: {result.verdict.value} {result.reason or result.path}")
