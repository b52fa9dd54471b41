"""What every figure is made of: palette, images without axes, outlines, grids of panels, legends."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semimedref_core.figures.words import speak

# Okabe and Ito's palette, safe for the colour-blind. Truth and prediction differ in line style too.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
TRUTH, PREDICTED, DECOY = SKY, ORANGE, YELLOW
TYPE, LETTERS = 10, 12  # points of the letters beside pictures, and how many of them an inch holds


def notebook_style(dpi: int = 70) -> None:
    """Settings of figures shown in a notebook, and words beside them (:mod:`.words`); saved files may be finer.

    Call it once, with the imports.
    """
    plt.rcParams["figure.dpi"] = dpi
    speak()


def as_text(name: str) -> str:
    """A name or a report as text of a figure: a dollar sign in it begins no formula."""
    return name.replace("$", r"\$")


def show_image(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """A grey image ``[H, W]``, or a coloured one ``[H, W, 3]``, without axes; the title is wrapped to the width of its
    panel, and text as it stands."""
    ax.imshow(image, cmap="gray")
    ax.set_axis_off()
    if title:
        spec = ax.get_subplotspec()
        panel = ax.figure.get_figwidth() / (spec.get_gridspec().ncols if spec else 1)
        # y given: matplotlib would lay out ticks that are not shown, to keep the title off them.
        ax.set_title(as_text("\n".join(textwrap.wrap(title, int(LETTERS * panel)))), fontsize=TYPE, y=1)


def outline(ax: Axes, mask: np.ndarray, colour: str = TRUTH, style: str = "solid") -> None:
    """The contour of a mask ``[H, W]`` (0/1 or probabilities, cut at 0.5), which leaves the image visible."""
    if mask.max() >= 0.5:
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.6)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Axes ``[rows, columns]``, each of this size in inches, with room for a title and a legend below."""
    size = (width * columns, height * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(h_pad=0.12, rect=(0, 0, 1, 0.98))
    return figure, axes


def legend(figure: Figure, entries: Mapping[str, tuple[str, str]]) -> None:
    """A legend of lines below the panels, name -> (colour, line style)."""
    lines = [Line2D([], [], color=colour, linestyle=style, linewidth=1.6) for colour, style in entries.values()]
    figure.legend(lines, list(entries), loc="outside lower center", ncols=len(lines), fontsize=TYPE, frameon=False)
