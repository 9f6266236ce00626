"""Read numbers with optional percent signs, units and currencies as exact fractions."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from rlfr_vlm.grading.normalise import compact, strip_ends, unwrap
from rlfr_vlm.grading.separators import is_one_number
from rlfr_vlm.grading.units import GENERIC, unit_name

NO_SEPARATORS = str.maketrans("", "", ", ")
MULTIPLIERS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip
MAX_LENGTH = 120  # characters; longer text is not read as a number
MAX_EXPONENT = 400
ROUNDED_PLACES = 6  # decimal places from which a number may be a rounded non-terminating decimal

SIGN = r"(?P<sign>[+-]?)"
PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?![\d/])|\d+\.?\d*|\.\d+)"
POWER = r"(?:\\times|\\cdot|\*|x)10\^(?:\{(?P<braced>[+-]?\d+)\}|(?P<bare>[+-]?\d+))"
NUMBER = re.compile(
    SIGN
    + r"(?:(?P<integer>\d+)(?:\s+|(?=\\frac))(?:(?P<mixed_top>\d+)/(?P<mixed_bottom>\d+)"
    + r"|\\frac\{(?P<mixed_latex_top>\d+)\}\{(?P<mixed_latex_bottom>\d+)\})"
    + r"|\\frac\{(?P<inner>-?)(?P<latex_top>\d+)\}\{(?P<latex_bottom>\d+)\}"
    + rf"|(?P<top>{PLAIN})/(?P<bottom>\d+)"
    + r"|10\^(?:\{(?P<ten_braced>[+-]?\d+)\}|(?P<ten_bare>[+-]?\d+))"
    + rf"|(?P<plain>{PLAIN})(?:[eE](?P<exponent>[+-]?\d+)|{POWER})?)"
)
REPEATING = re.compile(r"^(?P<sign>-?)(?P<integer>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\{?(?P<period>\d+)\}?$")
ORDINAL = re.compile(
    r"^(\d+)\s*(?:\^\s*)?(?:\{\s*)?(?:\\(?:text|mathrm|textrm)\s*\{\s*)?(st|nd|rd|th)(?![a-zA-Z])[\s}]*"
)
NOUN_IN_PARENTHESES = re.compile(r"(?<=\d)\s*\([A-Za-z][A-Za-z .-]*[A-Za-z]\)$")  # `15 (books)`
CURRENCIES = {"$": "usd", "US$": "usd", "€": "eur", "£": "gbp", "¥": "cny", "₹": "inr", "₩": "krw"}
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
NUMBER_WORDS = {word: number for number, word in enumerate(WORDS.split())}


@dataclass(frozen=True)
class Quantity:
    """A number with its unit.

    Attributes:
        value: the exact value.
        unit: the canonical unit, "%" for percent; None without a unit.
        places: decimal places as written.
        step: one unit in the last place, if the number is written with a decimal point; else None.
    """

    value: Fraction
    unit: str | None = None
    places: int = 0
    step: Fraction | None = None

    @property
    def counts_things(self) -> bool:
        """Return whether the unit is a counted thing, such as apples, not a unit of measurement."""
        return self.unit is not None and (self.unit.startswith(GENERIC) or self.unit == "unit")


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    r"""Read a number with an optional unit from normalised text; None for any other text.

    >>> read_quantity(r"-1\frac{1}{2}").value, read_quantity("1,200 cm")
    (Fraction(-3, 2), Quantity(value=Fraction(1200, 1), unit='cm', places=0, step=None))
    """
    if len(text) > MAX_LENGTH or not is_one_number(text):
        return None
    if (ordinal := ORDINAL.match(text)) and _has_its_ending(ordinal):
        text = ordinal[1] + text[ordinal.end() :]
    text = NOUN_IN_PARENTHESES.sub("", text)
    body, unit = compact(text), None
    if repeating := REPEATING.match(body):
        return Quantity(_repeating(repeating))
    if body.lower() in NUMBER_WORDS:
        return Quantity(Fraction(NUMBER_WORDS[body.lower()]))
    for mark, name in CURRENCIES.items():
        for sign in ("", "-", "+"):
            if body.startswith(sign + mark):
                body, unit = sign + body[len(sign + mark) :].strip(), name
    match = NUMBER.match(body)
    if match is None:
        return None
    value = _value(match)
    if value is None:
        return None
    rest = body[match.end() :]
    if rest in MULTIPLIERS:
        return Quantity(value * MULTIPLIERS[rest], unit)
    if rest:
        unwrapped = strip_ends(unwrap(text))
        tail = _tail(unwrapped, rest)
        tail_unit = unit_name(tail, spaced=tail != tail.lstrip() or unwrapped != strip_ends(text))
        if tail_unit is None or (unit is not None and tail_unit != unit):
            return None
        unit = tail_unit
    return Quantity(value, unit, _places(match["plain"]), _step(match))


def _has_its_ending(ordinal: re.Match[str]) -> bool:
    """Return whether a number has the ending of its ordinal: 1st, 2nd, 3rd, 11th."""
    number = int(ordinal[1])
    endings = {1: "st", 2: "nd", 3: "rd"}
    return ordinal[2] == ("th" if number % 100 in (11, 12, 13) else endings.get(number % 10, "th"))


def _tail(text: str, rest: str) -> str:
    """Return the end of the text that equals `rest` up to spaces, with its spaces and one space before it."""
    remaining = len(rest.replace(" ", ""))
    position = len(text)
    while remaining and position:
        position -= 1
        remaining -= text[position] != " "
    return text[position - 1 :] if position and text[position - 1] == " " else text[position:]


def _repeating(match: re.Match[str]) -> Fraction:
    """Return the value of a repeating decimal: 0.1\\overline{6} = 1/10 + 6/90."""
    scale = 10 ** len(match["fixed"])
    fixed = Fraction(int((match["integer"] or "0") + match["fixed"]), scale)
    value = fixed + Fraction(int(match["period"]), scale * (10 ** len(match["period"]) - 1))
    return -value if match["sign"] else value


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the value of a match of `NUMBER`; None for a zero denominator or a huge exponent."""
    sign = -1 if match["sign"] == "-" else 1
    if match["integer"] is not None:
        top = int(match["mixed_top"] or match["mixed_latex_top"])
        bottom = int(match["mixed_bottom"] or match["mixed_latex_bottom"])
        return sign * (int(match["integer"]) + Fraction(top, bottom)) if bottom else None
    if match["latex_top"] is not None:
        bottom = int(match["latex_bottom"])
        inner = -1 if match["inner"] else 1
        return sign * inner * Fraction(int(match["latex_top"]), bottom) if bottom else None
    if match["top"] is not None:
        bottom = int(match["bottom"])
        return sign * Fraction(Decimal(match["top"].translate(NO_SEPARATORS))) / bottom if bottom else None
    exponents = (match[group] for group in ("exponent", "braced", "bare", "ten_braced", "ten_bare"))
    exponent = int(next((text for text in exponents if text), 0))
    if abs(exponent) > MAX_EXPONENT:
        return None
    mantissa = Decimal(match["plain"].translate(NO_SEPARATORS)) if match["plain"] else Decimal(1)
    return sign * Fraction(mantissa) * Fraction(10) ** exponent


