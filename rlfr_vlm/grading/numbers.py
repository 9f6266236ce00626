"""Numbers as people write them, with percent signs, units and currencies, as exact fractions."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from rlfr_vlm.grading.normalise import compact, strip_ends, unwrap
from rlfr_vlm.grading.units import GENERIC, unit_name

NO_SEPARATORS = str.maketrans("", "", ", ")
MULTIPLIERS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip
MAX_LENGTH = 120
MAX_EXPONENT = 400
ROUNDED_PLACES = 6  # a decimal with so many places may stand for a number that has no end

SIGN = r"(?P<sign>[+-]?)"
PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?![\d/])|\d+\.?\d*|\.\d+)"
POWER = r"(?:\\times|\\cdot|\*|x)10\^(?:\{(?P<braced>[+-]?\d+)\}|(?P<bare>[+-]?\d+))"
NUMBER = re.compile(
    SIGN
    + r"(?:(?P<whole>\d+)(?:\s+|(?=\\frac))(?:(?P<mixed_top>\d+)/(?P<mixed_bottom>\d+)"
    + r"|\\frac\{(?P<mixed_latex_top>\d+)\}\{(?P<mixed_latex_bottom>\d+)\})"
    + r"|\\frac\{(?P<inner>-?)(?P<latex_top>\d+)\}\{(?P<latex_bottom>\d+)\}"
    + rf"|(?P<top>{PLAIN})/(?P<bottom>\d+)"
    + r"|10\^(?:\{(?P<ten_braced>[+-]?\d+)\}|(?P<ten_bare>[+-]?\d+))"
    + rf"|(?P<plain>{PLAIN})(?:[eE](?P<exponent>[+-]?\d+)|{POWER})?)"
)
REPEATING = re.compile(r"^(?P<sign>-?)(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\{?(?P<again>\d+)\}?$")
CURRENCIES = {"$": "usd", "US$": "usd", "€": "eur", "£": "gbp", "¥": "cny", "₹": "inr", "₩": "krw"}
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
NUMBER_WORDS = {word: number for number, word in enumerate(WORDS.split())}


@dataclass(frozen=True)
class Quantity:
    """An exact value, its unit (None: bare; "%" for percent), and the places after the point as written."""

    value: Fraction
    unit: str | None = None
    places: int = 0

    @property
    def counts_things(self) -> bool:
        """Whether the unit is no unit of measurement but a word such as apples."""
        return self.unit is not None and (self.unit.startswith(GENERIC) or self.unit == "unit")


def read_quantity(text: str) -> Quantity | None:
    r"""Read a number with an optional unit from folded text; None when it is anything else.

    >>> read_quantity(r"-1\frac{1}{2}").value, read_quantity("1,200 cm")
    (Fraction(-3, 2), Quantity(value=Fraction(1200, 1), unit='cm', places=0))
    """
    if len(text) > MAX_LENGTH:
        return None
    body, unit = compact(text), None
    if repeating := REPEATING.match(body):
        return Quantity(_repeating(repeating))
    if body.lower() in NUMBER_WORDS:
        return Quantity(Fraction(NUMBER_WORDS[body.lower()]))
    for mark, name in CURRENCIES.items():
        for sign in ("", "-", "+"):
            if body.startswith(sign + mark):
                body, unit = sign + body[len(sign + mark) :].strip(), name
    found = NUMBER.match(body)
    if found is None:
        return None
    value = _value(found)
    if value is None:
        return None
    rest = body[found.end() :]
    if rest in MULTIPLIERS:
        return Quantity(value * MULTIPLIERS[rest], unit)
    if rest:
        spoken = strip_ends(unwrap(text))
        tail = _tail(spoken, rest)
        named = unit_name(tail, spaced=tail != tail.lstrip() or spoken != strip_ends(text))
        if named is None or (unit is not None and named != unit):
            return None
        unit = named
    return Quantity(value, unit, _places(found["plain"]))


def _tail(spoken: str, rest: str) -> str:
    """The end of the text whose letters are `rest`, with its spaces."""
    wanted = len(rest.replace(" ", ""))
    position = len(spoken)
    while wanted and position:
        position -= 1
        wanted -= spoken[position] != " "
    return spoken[position - 1 :] if position and spoken[position - 1] == " " else spoken[position:]


def _repeating(found: re.Match[str]) -> Fraction:
    """0.1\\overline{6} = 1/10 + 6/90."""
    scale = 10 ** len(found["fixed"])
    fixed = Fraction(int((found["whole"] or "0") + found["fixed"]), scale)
    value = fixed + Fraction(int(found["again"]), scale * (10 ** len(found["again"]) - 1))
    return -value if found["sign"] else value


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if found["sign"] == "-" else 1
    if found["whole"] is not None:
        top = int(found["mixed_top"] or found["mixed_latex_top"])
        bottom = int(found["mixed_bottom"] or found["mixed_latex_bottom"])
        return sign * (int(found["whole"]) + Fraction(top, bottom)) if bottom else None
    if found["latex_top"] is not None:
        bottom = int(found["latex_bottom"])
        inner = -1 if found["inner"] else 1
        return sign * inner * Fraction(int(found["latex_top"]), bottom) if bottom else None
    if found["top"] is not None:
        bottom = int(found["bottom"])
        return sign * Fraction(Decimal(found["top"].translate(NO_SEPARATORS))) / bottom if bottom else None
    exponent = int(found["exponent"] or found["braced"] or found["bare"] or found["ten_braced"] or found["ten_bare"]
                   or 0)  # fmt: skip
    if abs(exponent) > MAX_EXPONENT:
        return None
    mantissa = Decimal(found["plain"].translate(NO_SEPARATORS)) if found["plain"] else Decimal(1)
    return sign * Fraction(mantissa) * Fraction(10) ** exponent


def _places(plain: str | None) -> int:
    return len(plain.split(".")[1]) if plain and "." in plain else 0


def mentions(text: str, quantity: Quantity) -> bool:
    """Whether some number in the text has the quantity's value, be the text as unreadable as it may."""
    numbers = (read_quantity(found[0]) for found in re.finditer(r"-?\d[\d,]*\.?\d*(?:/\d+)?", text))
    return any(number is not None and abs(number.value) == abs(quantity.value) for number in numbers)


