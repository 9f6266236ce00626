"""Units behind a number: which text is one, and which two are the same."""

import re

# Spellings of one unit. Names that are also single letters need a space or \\text before them to count as units.
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
    "degF": r"^\circF", "%": "percent 百分", "usd": "dollar dollars USD $ 美元", "cent": "cents ¢",
    "eur": "euro euros EUR €", "gbp": "GBP £", "cny": "yuan RMB CNY ¥ 元", "unit": "units 单位",
}  # fmt: skip
NAMES = {spelling: name for name, others in SPELLINGS.items() for spelling in (name, *others.split())}
ADJECTIVES = re.compile(r"^(square|cubic|平方|立方)")
FACTOR = re.compile(r"(?P<name>[A-Za-zµμΩÅ\u4e00-\u9fff$€£¥¢%]+|\^\\circ[CF]?)(?:\^?\{?(?P<power>-?\d)\}?)?")
# Words that join two answers, continue a sentence or change the number: what follows a number is then no unit.
NO_UNITS = frozenset(
    [
        *("and", "or", "not", "if", "because", "since", "to", "is", "are", "the", "of", "for", "as", "with", "than"),
        *("then", "but", "so", "which", "when", "where", "by", "at", "from", "mod", "times", "plus", "minus", "over"),
        *("sqrt", "more", "less", "half", "halves", "third", "thirds", "quarter", "quarters", "fourths", "fifths"),
        *(
            "tenths",
            "hundredths",
            "squared",
            "cubed",
            "factorial",
            "million",
            "billion",
            "thousand",
            "hundred",
            "dozen",
        ),
        *(
            "pairs",
            "twice",
            "double",
            "wrong",
            "right",
            "exactly",
            "about",
            "approximately",
            "sin",
            "cos",
            "tan",
            "log",
        ),
        *("exp", "alpha", "beta", "gamma", "theta", "lambda", "sigma", "omega", "possible", "impossible", "per"),
    ]
)
GENERIC = "thing:"  # apples, people, 个: a counted thing, by its own name
MEASURE_WORDS = "个只条本张人名位块件次种颗棵头匹辆支枝朵座间层页岁题分组步枚粒串瓶杯碗盒箱袋"


def unit_name(tail: str, *, spaced: bool) -> str | None:
    r"""A canonical name for the unit in the end of a text; None when it is no unit.

    Args:
        tail: what stands behind the number, spaces included.
        spaced: it stands apart from its number, by a space or in a wrapper such as \text.

    >>> unit_name(" centimeters", spaced=True), unit_name("cm^2", spaced=False), unit_name("m per s", spaced=True)
    ('cm', 'cm^2', 'm*s^-1')
    >>> unit_name("x", spaced=True), unit_name("m", spaced=False), unit_name("or more", spaced=True)
    (None, None, None)
    """
    text = " ".join(tail.split()).removesuffix(".")
    if text == "%" or text.replace("\\", "") == "%":
        return "%"
    exponent = 1
    while found := ADJECTIVES.match(text):
        exponent = 2 if found[1] in ("square", "平方") else 3
        text = text[found.end() :].strip()
    factors = _factors(text, spaced)
    if factors is not None:
        return "*".join(sorted(name if p * exponent == 1 else f"{name}^{p * exponent}" for name, p in factors.items()))
    if spaced and re.fullmatch(r"[A-Za-z-]{3,30}", text) and text.lower() not in NO_UNITS:
        return GENERIC + text.lower().removesuffix("s")
    return GENERIC + text if len(text) == 1 and text in MEASURE_WORDS else None


def _factors(text: str, spaced: bool) -> dict[str, int] | None:
    """Known units and their powers, from text such as `m/s^2`, `kg m` or `miles per hour`."""
    powers: dict[str, int] = {}
    sign = 1
    text = re.sub(r"\s*(?:\bper\b|/)\s*", "/", text)
    for number, part in enumerate(re.split(r"(/|\*|\\cdot| )", text)):
        if number % 2:
            sign = -1 if part == "/" or sign < 0 else 1
            continue
        found = FACTOR.fullmatch(part)
        if found is None:
            return None
        spelling = found["name"]
        name = NAMES.get(spelling) or NAMES.get(spelling.lower())
        lone_letter = len(spelling) == 1 and spelling.isascii() and spelling.isalpha()
        if name is None or (lone_letter and not spaced):
            return None
        powers[name] = powers.get(name, 0) + sign * int(found["power"] or 1)
    return {name: power for name, power in powers.items() if power}


WRAPPED_UNIT = re.compile(
    r"^(.+?)\s*\\(?:text|mathrm|rm|textrm|mbox)\s*\{\s*~?([^{}]+?)\s*\}\s*(\^\{?-?\d\}?)?$", re.DOTALL
)


def split_unit(text: str) -> tuple[str, str | None]:
    r"""An expression and the unit that is wrapped behind it, as in `2\sqrt{3}\text{ cm}`; None without one."""
    found = WRAPPED_UNIT.match(text)
    name = unit_name(found[2] + (found[3] or ""), spaced=True) if found else None
    return (found[1].strip(), name) if found and name else (text, None)