def _step(match: re.Match[str]) -> Fraction | None:
    places = _places(match["plain"])
    exponents = (match[group] for group in ("exponent", "braced", "bare"))
    return Fraction(10) ** (int(next((text for text in exponents if text), 0)) - places) if places else None


def _places(plain: str | None) -> int:
    return len(plain.split(".")[1]) if plain and "." in plain else 0


def mentions(text: str, quantity: Quantity) -> bool:
    """Return whether a number in the text has the quantity's absolute value, even if the text cannot be parsed."""
    numbers = (read_quantity(match[0]) for match in re.finditer(r"-?\d[\d,]*\.?\d*(?:/\d+)?", text))
    return any(number is not None and abs(number.value) == abs(quantity.value) for number in numbers)


def same_value(gold: Quantity, answer: Quantity, tolerance: float = 0.0) -> bool:
    """Return whether two values are equal: exactly, within the relative `tolerance`, or as a rounded decimal."""
    factors = _percent_factors(gold, answer)
    return any(_is_close(gold.value * factor, answer.value, gold, answer, tolerance) for factor in factors)


def may_be_rounded(gold: Quantity, answer: Quantity) -> bool:
    """Return whether the gold is a decimal that an exact answer, such as a fraction, rounds to."""
    return gold.step is not None and answer.step is None and abs(gold.value - answer.value) <= gold.step / 2


def _percent_factors(gold: Quantity, answer: Quantity) -> list[Fraction]:
    """Return the factors that gold may be multiplied by: compared with a bare number, 50 % is both 50 and 0.5."""
    if gold.unit == "%" and answer.unit is None:
        return [Fraction(1), Fraction(1, 100)]
    if gold.unit is None and answer.unit == "%":
        return [Fraction(1), Fraction(100)]
    return [Fraction(1)]


def _is_close(
    gold_value: Fraction, answer_value: Fraction, gold: Quantity, answer: Quantity, tolerance: float
) -> bool:
    difference = abs(gold_value - answer_value)
    if difference == 0 or (tolerance and difference <= Fraction(tolerance) * abs(gold_value)):
        return True
    return _is_rounded(answer_value, gold_value, answer.places) or _is_rounded(gold_value, answer_value, gold.places)


def _is_rounded(decimal: Fraction, exact: Fraction, places: int) -> bool:
    """Return whether `decimal` is the non-terminating decimal `exact`, rounded or truncated to many places."""
    non_terminating = set(_prime_factors(exact.denominator)) - {2, 5}
    return places >= ROUNDED_PLACES and bool(non_terminating) and abs(decimal - exact) < Fraction(1, 10**places)


def _prime_factors(number: int) -> list[int]:
    """Return the factors 2 and 5, followed by the rest of the number if it is above 1."""
    factors = []
    for prime in (2, 5):
        while number % prime == 0:
            number //= prime
            factors.append(prime)
    return [*factors, number] if number > 1 else factors
