"""The data: a sample and its zones, grids over lesions, counts, phrases, labelled subsets."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semimedref_core.anatomy import Grid
from semimedref_core.data.pairs import Pairs
from semimedref_core.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    TRUTH,
    TYPE,
    VERMILION,
    YELLOW,
    as_text,
    legend,
    outline,
    panels,
    show_image,
)  # fmt: skip
from semimedref_core.reports import HEIGHTS, SIDES, Report

GRID_STYLES = {"thirds": (VERMILION, "dashed"), "estimated": (YELLOW, "solid")}
CUT_WIDTHS = (0.7, 1.7, 1.7, 0.7)
"""Of the lines of a grid: the outer cuts are thin, the inner ones thick."""
BAND_COLOURS = (SKY, ORANGE, PURPLE)


def sample_apart(image: np.ndarray, mask: np.ndarray, report: Report) -> Figure:
    """The three parts of one sample side by side. The report is shown with the six zones and its named ones."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    show_image(left, image)
    show_image(middle, image)
    outline(middle, mask)
    left.set_title("image x", fontsize=11)
    middle.set_title("mask y (contour)", fontsize=11)
    right.set_title("report r and its zones a", fontsize=11)
    right.set(xlim=(0, 2), ylim=(4.6, 0))
    right.set_axis_off()
    right.text(1, 0.1, as_text("\n".join(textwrap.wrap(report.render(), 40))), ha="center", va="top", fontsize=10)
    for k, bit in enumerate(report.zones):
        side, height = divmod(k, 3)
        corner = (side + 0.06, 1.45 + height)
        right.add_patch(Rectangle(corner, 0.88, 0.9, facecolor=SKY if bit else "0.92", edgecolor="0.4"))
        right.text(side + 0.5, 1.9 + height, f"{SIDES[side]} {HEIGHTS[height]}\n{bit}", ha="center", va="center")
    return figure


def mean_masks(means: Mapping[str, np.ndarray]) -> Figure:
    """The frequency of lesion at each pixel ``[H, W]``, for each title. The midline is dashed."""
    figure, axes = plt.subplots(1, len(means), figsize=(3.3 * len(means) + 0.8, 3.5), layout="constrained")
    top = max(mean.max() for mean in means.values())
    for ax, (title, mean) in zip(axes, means.items(), strict=True):
        shown = ax.imshow(mean, cmap="cividis", vmin=0, vmax=top)
        ax.axvline(mean.shape[1] / 2 - 0.5, color="white", linestyle="dashed", linewidth=1.2)
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[], xlabel="image left | image right")
    figure.colorbar(shown, ax=axes, label="share of masks with lesion here")
    return figure


def grids_over(pairs: Pairs, grids: Mapping[str, Grid]) -> Figure:
    """Pairs with mask contours and each grid's lines over them (styles: :data:`GRID_STYLES`)."""
    figure, axes = panels(1, len(pairs), 3.0, 3.6)
    height = pairs.images.shape[1]
    for ax, image, mask, report in zip(axes[0], pairs.images, pairs.masks, pairs.reports, strict=True):
        show_image(ax, image, report.render())
        outline(ax, mask)
        for name, grid in grids.items():
            colour, style = GRID_STYLES[name]
            for cut, thick in zip(grid.cuts, CUT_WIDTHS, strict=True):
                ax.axhline(cut * height - 0.5, color=colour, linestyle=style, linewidth=thick)
    legend(figure, {"mask": (TRUTH, "solid"), **{name: GRID_STYLES[name] for name in grids}})
    return figure