def same_value(gold: Quantity, answer: Quantity, tolerance: float = 0.0) -> bool:
    """Whether two values agree: exactly, within the relative `tolerance`, or as a rounding of an endless decimal."""
    return any(_agree(gold.value * factor, answer.value, answer, gold, tolerance) for factor in _factors(gold, answer))


def _factors(gold: Quantity, answer: Quantity) -> list[Fraction]:
    """By what gold's value may be multiplied: beside a bare number, 50 % is both 50 and 0.5."""
    if gold.unit == "%" and answer.unit is None:
        return [Fraction(1), Fraction(1, 100)]
    if gold.unit is None and answer.unit == "%":
        return [Fraction(1), Fraction(100)]
    return [Fraction(1)]


def _agree(
    gold: Fraction, value: Fraction, answer_as_written: Quantity, gold_as_written: Quantity, tolerance: float
) -> bool:
    difference = abs(gold - value)
    if difference == 0 or (tolerance and difference <= Fraction(tolerance) * abs(gold)):
        return True
    return _rounds(value, gold, answer_as_written.places) or _rounds(gold, value, gold_as_written.places)


def _rounds(decimal: Fraction, exact: Fraction, places: int) -> bool:
    """Whether a decimal with many places is `exact`, whose own decimals have no end, rounded or cut there."""
    endless = set(_prime_factors(exact.denominator)) - {2, 5}
    return places >= ROUNDED_PLACES and bool(endless) and abs(decimal - exact) < Fraction(1, 10**places)


def _prime_factors(number: int) -> list[int]:
    """2 and 5 taken out; whatever is left stands for the other primes."""
    factors = []
    for prime in (2, 5):
        while number % prime == 0:
            number //= prime
            factors.append(prime)
    return [*factors, number] if number > 1 else factors
