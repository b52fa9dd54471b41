"""What is in a dataset: where the zones lie, where lesions of each band lie, and what the words say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semimedref_core.anatomy import Grid
from semimedref_core.data.pairs import Pairs
from semimedref_core.figures.canvas import BLUE, TRUTH, VERMILION, YELLOW, legend, outline, panels, show_image
from semimedref_core.reports import HEIGHTS, ZONES

GRID_STYLES = ((VERMILION, "dashed"), (YELLOW, "solid"))


def grid_gallery(pairs: Pairs, grids: Mapping[str, Grid], count: int = 3) -> Figure:
    """The first pairs with mask and the zone boxes of two grids; boxes of named zones are drawn, others left out."""
    figure, axes = panels(1, count, 3.2, 3.6)
    height, width = pairs.images.shape[1:]
    for ax, image, mask, report in zip(axes[0], pairs.images, pairs.masks, pairs.reports, strict=False):
        show_image(ax, image, report.render())
        outline(ax, mask)
        for (colour, style), grid in zip(GRID_STYLES, grids.values(), strict=True):
            for (y0, x0, y1, x1), named in zip(grid.boxes(height, width), report.zones, strict=True):
                if named:
                    box = Rectangle((x0, y0), x1 - x0 - 1, y1 - y0 - 1, fill=False, ec=colour, ls=style, lw=1.4)
                    ax.add_patch(box)
    boxes = {name: style for name, style in zip(grids, GRID_STYLES, strict=True)}
    legend(figure, {"mask": (TRUTH, "solid"), **boxes})
    return figure


def rows_by_band(rows: np.ndarray, grids: Mapping[str, Grid]) -> Figure:
    """Where the lesions of reports that name one band lie, against the bands of two grids.

    Args:
        rows: ``[3, H]`` lesion pixels of each image row, of reports that name upper, middle, lower alone.
        grids: name -> grid; their inner and outer cuts are drawn as lines.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.1), layout="constrained", sharey=True)
    height = rows.shape[1]
    y = (np.arange(height) + 0.5) / height
    for band, (ax, name, counts) in enumerate(zip(axes, HEIGHTS, rows, strict=True)):
        share = counts / max(1, counts.sum())
        ax.fill_betweenx(y, share, color=BLUE, alpha=0.35, linewidth=0)
        ax.plot(share, y, color=BLUE, linewidth=1)
        for (colour, style), grid in zip(((VERMILION, "dashed"), ("black", "solid")), grids.values(), strict=True):
            for cut in grid.cuts[band : band + 2]:
                ax.axhline(cut, color=colour, linestyle=style, linewidth=1.4)
        ax.set(title=f'"{name}"', xlabel="share of lesion pixels", ylim=(1, 0), xlim=(0, None))
    axes[0].set_ylabel("y / H (0: top of the image)")
    styles = (VERMILION, "dashed"), ("black", "solid")
    legend(figure, dict(zip(grids, styles, strict=True)))
    return figure


def count_word(pairs_of_counts: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> Figure:
    """The count word against something it may count, one panel each; on the diagonal they agree.

    Args:
        pairs_of_counts: what is counted -> (count words, counts), of equal length.
    """
    figure, axes = plt.subplots(
        1, len(pairs_of_counts), figsize=(3.4 * len(pairs_of_counts), 3.2), layout="constrained"
    )
    for ax, (name, (words, counts)) in zip(np.atleast_1d(axes), pairs_of_counts.items(), strict=True):
        size = max(max(words), max(counts)) + 1
        table = np.zeros((size, size), int)
        np.add.at(table, (np.asarray(words), np.asarray(counts)), 1)
        ax.imshow(np.log1p(table), cmap="Blues", origin="lower")
        dark = np.log1p(table).max() / 2
        for word, count in zip(*table.nonzero(), strict=True):
            colour = "white" if np.log1p(table[word, count]) > dark else "black"
            ax.text(count, word, table[word, count], ha="center", va="center", fontsize=7, color=colour)
        ax.set(xlabel=name, ylabel="count word", xticks=range(size), yticks=range(size))
    return figure


def zone_frequencies(zones: np.ndarray) -> Figure:
    """How often each zone is named. zones: ``[N, 6]`` 0/1."""
    figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
    shares = 100 * zones.mean(0)
    bars = ax.barh(ZONES, shares, color=[BLUE] * 3 + [VERMILION] * 3)
    ax.bar_label(bars, fmt="%.0f %%", padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="share of reports that name the zone (%)", xlim=(0, 1.15 * shares.max()))
    return figure
