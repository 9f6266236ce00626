"""Vectors in the notations of an answer: columns, rows, angle brackets, and tuples."""

import re

MATRIX = re.compile(r"^\\begin\{(?:[pb]?matrix|array)\}(?:\{[clr|]+\})?(.*)\\end\{(?:[pb]?matrix|array)\}$", re.DOTALL)
ROW_END = re.compile(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-zA-Z])")


def column_entries(text: str) -> tuple[list[str], bool] | None:
    r"""Return the entries of a matrix with one column or row, and whether it is a column; None for other text.

    >>> column_entries(r"\begin{pmatrix}1\\2\end{pmatrix}"), column_entries(r"\begin{pmatrix}1&2\end{pmatrix}")
    ((['1', '2'], True), (['1', '2'], False))
    """
    text = text.strip()
    for opening, closing in (("(", ")"), ("[", "]")):
        if text.startswith(opening + "\\begin{") and text.endswith("}" + closing):
            text = text[1:-1].strip()
    match = MATRIX.match(text)
    if match is None or "\\begin" in match[1]:
        return None
    rows = [row.split("&") for row in ROW_END.split(match[1].strip().removesuffix("\\\\")) if row.strip()]
    if len(rows) > 1 and all(len(row) == 1 for row in rows):
        return [row[0].strip() for row in rows], True
    if len(rows) == 1 and len(rows[0]) > 1:
        return [entry.strip() for entry in rows[0]], False
    return None
