"""The effect of a report's words on a picture: attention maps, and outlines for different reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from semimedref_core.figures.canvas import (
    BLACK,
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
    """The picture, and beside it one map for each word: the attention of each place to this word.

    All maps share a colour scale, from 0 (dark) to the largest weight (light). A map laid over a picture would look
    different on its dark and light places, so these are opaque, and show the same outlines as the picture.

    Args:
        image: ``[H, W]``.
        words: L words.
        weights: ``[L, h, w]``, attention weights.
        mask, decoy: ``[H, W]``, 1 where the lesion or a decoy is; outlined if given.
    """
    figure, axes = panels(1, 1 + len(words), 2.6, 2.9)
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    show_image(axes[0, 0], image)
    shown = [
        ax.imshow(weight, cmap="cividis", vmin=0, vmax=weights.max(), extent=extent)
        for ax, weight in zip(axes[0, 1:], weights, strict=True)
    ]
    outlines = {"mask": ("solid", mask), "decoy": ("dotted", decoy)}
    outlines = {name: (style, shape) for name, (style, shape) in outlines.items() if shape is not None}
    for ax, title in zip(axes[0], ["the image", *(as_text(word) for word in words)], strict=True):
        ax.set_axis_off()
        ax.set_title(title, fontsize=12)
        for style, shape in outlines.values():
            outline(ax, shape, BLACK, "solid", 3.4)  # an edge, so that the white line shows on light places too
            outline(ax, shape, "white", style)
    figure.colorbar(shown[0], ax=list(axes[0]), shrink=0.7, label="share of attention")
    legend(figure, {name: (BLACK, style) for name, (style, _) in outlines.items()})
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
