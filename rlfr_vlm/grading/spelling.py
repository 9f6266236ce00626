"""Rewrite plain spellings such as `sqrt(3)`, `pi/2`, `x >= 5` and `sin(x)` as LaTeX."""

import re

GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
]
FUNCTIONS = [
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "ln",
    "log",
]
RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "infinity": "infty", "Pi": "pi"}
NAMES = {name: name for name in (*GREEK, *FUNCTIONS, "pi")} | RENAMED
MATH_NAMES = frozenset([*NAMES, "sqrt", "exp", "abs", "cbrt", "inf"])
BEFORE = r"(?<![A-Za-z\\])"
NAME = re.compile(BEFORE + "(" + "|".join(sorted(NAMES, key=lambda name: -len(name))) + r")(?![a-zA-Z])")
ROOT_OF_DIGITS = re.compile(BEFORE + r"sqrt\s*(\d+|[a-zA-Z](?![a-zA-Z]))")
CALL = re.compile(BEFORE + r"(sqrt|cbrt|exp|abs)\s*\(")
WRAPPED = {"sqrt": (r"\sqrt{", "}"), "cbrt": (r"\sqrt[3]{", "}"), "exp": ("e^{", "}"), "abs": ("|", "|")}
EXPONENT = re.compile(r"\^\s*\(")
RELATIONS = (
    (re.compile(r">\s?=|=\s?>(?!\s*$)"), r"\\ge "),
    (re.compile(r"<\s?=|=\s?<"), r"\\le "),
    (re.compile(r"(?<=[\s}])!=|(?<=[a-zA-Z)])\s+!=|/=|<>"), r" \\ne "),
)
REMAINDER = re.compile(r"(?<![\d.^}])(\d{1,18})\s*(?:\\(?:bmod|mod)|mod)(?![a-zA-Z])\s*(\d{1,9})(?![\d.^!])")
MAX_CALLS = 20


def _remainder(match: re.Match[str]) -> str:
    return str(int(match[1]) % int(match[2])) if int(match[2]) else match[0]


def plain_to_latex(text: str) -> str:
    r"""Return the text with plain names and relations as LaTeX.

    >>> plain_to_latex("-1 + sqrt(3)"), plain_to_latex("x >= pi/2"), plain_to_latex("x^(1/2)")
    ('-1 + \\sqrt{3}', 'x \\ge  \\pi /2', 'x^{1/2}')
    """
    for pattern, replacement in RELATIONS:
        text = pattern.sub(replacement, text)
    text = REMAINDER.sub(_remainder, text.replace("**", "^"))
    for _ in range(MAX_CALLS):
        calls = list(CALL.finditer(text))
        if not calls:
            break
        opening = calls[-1].end() - 1  # the last one has no call inside
        closing = closing_parenthesis(text, opening)
        if closing < 0:
            break
        before, after = WRAPPED[calls[-1][1]]
        text = text[: calls[-1].start()] + before + text[opening + 1 : closing] + after + text[closing + 1 :]
    text = ROOT_OF_DIGITS.sub(r"\\sqrt{\1}", text)
    for match in reversed(list(EXPONENT.finditer(text))[:MAX_CALLS]):
        closing = closing_parenthesis(text, match.end() - 1)
        if closing > 0:
            text = f"{text[: match.start()]}^{{{text[match.end() : closing]}}}{text[closing + 1 :]}"
    return NAME.sub(lambda match: f"\\{NAMES[match[1]]} ", text)


def closing_parenthesis(text: str, opening: int) -> int:
    """Return the position of the parenthesis that closes the one at `opening`; -1 if none does."""
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return -1
