"""Recognise a judge's reply that VLMEvalKit may have passed over in silence.

Where VLMEvalKit cannot read a reply, some of its evaluations ask again, and others silently take it for a wrong
answer. A reply that scores as nonsense does may therefore not have been read. It counts only if it is plain: each of
its lines, or the last one, is one word that the prompt offers, or it quotes the response, as an extraction does.
"""

import re

NONSENSE = "qxzv wkpj"
LONGEST_QUOTE = 12  # words
AFFIRMATIVE = frozenset(["yes", "true", "correct", "right"])
LABEL = re.compile(r"^[^:：=]{0,40}[:：=]\s*(?=\S)")  # as in `Judgement: 0`
WORD = re.compile(r"[^\W_]+(?:\.\d+)?")


def is_plain(reply: str, prompt: str, response: str) -> bool:
    """Return whether a reply that scored as nonsense does can only mean that score.

    An affirmative word cannot: it would have scored.

    >>> is_plain("[NO]", "Conclude with [YES] or [NO].", ""), is_plain("Hardly.", "Conclude with [YES] or [NO].", "")
    (True, False)
    >>> is_plain("a blue car", "Extract the answer: I see a blue car", "I see a blue car.")
    True
    """
    lines = [words for line in reply.splitlines() if (words := _words(LABEL.sub("", line.strip())))]
    if not lines:
        return False
    offered = set(_words(prompt))
    if any(_is_word(words, offered) for words in lines[-1:]) or all(_is_word(words, offered) for words in lines):
        return True
    words = _words(reply)
    return len(words) <= LONGEST_QUOTE and f" {' '.join(words)} " in f" {' '.join(_words(response))} "


def _is_word(words: list[str], offered: set[str]) -> bool:
    return len(words) == 1 and words[0] in offered and words[0] not in AFFIRMATIVE


def _words(text: str) -> list[str]:
    return WORD.findall(text.casefold())
