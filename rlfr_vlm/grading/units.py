"""Recognise units of measurement after a number and map their spellings to canonical names."""

import re

# Other spellings of each unit. Single-letter names only count as units after a space or in \\text.
SPELLINGS = {
    "m": "meter meters metre metres 米", "cm": "centimeter centimeters centimetre centimetres 厘米",
    "mm": "millimeter millimeters millimetre millimetres 毫米", "nm": "nanometer nanometers",
    "km": "kilometer kilometers kilometre kilometres 千米 公里", "in": "inch inches", "ft": "foot feet",
    "mi": "mile miles", "yd": "yard yards", "g": "gram grams 克", "kg": "kilogram kilograms 千克 公斤",
    "mg": "milligram milligrams", "lb": "lbs pound pounds", "t": "ton tons tonne tonnes 吨", "oz": "ounce ounces",
    "s": "sec secs second seconds 秒", "min": "mins minute minutes 分钟", "h": "hr hrs hour hours 小时",
    "day": "days 天",
    "week": "weeks 周", "month": "months 个月", "year": "years yr yrs 年", "L": "l liter liters litre litres 升",
    "mL": "ml milliliter milliliters 毫升", "mph": "", "rpm": "", "J": "joule joules", "kJ": "", "N": "newton newtons",
    "W": "watt watts", "kW": "", "Hz": "hertz", "V": "volt volts", "A": "amp amps ampere amperes", "eV": "", "keV": "",
    "MeV": "", "K": "kelvin kelvins", "Pa": "pascal pascals", "mol": "mole moles", "cal": "calorie calories",
    "kcal": "", "rad": "radian radians", "Ω": "ohm ohms", "deg": r"degree degrees ^\circ 度", "degC": r"^\circC",
    "degF": r"^\circF", "%": "percent percentage pct 百分", "usd": "dollar dollars USD $ 美元", "cent": "cents ¢",
    "eur": "euro euros EUR €", "gbp": "GBP £", "cny": "yuan RMB CNY ¥ 元", "unit": "units 单位",
}  # fmt: skip
NAMES = {spelling: name for name, spellings in SPELLINGS.items() for spelling in (name, *spellings.split())}
ADJECTIVES = re.compile(r"^(square|cubic|平方|立方)")
FACTOR = re.compile(r"(?P<name>[A-Za-zµμΩÅ\u4e00-\u9fff$€£¥¢%]+|\^\\circ[CF]?)(?:\^?\{?(?P<power>-?\d)\}?)?")
# Words that are not units after a number: they join two answers, continue a sentence or change the number.
NO_UNITS = frozenset(
    [
        *("and", "or", "not", "if", "because", "since", "to", "is", "are", "the", "of", "for", "as", "with", "than"),
        *("then", "but", "so", "which", "when", "where", "by", "at", "from", "mod", "times", "plus", "minus", "over"),
        *("sqrt", "more", "less", "half", "halves", "third", "thirds", "quarter", "quarters", "fourths", "fifths"),
        *("tenths", "hundredths", "squared", "cubed", "factorial", "million", "billion", "thousand", "hundred"),
        *("dozen", "pairs", "twice", "double", "wrong", "right", "exactly", "about", "approximately"),
        *("sin", "cos", "tan", "log"),
        *("exp", "alpha", "beta", "gamma", "theta", "lambda", "sigma", "omega", "possible", "impossible", "per"),
    ]
)
GENERIC = "thing:"  # prefix of counted things, such as apples, people or 个
ADJECTIVE = "possible"  # a unit only before a noun: `10 possible values`
MAX_WORDS = 3  # of a counted thing
MEASURE_WORDS = "个只条本张人名位块件次种颗棵头匹辆支枝朵座间层页岁题分组步枚粒串瓶杯碗盒箱袋"


