"""Where the six zones lie in the image: boxes, grids, and a grid estimated from labelled masks.

Left and right are the image's halves. Upper, middle and lower are horizontal bands; a :class:`Grid` says where they
begin and end. The released code uses equal thirds. On QaTa-COV19 the lesions of "lower" lie around y/H = 0.60, so
thirds miss most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semimedref_core.positions import LUNGS, AnyReport

LEAST_SHOWN = 0.003  # of the image; a smaller piece of lesion in a zone's box belongs to a neighbouring zone


@dataclass(frozen=True)
class Grid:
    """Vertical cuts of the zone grid, as fractions of the image height.

    Attributes:
        cuts: top of upper, upper|middle, middle|lower, bottom of lower; increasing, 0 to 1.

    >>> from semimedref_core import Grid
    >>> Grid((0.0, 0.4, 0.6, 1.0)).boxes(100, 100)[2].tolist()  # lower left: y0, x0, y1, x1
    [60, 0, 100, 50]
    """

    cuts: tuple[float, float, float, float]

    def __post_init__(self):
        if not (len(self.cuts) == 4 and self.cuts[0] >= 0 and self.cuts[3] <= 1 and np.all(np.diff(self.cuts) > 0)):
            raise ValueError(f"grid cuts must be four increasing fractions of the height, got {self.cuts}")

    @property
    def numbers(self) -> list[float]:
        """The cuts as plain numbers, for a record."""
        return list(self.cuts)

    @property
    def swapped(self) -> tuple[int, ...]:
        """For each zone, the zone that it becomes in the mirror image."""
        return LUNGS.swapped

    def boxes(self, height: int, width: int) -> np.ndarray:
        """The boxes of the six zones in pixels, ``[6, 4]`` int64 of (y0, x0, y1, x1), ends exclusive."""
        y = np.rint(np.asarray(self.cuts) * height).astype(np.int64)
        x = np.array([0, width // 2, width])
        return np.array([(y[h], x[s], y[h + 1], x[s + 1]) for s in range(2) for h in range(3)])

    def region(self, zones: Sequence[int], height: int, width: int, margin: float = 0.12) -> np.ndarray:
        """The region where a lesion may lie if a report names these zones: ``[H, W]`` uint8, 1 inside.

        The region is the boxes of the named zones, enlarged. It grows by ``margin`` of the height at the inner cuts, by
        a quarter of that across the midline, and up to the image's edges. On QaTa-COV19 it holds nearly all of a
        lesion.
        """
        y = np.rint(np.array([0, self.cuts[1], self.cuts[2], 1]) * height).astype(np.int64)
        above, over = round(margin * height), round(margin / 4 * width)
        allowed = np.zeros((height, width), np.uint8)
        for k, named in enumerate(zones):
            if named:
                side, band = divmod(k, 3)
                left, right = (0, width // 2 + over) if side == 0 else (max(0, width // 2 - over), width)
                allowed[max(0, y[band] - above) : y[band + 1] + above, left:right] = 1
        return allowed

    def inside(self, rows: np.ndarray) -> np.ndarray:
        """The share of the pixels in ``rows [3, H]`` (upper, middle, lower) that lies inside its band: ``[3]``."""
        cuts = np.rint(np.asarray(self.cuts) * rows.shape[1]).astype(np.int64)
        within = [band[top:end].sum() for band, top, end in zip(rows, cuts[:-1], cuts[1:], strict=True)]
        return np.array(within) / rows.sum(1).clip(1)

    def zones_shown(self, mask: np.ndarray) -> tuple[int, ...]:
        """The zones in which a mask ``[H, W]`` shows a lesion: six 0/1. A zone is 1 if its box holds lesion on at least
        0.3 % of the image."""
        areas = [mask[y0:y1, x0:x1].sum() for y0, x0, y1, x1 in self.boxes(*mask.shape)]
        return tuple(int(area >= LEAST_SHOWN * mask.size) for area in areas)


THIRDS = Grid((0.0, 1 / 3, 2 / 3, 1.0))
"""The released code's grid (Ledger 8)."""
QATA = Grid((0.10, 0.37, 0.57, 0.90))
"""Bands that fit QaTa-COV19's lesions."""


