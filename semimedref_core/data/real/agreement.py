"""Measures how well reports and masks agree: which half of the image "left" means, and what the count word counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from semimedref_core.data.pairs import Pairs
from semimedref_core.reports import SIDES, Report

LATERAL = "vp-ll"  # in the file names of lateral views, where left and right mean nothing
_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


@dataclass
class Share:
    """A part of a total; ``part`` is a count or a sum of fractions."""

    part: float = 0
    total: int = 0

    def add(self, part: float) -> None:
        self.part += part
        self.total += 1

    @property
    def percent(self) -> str:
        return f"{100 * self.part / self.total:.2f} %" if self.total else "none"

    def __str__(self) -> str:
        return f"{self.part:.0f} of {self.total} ({self.percent})"


@dataclass(frozen=True)
class Lesions:
    """The lesions of a mask: pixels in the image's left and right half, and the number of connected lesions
    (8-connected)."""

    pixels: tuple[int, int]
    count: int

    @classmethod
    def of(cls, mask: np.ndarray) -> Lesions:
        """The lesions of a mask ``[H, W]``, nonzero where the lesion is."""
        middle = mask.shape[1] // 2
        pixels = int(np.count_nonzero(mask[:, :middle])), int(np.count_nonzero(mask[:, middle:]))
        return cls(pixels, ndimage.label(mask, _EIGHT_NEIGHBOURS)[1])


@dataclass(kw_only=True)
class Agreement:
    """Compares reports with masks, pair by pair.

    Attributes:
        on_side: for one-sided texts, the share of a mask's lesion pixels in the named half of the image, summed over
            masks. Keys are ``left``, ``right``, and ``lateral`` (lateral views of both sides).
        off_side: frontal images with a one-sided text and most of the lesion in the other half.
        counts: texts whose count word is the number of connected lesions.
    """

    on_side: dict[str, Share] = field(default_factory=lambda: {key: Share() for key in (*SIDES, "lateral")})
    off_side: list[str] = field(default_factory=list)
    counts: Share = field(default_factory=Share)

    def add(self, name: str, report: Report, lesions: Lesions) -> None:
        """Adds one pair. File names show lateral views."""
        self.counts.add(report.lesions == lesions.count)
        if len(report.sides) == 1 and lesions.count:
            (side,) = report.sides
            share = lesions.pixels[SIDES.index(side)] / sum(lesions.pixels)
            lateral = LATERAL in name.lower()
            self.on_side["lateral" if lateral else side].add(share)
            if share < 0.5 and not lateral:
                self.off_side.append(name)

    @property
    def mirrored(self) -> bool:
        """Whether more frontal views contradict the side that their text names than agree with it."""
        return 2 * len(self.off_side) > sum(self.on_side[side].total for side in SIDES)

    def lines(self) -> list[str]:
        """The findings as lines of text."""
        lines = []
        for side, half in zip((*SIDES, "lateral"), (*SIDES, "named"), strict=True):
            texts = f"one-sided texts of lateral views ({LATERAL})" if side == "lateral" else f"{side}-only texts"
            share = self.on_side[side]
            if share.total or side != "lateral":
                lines.append(f"{texts}: {share.percent} of the lesion in the {half} half (mean of {share.total})")
        if self.off_side:
            lines.append(f"one-sided texts with most of the lesion in the other half: {len(self.off_side)}")
            lines += [] if self.mirrored else [f"  {name}" for name in self.off_side]
        return [*lines, f"count word = connected lesions in the mask: {self.counts}"]


def agreement(pairs: Pairs) -> Agreement:
    """Compares all pairs with their masks, at the size of the pairs. In small masks, lesions may touch that are
    separate at full size."""
    found = Agreement()
    for name, report, mask in zip(pairs.names, pairs.reports, pairs.masks, strict=True):
        found.add(name, report, Lesions.of(mask))
    return found
