"""The prediction of a network for one image and one report: contours on the image, and the probabilities."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semimedref_core.figures.canvas import GREEN, PREDICTED, TRUTH, as_text, legend, outline, show_image


def prediction_panel(
    image: np.ndarray, mask: np.ndarray | None, probs: np.ndarray, predicted: np.ndarray, boxes: np.ndarray, report: str
) -> Figure:
    """Left: the image with mask, prediction and the zones that the report names. Right: the probability map.

    Args:
        image: ``[H, W]`` grey; probs: ``[H, W]`` lesion probabilities; predicted: ``[H, W]`` 0/1, the thresholded
            probabilities.
        mask: ``[H, W]`` 0/1, or ``None``.
        boxes: ``[n, 4]`` boxes of the named zones in pixels (y0, x0, y1, x1).
        report: the text that the network read.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.4))
    # Fixed places: nothing jumps between answers.
    figure.subplots_adjust(left=0.01, right=0.9, bottom=0.09, top=0.91, wspace=0.03)
    show_image(left, image)
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
    figure.text(0.01, 0.97, as_text(report), fontsize=9, va="top")
    shown = right.imshow(probs, cmap="cividis", vmin=0, vmax=1)
    right.set_axis_off()
    figure.colorbar(shown, cax=figure.add_axes((0.91, 0.12, 0.015, 0.76)), label="lesion probability")
    legend(figure, entries)
    return figure
