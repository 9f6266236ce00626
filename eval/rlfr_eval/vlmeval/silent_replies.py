"""Recognise a judge's reply that VLMEvalKit may have passed over in silence.

Where VLMEvalKit cannot read a reply, some of its evaluations ask again, and others silently take it for a wrong
answer. A reply that scores as nonsense does may therefore not have been read. It counts only if it is plain: it ends
in a word that says no, or in a form that the prompt offers, or it quotes the response, as an extraction does.
"""

import re

NONSENSE = "qxzv wkpj"
LONGEST_QUOTE = 12  # words
AFFIRMATIVE = frozenset(["yes", "true", "correct", "right", "match", "matches"])
NEGATIVE = frozenset(["no", "false", "incorrect", "wrong", "0"])
OFFERED = re.compile(r"\[\[?([A-Za-z]{2,12})\]\]?|(?<=['\"`])([\w.]{1,12})(?=['\"`])|\b([A-Z]{1,12})\b")
LABEL = re.compile(r"^[^:：=]{0,40}[:：=]\s*(?=\S)")  # as in `Judgement: 0`
WORD = re.compile(r"[^\W_]+(?:\.\d+)?")


def is_plain(reply: str, prompt: str, response: str) -> bool:
    """Return whether a reply that scored as nonsense does can only mean that score.

    An affirmative line cannot, unless a line beside it says no, nor can a number above 0: they would have scored.

    >>> is_plain("[NO]", "Conclude with [YES] or [NO].", ""), is_plain("Hardly.", "Conclude with [YES] or [NO].", "")
    (True, False)
    >>> is_plain("a blue car", "Extract the answer: I see a blue car", "I see a blue car.")
    True
    """
    lines = [words for line in reply.splitlines() if (words := _words(LABEL.sub("", line.strip())))]
    single = [words[0] for words in lines if len(words) == 1]
    affirms = not AFFIRMATIVE.isdisjoint(single)
    if not lines or (affirms and (len(single) < len(lines) or NEGATIVE.isdisjoint(single))):
        return False
    offered = {word.casefold() for found in OFFERED.findall(prompt) for word in found if word}
    if len(lines[-1]) == 1 and lines[-1][0] in NEGATIVE | {word for word in offered if not _is_number(word)}:
        return True
    words = _words(reply)
    return len(words) <= LONGEST_QUOTE and f" {' '.join(words)} " in f" {' '.join(_words(response))} "


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