def unit_name(tail: str, *, spaced: bool) -> str | None:
    r"""Return the canonical name of the unit after a number; None if the text is not a unit.

    Args:
        tail: the text after the number, including spaces.
        spaced: whether the text is separated from its number by a space or a wrapper such as \text.

    >>> unit_name(" centimeters", spaced=True), unit_name("cm^2", spaced=False), unit_name("m per s", spaced=True)
    ('cm', 'cm^2', 'm*s^-1')
    >>> unit_name("x", spaced=True), unit_name("m", spaced=False), unit_name("or more", spaced=True)
    (None, None, None)
    """
    text = " ".join(tail.split()).removesuffix(".")
    if text == "%" or text.replace("\\", "") == "%":
        return "%"
    exponent = 1
    while match := ADJECTIVES.match(text):
        exponent = 2 if match[1] in ("square", "平方") else 3
        text = text[match.end() :].strip()
    factors = _factors(text, spaced)
    if factors is not None:
        return "*".join(sorted(name if p * exponent == 1 else f"{name}^{p * exponent}" for name, p in factors.items()))
    if spaced and _counts_things(text):
        return GENERIC + text.lower().removesuffix("s")
    return GENERIC + text if len(text) == 1 and text in MEASURE_WORDS else None


def _counts_things(text: str) -> bool:
    """Return whether the text is a noun with at most two adjectives, such as `small cubes`."""
    words = text.lower().split()
    return (
        1 <= len(words) <= MAX_WORDS
        and re.fullmatch(r"[a-z-]{3,30}", words[-1]) is not None
        and all(
            re.fullmatch(r"[a-z-]{2,30}", word) and word not in NO_UNITS for word in words[words[0] == ADJECTIVE :]
        )
    )


def _factors(text: str, spaced: bool) -> dict[str, int] | None:
    """Return known units and their powers in text such as `m/s^2`, `kg m` or `miles per hour`; None for other text."""
    powers: dict[str, int] = {}
    sign = 1
    text = re.sub(r"\s*(?:\bper\b|/)\s*", "/", text)
    for index, part in enumerate(re.split(r"(/|\*|\\cdot| )", text)):
        if index % 2:  # a separator
            sign = -1 if part == "/" or sign < 0 else 1
            continue
        match = FACTOR.fullmatch(part)
        if match is None:
            return None
        spelling = match["name"]
        name = NAMES.get(spelling) or NAMES.get(spelling.lower())
        lone_letter = len(spelling) == 1 and spelling.isascii() and spelling.isalpha()
        if name is None or (lone_letter and not spaced):
            return None
        powers[name] = powers.get(name, 0) + sign * int(match["power"] or 1)
    return {name: power for name, power in powers.items() if power}


WRAPPED_UNIT = re.compile(
    r"^(.+?)\s*\\(?:text|mathrm|rm|textrm|textnormal|mbox)\s*\{\s*~?([^{}]+?)\s*\}\s*(\^\{?-?\d\}?)?$", re.DOTALL
)
# After a number, a brace, a parenthesis or pi: `2\sqrt3 cm`, `36\pi square units`.
PRODUCTS = ("mg", "eV", "ft", "nm", "mL", "in", "min")  # that bare letters after an expression often are
BARE_UNIT = re.compile(r"^(.*(?:[\d})]|\\pi))(\s*[A-Za-zµμΩ][A-Za-zµμΩ /^{}\d-]*)$", re.DOTALL)


def split_unit(text: str) -> tuple[str, str | None]:
    r"""Split an expression from a unit after it, as in `2\sqrt{3}\text{ cm}` or `2\sqrt{3} cm`; the unit may be None.

    >>> split_unit(r"2\sqrt{3}\text{ cm}"), split_unit(r"36\pi square units"), split_unit(r"\frac{1}{2} x")
    (('2\\sqrt{3}', 'cm'), ('36\\pi', 'unit^2'), ('\\frac{1}{2} x', None))
    """
    match = WRAPPED_UNIT.match(text)
    name = unit_name(match[2] + (match[3] or ""), spaced=True) if match else None
    if match and name:
        return match[1].strip(), name
    bare = BARE_UNIT.match(text)
    if bare and len(bare[2].strip()) > 1:  # a single letter may be a variable
        name = unit_name(bare[2], spaced=bare[2][0] == " ")
        if name:
            return bare[1].strip(), name
    return text, None