def lesion_rows(masks: np.ndarray, reports: Sequence[AnyReport]) -> np.ndarray:
    """Counts the lesion pixels of each position phrase by image row, for both sides together.

    Args:
        masks: ``[N, H, W]``, 1 where the lesion is.
        reports: N reports of the lungs.

    Returns:
        ``[8, H]`` float64. Entry ``upper + 2 * middle + 4 * lower`` counts the lesion pixels of the image halves whose
        side has this phrase. Entry 0 is a side without a phrase, entry 7 a whole side.
    """
    height, width = masks.shape[1:]
    rows = np.zeros((8, height))
    for mask, report in zip(masks, reports, strict=True):
        for half, named in zip(np.split(mask, [width // 2], 1), (report.zones[:3], report.zones[3:]), strict=True):
            upper, middle, lower = named
            rows[upper + 2 * middle + 4 * lower] += half.sum(1, dtype=np.float64)
    return rows


def estimate_grid(masks: np.ndarray, reports: Sequence[AnyReport]) -> Grid:
    """Estimates the grid that agrees best with labelled pairs. Pass labelled pairs only.

    A lesion pixel votes with its row if the report names one or two bands on its side. It votes for each of these
    bands. The inner cuts maximise the sum, over the bands, of the share of a band's votes that lies inside the band.
    Shares replace counts because reports name "lower" far more often than "upper". The outer cuts leave out 1 % of the
    lesion pixels at each end.

    A cut that the pairs do not tell (:func:`untold_cuts`) is that of :data:`THIRDS`. Otherwise a band that no report
    names would get a single row.

    Args:
        masks: ``[N, H, W]``, 1 where the lesion is.
        reports: N reports of the lungs.

    Returns:
        The grid; :data:`THIRDS` itself if no pixel votes, if the lesions fill too few rows for three bands, or if the
        told cuts lie beyond the others.

    >>> from semimedref_core import estimate_grid, load_training
    >>> pairs = load_training("phantom", label_ratio=0.05, image_size=32).labelled
    >>> [round(cut, 2) for cut in estimate_grid(pairs.masks, pairs.reports).cuts]
    [0.19, 0.38, 0.59, 0.81]
    """
    height = masks.shape[1]
    by_phrase = lesion_rows(masks, reports)
    rows = by_phrase.sum(0)  # lesion pixels of each row
    votes = np.stack([by_phrase[[code for code in range(1, 7) if code >> band & 1]].sum(0) for band in range(3)])
    if not votes.any():
        return THIRDS
    shares = votes / votes.sum(1, keepdims=True).clip(1)
    above = np.concatenate([np.zeros((3, 1)), shares.cumsum(1)], axis=1)  # [3, H+1] share of votes above each cut
    first, second = np.meshgrid(np.arange(height + 1), np.arange(height + 1), indexing="ij")
    agreement = above[0][first] + above[1][second] - above[1][first] + above[2][-1] - above[2][second]
    enclosed = rows.cumsum() / rows.sum()
    top, bottom = int(np.searchsorted(enclosed, 0.01)), int(np.searchsorted(enclosed, 0.99)) + 1
    possible = (first > top) & (second > first) & (second < bottom)
    if not possible.any():
        return THIRDS
    agreement[~possible] = -1
    upper, middle = np.unravel_index(agreement.argmax(), agreement.shape)
    untold = untold_cuts(by_phrase)
    estimated = (top / height, int(upper) / height, int(middle) / height, bottom / height)
    cuts = tuple(THIRDS.cuts[k] if k in untold else cut for k, cut in enumerate(estimated))
    return Grid(cuts) if np.all(np.diff(cuts) > 0) else THIRDS


def untold_cuts(by_phrase: np.ndarray) -> frozenset[int]:
    """The cuts of a grid, 0 to 3, that labelled pairs do not tell.

    An inner cut is told if some lesions have the band above it in their phrase without the band below, and others the
    band below without the band above. An outer cut is told if the inner cut of its band is.

    Args:
        by_phrase: ``[8, H]``, see :func:`lesion_rows`.
    """
    seen = [code for code in range(1, 7) if by_phrase[code].any()]
    untold = set()
    for inner, outer in ((1, 0), (2, 3)):
        sides = {(code >> (inner - 1) & 1, code >> inner & 1) for code in seen}
        if not sides >= {(1, 0), (0, 1)}:
            untold |= {inner, outer}
    return frozenset(untold)
