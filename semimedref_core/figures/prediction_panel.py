"""The prediction of a network for one image and one report: contours on the image, and the probabilities."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semimedref_core.figures.attention import lay_over
from semimedref_core.figures.canvas import GREEN, LETTERS, PREDICTED, TRUTH, TYPE, as_text, legend, outline, show_image


def prediction_panel(
    image: np.ndarray,
    mask: np.ndarray | None,
    probs: np.ndarray,
    predicted: np.ndarray,
    boxes: np.ndarray,
    report: str,
    heard: tuple[str, np.ndarray] | None = None,
) -> Figure:
    """Left: the image with mask, prediction and the zones that the report names. Right: the probability map.

    With ``heard``, colours over the image show the attention of each place to one word.

    Args:
        image: ``[H, W]`` grey; probs: ``[H, W]`` lesion probabilities; predicted: ``[H, W]`` 0/1, the thresholded
            probabilities.
        mask: ``[H, W]`` 0/1, or ``None``.
        boxes: ``[n, 4]`` boxes of the named zones in pixels (y0, x0, y1, x1).
        report: the text that the network read.
        heard: a word of the report, and the attention of each place to it, ``[h, w]`` shares.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.8))
    # Fixed places: nothing jumps between answers.
    figure.subplots_adjust(left=0.01, right=0.9, bottom=0.08, top=0.85, wspace=0.03)
    show_image(left, image)
    if heard:
        word, weight = heard
        lay_over(left, image.shape, weight, weight.max())
        left.set_title(
            as_text(f"attention to {word!r}: no colour 0, full colour {weight.max():.2f}"), fontsize=TYPE, y=1
        )
    for y0, x0, y1, x1 in boxes:
        left.add_patch(
            Rectangle(
                (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=GREEN, linestyle="dotted", linewidth=1.4
            )
        )
    entries = {"named zones": (GREEN, "dotted"), "prediction": (PREDICTED, "dashed")}
    if mask is not None:
        outline(left, mask)
        entries = {"mask": (TRUTH, "solid"), **entries}
    outline(left, predicted, PREDICTED, "dashed")
    lines = textwrap.wrap(report, int(LETTERS * figure.get_figwidth()))
    figure.text(0.01, 0.99, as_text("\n".join(lines)), fontsize=TYPE, va="top")
    shown = right.imshow(probs, cmap="cividis", vmin=0, vmax=1)
    right.set_axis_off()
    figure.colorbar(shown, cax=figure.add_axes((0.91, 0.1, 0.015, 0.73)), label="lesion probability")
    legend(figure, entries)
    return figure
