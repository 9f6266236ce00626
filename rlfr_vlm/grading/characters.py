"""Characters that NFKC would replace by something else, or that have a LaTeX name."""

import re
import unicodedata

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉ₙ]+")
VULGAR = {c: " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
# Without Ω and μ, which are units in most answers.
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Sigma Phi Psi phi epsilon"
)
GREEK = {
    character: f"\\{name} "
    for character, name in zip(
        "αβγδεζηθικλνξρστυφχψωΓΔΘΛΞΣΦΨϕϵ",
        _GREEK_NAMES.split(),
        strict=True,
    )
}
SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "°": r"^\circ ",
    "º": r"^\circ ", "˚": r"^\circ ", "∪": r"\cup ", "∩": r"\cap ", "±": r"\pm ", "∓": r"\mp ", "∅": r"\emptyset ",
    "∈": r"\in ", "∖": r"\setminus ", "∠": r"\angle ", "≈": r"\approx ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}",
    "⁄": "/", "∕": "/", "、": ",", "。": ".", "；": ";", "％": "%", "“": '"', "”": '"', "’": "'", "‘": "'", "′": "'",
    "″": "''", "‰": r"\permil ", "\u200b": "", "\ufeff": "",
} | VULGAR | GREEK  # fmt: skip
