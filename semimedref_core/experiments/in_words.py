"""Numbers of the results in words: shares, differences, seeds and metrics."""

from __future__ import annotations

METRIC_WORDS = {"dice_image": "per image", "dice_micro": "micro"}


def percent(ratio: float) -> str:
    """A share as readable text: ``1 %``."""
    return f"{100 * ratio:g} %"


def signed(share: float) -> str:
    """A difference in points, ``+0.8``; ``0.0`` has no sign."""
    return f"{100 * share:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")


def seeds_in_words(count: int) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} seed{'' if count == 1 else 's'}"
