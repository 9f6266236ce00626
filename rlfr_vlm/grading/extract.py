"""Find the final answer in a response."""

BOX_MARKERS = ("\\boxed{", "\\fbox{")


def last_boxed(text: str) -> str | None:
    """Content of the last balanced `\\boxed{...}` or `\\fbox{...}`; None when there is none.

    >>> last_boxed(r"first \\boxed{1}, then \\boxed{\\frac{1}{2}}")
    '\\\\frac{1}{2}'
    """
    end = len(text)
    while (start := max(text.rfind(marker, 0, end) for marker in BOX_MARKERS)) >= 0:
        content = _balanced(text, text.index("{", start))
        if content is not None:
            return content.strip()
        end = start
    return None


def _balanced(text: str, opening: int) -> str | None:
    depth = 0
    for position in range(opening, len(text)):
        if text[position - 1] == "\\":  # an escaped brace is text
            continue
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return text[opening + 1 : position]
    return None
