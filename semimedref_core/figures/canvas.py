"""The building blocks of all figures: palette, images without axes, outlines, grids of panels, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from semimedref_core.figures.words import speak

# Okabe and Ito's palette, which colour-blind readers can use. Truth and prediction also differ in line style.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
TRUTH, PREDICTED, DECOY, PATCH = SKY, ORANGE, YELLOW, PURPLE
"""Colours of contours and frames. The frame of a patch is dashed, and dotted if the gate refused it.
Only :func:`.mixing.proposals`, which draws many patches at once, has solid frames."""
TYPE, LETTERS = 10, 12  # font size in points beside pictures, and letters in an inch


def notebook_style(dpi: int = 70) -> None:
    """Sets the style of figures in a notebook, and gives them alternative texts (:mod:`.words`). Saved files may be
    finer.

    Call it once, after the imports.
    """
    plt.rcParams["figure.dpi"] = dpi
    speak()


def as_text(name: str) -> str:
    """Escapes a name or a report for a figure, so that a dollar sign does not start a formula."""
    return name.replace("$", r"\$")


def show_image(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """Shows a grey image ``[H, W]`` or a colour image ``[H, W, 3]`` without axes. The title is plain text, wrapped to
    the width of the panel."""
    ax.imshow(image, cmap="gray")
    ax.set_axis_off()
    if title:
        spec = ax.get_subplotspec()
        panel = ax.figure.get_figwidth() / (spec.get_gridspec().ncols if spec else 1)
        # With y given, matplotlib does not lay out invisible ticks to place the title.
        ax.set_title(as_text("\n".join(textwrap.wrap(title, int(LETTERS * panel)))), fontsize=TYPE, y=1)


def outline(ax: Axes, mask: np.ndarray, colour: str = TRUTH, style: str = "solid", width: float = 1.6) -> None:
    """Draws the contour of a mask ``[H, W]`` (0/1, or probabilities with the threshold 0.5), so the image stays
    visible."""
    if mask.max() >= 0.5:
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=width)


def box(
    ax: Axes, corners: Sequence[int], colour: str, style: str = "solid", width: float = 1.8, fill: float = 0
) -> None:
    """Draws the frame of a box (y0, x0, y1, x1) px around its pixels; ``fill`` is the opacity of its filling."""
    y0, x0, y1, x1 = (int(corner) for corner in corners)
    place, size = (x0 - 0.5, y0 - 0.5), (x1 - x0, y1 - y0)
    if fill:
        ax.add_patch(Rectangle(place, *size, facecolor=colour, alpha=fill, linewidth=0))
    ax.add_patch(Rectangle(place, *size, fill=False, edgecolor=colour, linestyle=style, linewidth=width))


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Makes axes ``[rows, columns]`` of this size in inches, with space for a title and a legend below."""
    size = (width * columns, height * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(h_pad=0.12, rect=(0, 0, 1, 0.98))
    return figure, axes


def legend(figure: Figure, entries: Mapping[str, tuple[str, str]]) -> None:
    """Draws a legend of lines below the panels: name -> (colour, line style)."""
    lines = [Line2D([], [], color=colour, linestyle=style, linewidth=1.6) for colour, style in entries.values()]
    figure.legend(lines, list(entries), loc="outside lower center", ncols=len(lines), fontsize=TYPE, frameon=False)
