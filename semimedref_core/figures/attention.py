"""The effect of a report's words on a picture: attention maps, and outlines for different reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from semimedref_core.figures.canvas import (
    DECOY,
    PREDICTED,
    TRUTH,
    VERMILION,
    as_text,
    legend,
    outline,
    panels,
    show_image,
)

# From clear to one colour: places without attention show the bare picture. Vermilion differs from every grey also for
# colour-blind readers, and from the colours of outlines. At opacity 0.7 the picture under it is still visible.
ATTENTION = LinearSegmentedColormap.from_list("attention", [to_rgba(VERMILION, 0), to_rgba(VERMILION, 0.7)])


def lay_over(ax: Axes, shape: Sequence[int], weight: np.ndarray, top: float) -> AxesImage:
    """Shows the attention of each place to a word over a picture, from 0 (clear) to ``top`` (full colour).

    Args:
        ax: shows the picture.
        shape: (H, W) of the picture.
        weight: ``[h, w]``, shares of attention.
        top: the largest share of the colour scale.
    """
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    return ax.imshow(weight, cmap=ATTENTION, vmin=0, vmax=top, extent=extent)


def attention_maps(
    image: np.ndarray,
    words: Sequence[str],
    weights: np.ndarray,
    mask: np.ndarray | None = None,
    decoy: np.ndarray | None = None,
) -> Figure:
    """One panel for each word: the picture, and over it the attention of each place to this word.

    All panels share a colour scale, from 0 (clear) to the largest weight (full colour).

    Args:
        image: ``[H, W]``.
        words: L words.
        weights: ``[L, h, w]``, attention weights.
        mask, decoy: ``[H, W]``, 1 where the lesion or a decoy is; outlined if given.
    """
    columns = min(2, len(words))
    figure, axes = panels(-(-len(words) // columns), columns, 3.2, 3.4)
    shown = None
    for ax, word, weight in zip(axes.flat, words, weights, strict=False):
        show_image(ax, image)
        shown = lay_over(ax, image.shape, weight, weights.max())
        if mask is not None:
            outline(ax, mask)
        if decoy is not None:
            outline(ax, decoy, DECOY, "dotted")
        ax.set_title(as_text(word), fontsize=12)
    for ax in axes.flat[len(words) :]:
        ax.remove()
    bar = figure.colorbar(shown, ax=list(axes.flat[: len(words)]), shrink=0.7, label="share of attention")
    bar.ax.set_facecolor("0.5")  # the colours over a middle grey, as over a picture
    return figure


def by_report(image: np.ndarray, predictions: Mapping[str, np.ndarray], mask: np.ndarray | None = None) -> Figure:
    """The same picture with several reports: one panel for each, with the prediction and, if given, the true mask.

    Args:
        image: ``[H, W]``.
        predictions: report -> probabilities ``[H, W]``.
        mask: ``[H, W]``, 1 where the lesion is.
    """
    figure, axes = panels(1, len(predictions), 3.2, 3.4)
    for ax, (report, probability) in zip(axes[0], predictions.items(), strict=True):
        show_image(ax, image, report)
        if mask is not None:
            outline(ax, mask)
        outline(ax, probability, PREDICTED, "dashed")
    legend(figure, {"mask": (TRUTH, "solid"), "prediction": (PREDICTED, "dashed")})
    return figure