def row_histograms(rows: np.ndarray, grids: Mapping[str, Grid]) -> Figure:
    """The rows of lesions that reports call "upper", "middle" and "lower", with the cuts of each grid.

    Args:
        rows: ``[3, H]`` lesion pixels in each row; each band is drawn as shares of its own pixels.
        grids: name -> grid, with names of :data:`GRID_STYLES`.
    """
    figure, axes = plt.subplots(1, len(grids), figsize=(4.8 * len(grids), 4.2), layout="constrained", sharey=True)
    y = (np.arange(rows.shape[1]) + 0.5) / rows.shape[1]
    shares = rows / rows.sum(1, keepdims=True).clip(1) * rows.shape[1] / 100  # per cent of the height -> share
    for ax, (name, grid) in zip(axes, grids.items(), strict=True):
        for band, colour, share, inside in zip(HEIGHTS, BAND_COLOURS, shares, grid.inside(rows), strict=True):
            label = f'"{band}": {100 * inside:.0f} % inside its band'
            ax.fill_betweenx(y, 100 * share, color=colour, alpha=0.55, linewidth=0, label=label)
        for cut, thick in zip(grid.cuts, CUT_WIDTHS, strict=True):
            ax.axhline(cut, color="black", linestyle=GRID_STYLES[name][1], linewidth=thick)
        ax.set_title(f"{name}: cuts at {grid.cuts[1]:.2f} and {grid.cuts[2]:.2f}", fontsize=11)
        ax.set(xlabel="share of the word's lesion pixels per 1 % of the height (%)", xlim=(0, None), ylim=(1, 0))
        ax.legend(fontsize=TYPE, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    axes[0].set_ylabel("y / H (0 is the top)")
    return figure


def count_tables(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Cross tables of counts, one panel for each. On the diagonal, rows and columns agree."""
    figure, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.8), layout="constrained")
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        counts = table.to_numpy()
        ax.imshow(np.log1p(counts), cmap="Blues", origin="lower", vmax=1.25 * np.log1p(counts.max()), aspect="auto")
        ax.set_title(title, fontsize=10)
        for (r, c), n in np.ndenumerate(counts):
            if n:
                colour = "white" if np.log1p(n) > 0.75 * np.log1p(counts.max()) else "black"
                ax.text(c, r, n, ha="center", va="center", fontsize=TYPE, color=colour)
            if table.index[r] == table.columns[c]:
                ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fill=False, edgecolor=VERMILION, linewidth=1.2))
        ax.set_xticks(range(len(table.columns)), table.columns)
        ax.set_yticks(range(len(table.index)), table.index)
        ax.set(xlabel=table.columns.name, ylabel=table.index.name)
    return figure


def phrase_bars(shares: pd.DataFrame) -> Figure:
    """The frequency of each position phrase as shares of the texts: bars for the first column, dots for the second."""
    figure, ax = plt.subplots(figsize=(8.5, 4.4), layout="constrained")
    (counted, here), (known, there) = shares.items()
    y = np.arange(len(shares))
    colours = [BLUE if " left " in f" {phrase} " else GREEN for phrase in shares.index]
    ax.barh(y, 100 * here, color=colours, alpha=0.75)
    ax.plot(100 * there, y, "o", color="black", markersize=5, label=known)
    for side, colour in zip(SIDES, (BLUE, GREEN), strict=True):
        ax.barh(0, 0, color=colour, alpha=0.75, label=f"{counted}, {side} lung")
    ax.set_yticks(y, map(as_text, shares.index))
    ax.invert_yaxis()
    ax.set_xlabel("texts that hold the phrase (%)")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(fontsize=TYPE, loc="lower right")
    return figure


def split_strips(chosen: Mapping[float, Sequence[int]], count: int) -> Figure:
    """The labelled positions of a train list: one strip for each ratio, the smallest on top."""
    figure, ax = plt.subplots(figsize=(9, 0.42 * len(chosen) + 0.9), layout="constrained")
    for row, positions in enumerate(chosen.values()):
        ax.vlines(positions, row - 0.4, row + 0.4, color=BLUE, linewidth=1)
        ax.add_patch(Rectangle((-0.5, row - 0.4), count, 0.8, fill=False, edgecolor="0.6", linewidth=0.8))
    ax.set_yticks(range(len(chosen)), [f"{100 * ratio:g} %: {len(p)}" for ratio, p in chosen.items()])
    ax.set(xlim=(-0.01 * count, 1.01 * count), ylim=(len(chosen) - 0.4, -0.6), xlabel="position in the train list")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def dice_by_size(areas: np.ndarray, dice: np.ndarray, averages: Mapping[str, float]) -> Figure:
    """Dice of each image against its lesion's share of the image, and averages over all as horizontal lines."""
    figure, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    ax.scatter(100 * areas, 100 * dice, s=14, color="0.45", alpha=0.7, linewidth=0, label="one image")
    for (name, value), colour, style in zip(averages.items(), (BLUE, VERMILION), ("solid", "dashed"), strict=True):
        ax.axhline(100 * value, color=colour, linestyle=style, linewidth=1.8, label=f"{name}: {100 * value:.1f} %")
    ax.set(xlabel="lesion (% of the image)", ylabel="Dice (%)", xlim=(0, None), ylim=(None, 100))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=TYPE, loc="lower right")
    return figure
