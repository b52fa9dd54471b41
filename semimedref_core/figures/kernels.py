"""Kernels: bytes and memory, tiles and their programs, class sums, the roofline, measured times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from semimedref_core.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PATCH,
    SKY,
    TYPE,
    VERMILION,
    box,
    panels,
    show_image,
)

TILE_COLOURS = {"own": SKY, "both": ORANGE}


def traffic_bars(moved: Mapping[str, tuple[float, float]]) -> Figure:
    """The bytes of one call of each form: name -> (MB read, MB written)."""
    figure, ax = plt.subplots(figsize=(9, 0.55 * len(moved) + 1.2), layout="constrained")
    names, (read, written) = list(moved), np.array(list(moved.values())).T
    ax.barh(names, read, color=BLUE, label="read")
    ax.barh(names, written, left=read, color=ORANGE, label="written")
    for row, total in enumerate(read + written):
        ax.text(total + 0.01 * (read + written).max(), row, f"{total:.1f} MB", va="center", fontsize=TYPE)
    ax.set(xlabel="MB a call", xlim=(0, 1.12 * (read + written).max()))
    ax.invert_yaxis()
    ax.legend(loc="lower right", fontsize=TYPE)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def tile_map(views: Sequence[tuple[str, np.ndarray, tuple[int, int, int, int], Sequence[tuple]]]) -> Figure:
    """The program of each tile, and the sources that it reads.

    Args:
        views: one for each panel: title, image ``[H, W]``, box (y0, x0, y1, x1) and tiles (program, y0, x0, y1, x1,
            kind) with kind one of :data:`TILE_COLOURS`.
    """
    figure, axes = panels(1, len(views), 4.6, 4.9)
    for ax, (title, image, patch, tiles) in zip(axes[0], views, strict=True):
        show_image(ax, image)
        ax.set_title(title, fontsize=TYPE)
        for program, top, left, bottom, right, kind in tiles:
            corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            ax.add_patch(Rectangle(corner, *size, facecolor=TILE_COLOURS[kind], edgecolor="none", alpha=0.3))
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.8))
            ax.text(left + 1.5, top + 1.5, program, fontsize=TYPE, va="top", color="white", bbox=_plate())
        box(ax, patch, PATCH, "dashed", 2.2)
    words = {"own": "copies its own sample", "both": "asks the gate and reads the partner too"}
    handles = [Patch(facecolor=TILE_COLOURS[kind], alpha=0.7, label=word) for kind, word in words.items()]
    handles.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor=PATCH, linestyle="--", linewidth=2, label="patch"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=TYPE, frameon=False)
    return figure


def _plate() -> dict:
    return {"facecolor": "black", "alpha": 0.65, "pad": 1, "edgecolor": "none"}


def memory_curves(sizes: Sequence[int], memory: Mapping[str, Sequence[float]], card: float) -> Figure:
    """Peak memory in GB of each form over the number of pairs N. A line shows the memory of a GPU."""
    figure, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    for (name, values), colour, marker in zip(memory.items(), (VERMILION, BLUE, GREEN), "sov", strict=False):
        ax.loglog(sizes, values, color=colour, marker=marker, label=name)
    ax.axhline(card, color=BLACK, linestyle="dashed", linewidth=1)
    ax.text(sizes[0], card * 1.15, f"a card of {card:.0f} GB", fontsize=TYPE, va="bottom")
    ax.set(xlabel="pairs N", ylabel="peak memory (GB)", ylim=(None, card * 6))
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(fontsize=TYPE, loc="lower right")
    return figure


def class_blocks(positives: np.ndarray, ordered: np.ndarray, table: np.ndarray) -> Figure:
    """P ``[N, N]`` of a batch, the same with pairs sorted by code, and the table of the codes."""
    figure, axes = panels(1, 3, 3.5, 3.4)
    titles = "P of the batch", "the same, ordered by code", f"one number for each pair of {len(table)} codes"
    for ax, values, title, what in zip(
        axes[0], (positives, ordered, table), titles, ("pair", "pair", "code"), strict=True
    ):
        ax.set(xlabel=f"{what} j", ylabel=f"{what} i")
        shown = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(title, fontsize=TYPE)
        ax.tick_params(labelsize=TYPE)
    figure.colorbar(shown, ax=axes[0].tolist(), shrink=0.8, label="$P_{ij}$")
    return figure


def gpu_bounds(spans: Mapping[str, tuple[float, float, float]], bandwidth: float, roofs: Mapping[str, float]) -> Figure:
    """The limits by bandwidth and by arithmetic units, over operations per byte. Each kernel has its name beside it.

    Args:
        spans: name -> (operations per byte if every load goes to memory, the same with a perfect cache, roof of the
            kernel in operations per second).
        bandwidth: bandwidth of the memory, bytes per second.
        roofs: name -> operations per second of the arithmetic units.
    """
    figure, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
    font = {"fontsize": TYPE + 1}  # ticks are written out, because raised exponents would be too small to read
    x, top = np.geomspace(0.01, 2e4, 200), 1e12
    for (name, peak), style in zip(roofs.items(), ("solid", "dashed", "dotted"), strict=False):
        ax.loglog(x, np.minimum(bandwidth * x, peak) / top, color=BLACK, linestyle=style, linewidth=1)
        ax.text(x[-1], 1.08 * peak / top, name, ha="right", va="bottom", **font)
    ax.text(0.8, 1.6 * bandwidth / top, f"memory:\n{bandwidth / top:.2f} TB/s", ha="right", va="bottom", **font)
    styles = (VERMILION, "s"), (BLUE, "o"), (ORANGE, "s"), (GREEN, "o"), (SKY, "D")
    for (name, (low, high, peak)), (colour, marker) in zip(spans.items(), styles, strict=False):
        along = np.geomspace(low, high, 50)
        reached = np.minimum(bandwidth * along, peak) / top
        look = {"color": colour, "marker": marker, "markersize": 8, "markeredgecolor": BLACK}
        ax.plot(along, reached, markevery=[0, -1], linewidth=4, **look)
        if high > 2 * low:  # to the left of the line, else to the right of its only mark: not on the limits
            place = {"xy": (low, reached[0]), "xytext": (-12, 4), "ha": "right", "va": "center"}
        else:
            place = {"xy": (high, reached[-1]), "xytext": (12, -4), "va": "center"}
        ax.annotate(name, textcoords="offset points", **place, **font)
    ax.set(xlim=(x[0], 1.3 * x[-1]), ylim=(1e-2, 3e3))
    ax.set_xlabel("operations a byte", **font)
    ax.set_ylabel("at most, trillion operations a second", **font)
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.tick_params(labelsize=TYPE + 1)
    ax.grid(alpha=0.3)
    return figure


def against_best(rows: Mapping[str, Sequence[Mapping]]) -> Figure:
    """The time of the fastest other form relative to ours, one dot for each case: filled without launches, hollow with
    launches.

    Args:
        rows: name -> cases of :func:`semimedref_kernels.benchmark.against_best`.
    """
    figure, ax = plt.subplots(figsize=(9, 0.7 * len(rows) + 1.4), layout="constrained")
    for row, cases in enumerate(rows.values()):
        for offset, clock, face, label in (
            (-0.14, "alone", BLUE, "GPU alone"),
            (0.14, "launched", "none", "with launches"),
        ):
            ratios = [case[clock] for case in cases]
            places = row + offset + np.linspace(-0.08, 0.08, len(ratios))
            ax.plot(
                ratios, places, "o", color=BLUE, markerfacecolor=face, markersize=6, label=label if row == 0 else ""
            )
    ax.axvline(1, color=BLACK, linewidth=1)
    ax.set(xscale="log", xlabel="time of the fastest other form, over that of ours (left of 1: ours is slower)")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 4]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=TYPE, frameon=False)
    return figure


def step_bounds(clocks: pd.DataFrame) -> Figure:
    """The predicted time of a step by each limit, as marks on a logarithmic axis.

    Args:
        clocks: one row for each case, one column for each limit; ms above 0.
    """
    figure, ax = plt.subplots(figsize=(8, 0.9 + 0.75 * len(clocks)), layout="constrained")
    apart, looks = 0.8 / clocks.shape[1], zip((VERMILION, ORANGE, BLUE, SKY, GREEN), "osD^v", strict=True)
    for place, (clock, (colour, marker)) in enumerate(zip(clocks, looks, strict=False)):
        at = np.arange(len(clocks)) + apart * (place - (clocks.shape[1] - 1) / 2)
        ax.plot(clocks[clock], at, marker, color=colour, markersize=8, label=clock)
        for y, value in zip(at, clocks[clock], strict=True):
            ax.annotate(f"{value:.2g}", (value, y), (8, 0), textcoords="offset points", va="center", fontsize=10)
    for y in range(1, len(clocks)):
        ax.axhline(y - 0.5, color="0.85", linewidth=0.8)
    ax.set_yticks(range(len(clocks)), clocks.index, fontsize=10)
    ax.set(xscale="log", xlabel="predicted time, ms", xlim=(clocks.min().min() / 2, 4 * clocks.max().max()))
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=clocks.shape[1], fontsize=10, frameon=False)
    return figure
