"""Kernels: bytes and memory, tiles and who writes them, the running maximum, class sums, the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from semimedref_core.figures.canvas import BLACK, BLUE, GREEN, ORANGE, SKY, VERMILION, panels, show_image

TILE_COLOURS = {"own": SKY, "both": ORANGE}


def traffic_bars(moved: Mapping[str, tuple[float, float]]) -> Figure:
    """Bytes of one step by form: name -> (MB read, MB written)."""
    figure, ax = plt.subplots(figsize=(9, 0.55 * len(moved) + 1.2), layout="constrained")
    names, (read, written) = list(moved), np.array(list(moved.values())).T
    ax.barh(names, read, color=BLUE, label="read")
    ax.barh(names, written, left=read, color=ORANGE, label="written")
    for row, total in enumerate(read + written):
        ax.text(total + 0.01 * (read + written).max(), row, f"{total:.0f} MB", va="center", fontsize=9)
    ax.set(xlabel="MB a step", xlim=(0, 1.12 * (read + written).max()))
    ax.invert_yaxis()
    ax.legend(loc="lower right", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def tile_map(views: Sequence[tuple[str, np.ndarray, tuple[int, int, int, int], Sequence[tuple]]]) -> Figure:
    """Which program writes which tile, and from where it reads.

    Args:
        views: one a panel: title, image ``[H, W]``, box (y0, x0, y1, x1) and tiles (program, y0, x0, y1, x1, kind) with
            kind one of :data:`TILE_COLOURS`.
    """
    figure, axes = panels(1, len(views), 4.6, 4.9)
    for ax, (title, image, (y0, x0, y1, x1), tiles) in zip(axes[0], views, strict=True):
        show_image(ax, image)
        ax.set_title(title, fontsize=10)
        for program, top, left, bottom, right, kind in tiles:
            corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
            ax.add_patch(Rectangle(corner, *size, facecolor=TILE_COLOURS[kind], edgecolor="none", alpha=0.3))
            ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.8))
            ax.text(left + 1.5, top + 1.5, program, fontsize=8, va="top", color="white", bbox=_plate())
        ax.add_patch(
            Rectangle(
                (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=VERMILION, linewidth=2.2, linestyle="--"
            )
        )
    words = {"own": "copies its own sample", "both": "asks the gate and reads the donor too"}
    handles = [Patch(facecolor=TILE_COLOURS[kind], alpha=0.7, label=word) for kind, word in words.items()]
    handles.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor=VERMILION, linestyle="--", linewidth=2, label="box"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _plate() -> dict:
    return {"facecolor": "black", "alpha": 0.65, "pad": 1, "edgecolor": "none"}


def online_tiles(
    z: np.ndarray, tile: tuple[int, int], program: int, i: int, tops: np.ndarray, lses: np.ndarray
) -> Figure:
    """Left, the logits in tiles and the row of tiles of one program; right, what it holds for one of its rows.

    Args:
        z: ``[N, M]`` logits; tile: its (rows, columns); i: the row.
        tops, lses: ``[tiles]`` running maximum, and maximum + log(total), after each tile.
    """
    rows, cols = tile
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1.15, 1), layout="constrained")
    shown = left.imshow(z, cmap="cividis", interpolation="nearest", aspect="auto")
    figure.colorbar(shown, ax=left, shrink=0.85, label="$z_{ij}$")
    for edge in range(rows, z.shape[0], rows):
        left.axhline(edge - 0.5, color="white", linewidth=1)
    for edge in range(cols, z.shape[1], cols):
        left.axvline(edge - 0.5, color="white", linewidth=1)
    top = program * rows
    frame = (-0.5, top - 0.5), z.shape[1], min(rows, len(z) - top)
    left.add_patch(Rectangle(*frame, fill=False, edgecolor=VERMILION, linewidth=2.5, clip_on=False))
    left.annotate("", (z.shape[1] - 0.5, i), (-0.5, i), arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.5})
    left.text(1, i + 1.5, f"row i = {i}", fontsize=8, color="white", va="top", bbox=_plate())
    for k, start in enumerate(range(0, z.shape[1], cols)):
        left.text(start + 1, top + 1, f"tile {k}", fontsize=8, color="white", va="top", bbox=_plate())
    left.set(xlabel="text j", ylabel="image i", title=f"program {program} walks one row of tiles")
    steps = np.arange(len(tops))
    right.step(steps, tops, where="mid", color=BLUE, marker="o", label="running maximum")
    right.plot(steps, lses, color=ORANGE, marker="s", label="maximum + log(total)")
    right.axhline(lses[-1], color=BLACK, linestyle="dotted", label=r"$\log\sum_j \exp z_{ij}$")
    right.set(
        xlabel="tiles seen",
        xticks=steps,
        xticklabels=[str(k + 1) for k in steps],
        title=f"what it holds for row i = {i}",
    )
    right.grid(alpha=0.3)
    right.legend(fontsize=9)
    return figure


def memory_curves(sizes: Sequence[int], memory: Mapping[str, Sequence[float]], card: float) -> Figure:
    """Peak memory in GB of each form over the number of pairs N, with the memory of a card as a line."""
    figure, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    for (name, values), colour, marker in zip(memory.items(), (VERMILION, BLUE, GREEN), "sov", strict=False):
        ax.loglog(sizes, values, color=colour, marker=marker, label=name)
    ax.axhline(card, color=BLACK, linestyle="dashed", linewidth=1)
    ax.text(sizes[0], card * 1.15, f"a card of {card:.0f} GB", fontsize=9, va="bottom")
    ax.set(xlabel="pairs N", ylabel="peak memory (GB)", ylim=(None, card * 6))
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="lower right")
    return figure


def class_blocks(positives: np.ndarray, ordered: np.ndarray, table: np.ndarray) -> Figure:
    """P ``[N, N]`` as the batch comes, the same with pairs ordered by their code, and the table of the codes."""
    figure, axes = panels(1, 3, 3.7, 3.6)
    titles = "P of the batch", "the same, ordered by code", f"one number for each two of {len(table)} codes"
    for ax, values, title in zip(axes[0], (positives, ordered, table), titles, strict=True):
        shown = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(title, fontsize=10)
        ax.tick_params(labelsize=8)
    figure.colorbar(shown, ax=axes[0].tolist(), shrink=0.8, label="$P_{ij}$")
    return figure


def gpu_bounds(spans: Mapping[str, tuple[float, float, float]], bandwidth: float, roofs: Mapping[str, float]) -> Figure:
    """What bandwidth and arithmetic units allow, over operations a byte.

    Args:
        spans: name -> (operations a byte if every load goes to memory, the same if each input is read once, roof of
            the kernel in operations a second).
        bandwidth: of the memory, bytes a second.
        roofs: name -> operations a second of the arithmetic units.
    """
    figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
    x = np.geomspace(0.01, 2e4, 200)
    for (name, peak), style in zip(roofs.items(), ("solid", "dashed", "dotted"), strict=False):
        ax.loglog(x, np.minimum(bandwidth * x, peak) / 1e12, color=BLACK, linestyle=style, linewidth=1)
        ax.text(x[-1], 1.12 * peak / 1e12, name, fontsize=8, ha="right", va="bottom")
    ax.text(1, 1.6 * bandwidth / 1e12, f"memory:\n{bandwidth / 1e12:.2f} TB/s", fontsize=8, ha="right", va="bottom")
    colours = VERMILION, BLUE, ORANGE, GREEN, SKY
    for (name, (low, high, peak)), colour in zip(spans.items(), colours, strict=False):
        along = np.geomspace(low, high, 50)
        reached = np.minimum(bandwidth * along, peak) / 1e12
        ax.plot(along, reached, color=colour, marker="o", markevery=[0, -1], markersize=8, linewidth=4, label=name)
    ax.set(xlabel="operations a byte", ylabel="at most, 10¹² operations a second", ylim=(1e-2, 3e3))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="lower right")
    return figure
