"""Datasheet peaks of graphics cards: dense bfloat16 matrix products, without sparsity, in FLOP/s.

The first entry whose words all occur in the card's name counts. Sources: NVIDIA's datasheets of each card.
"""

TERA = 1e12
BF16_PEAKS = (
    (("H200",), 989.0 * TERA),
    (("H100", "PCIe"), 756.0 * TERA),
    (("H100", "NVL"), 835.0 * TERA),
    (("H100",), 989.0 * TERA),  # SXM: "NVIDIA H100 80GB HBM3"
    (("A100",), 312.0 * TERA),
    (("A10G",), 70.0 * TERA),
    (("A10",), 125.0 * TERA),
    (("L40S",), 362.0 * TERA),
    (("L4",), 121.0 * TERA),
)


def bf16_peak(card: str) -> float | None:
    """Peak of a card by the name that the driver gives; None for an unknown card.

    >>> bf16_peak("NVIDIA H100 80GB HBM3"), bf16_peak("NVIDIA H100 PCIe"), bf16_peak("NVIDIA A100-SXM4-80GB")
    (989000000000000.0, 756000000000000.0, 312000000000000.0)
    >>> bf16_peak("Another Card 9000") is None
    True
    """
    words = card.replace("-", " ").split()
    return next((peak for needed, peak in BF16_PEAKS if all(word in words for word in needed)), None)
