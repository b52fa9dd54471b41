"""Pairs of image and report, and predictions of networks for them."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import dice_and_iou
from semimedref_core.figures.canvas import DECOY, PREDICTED, TRUTH, TYPE, as_text, legend, outline, panels, show_image


def sample_gallery(pairs: Pairs, count: int = 4, decoys: np.ndarray | None = None) -> Figure:
    """The first pairs: image, mask as a contour, report as title.

    Args:
        pairs: pairs with masks.
        count: largest number of pairs to show.
        decoys: ``[N, H, W]`` 0/1, lesion-like areas that are not lesions; they are outlined too.
    """
    count = min(count, len(pairs))
    figure, axes = panels(1, count, 3.0, 3.6)
    for k, (ax, image, mask, report) in enumerate(zip(axes[0], pairs.images, pairs.masks, pairs.reports, strict=False)):
        show_image(ax, image, report.render())
        outline(ax, mask)
        if decoys is not None:
            outline(ax, decoys[k], DECOY, "dotted")
    legend(figure, {"mask": (TRUTH, "solid")} | ({} if decoys is None else {"decoy": (DECOY, "dotted")}))
    return figure


def image_row(images: Mapping[str, np.ndarray]) -> Figure:
    """Grey images ``[H, W]`` side by side, each with its name and its own grey scale."""
    figure, axes = panels(1, len(images), 3.0, 3.2)
    for ax, (name, image) in zip(axes[0], images.items(), strict=True):
        show_image(ax, image, name)
    return figure


def prediction_gallery(pairs: Pairs, predictions: Mapping[str, np.ndarray]) -> Figure:
    """The predictions of each method on the same pairs: one column for each pair, with the report on top.

    Args:
        pairs: N pairs with masks.
        predictions: method -> ``[N, H, W]`` probabilities.
    """
    figure, axes = panels(len(predictions), len(pairs), 3.0, 3.4)
    for r, (method, probs) in enumerate(predictions.items()):
        for ax, image, mask, p, report in zip(axes[r], pairs.images, pairs.masks, probs, pairs.reports, strict=True):
            show_image(ax, image, report.render() if r == 0 else "")
            outline(ax, mask)
            outline(ax, p, PREDICTED, "dashed")
            found, lesion = p >= 0.5, mask > 0
            dice, _ = dice_and_iou(np.array([(found & lesion).sum(), found.sum(), lesion.sum()]))
            said = f"{as_text(method)}  Dice {100 * dice:.0f} %"
            ax.text(
                0.02, 0.03, said, transform=ax.transAxes, color="white", fontsize=TYPE,
                bbox={"facecolor": "black", "alpha": 0.6, "pad": 2},
            )  # fmt: skip
    legend(figure, {"mask": (TRUTH, "solid"), "prediction": (PREDICTED, "dashed")})
    return figure


def prediction_overlay(image: np.ndarray, probs: np.ndarray, report: str) -> Figure:
    """One image with the contour of its predicted lesion and the report as title."""
    figure, ax = plt.subplots(figsize=(5, 5.4), layout="constrained")
    show_image(ax, image, report)
    outline(ax, probs, PREDICTED)
    legend(figure, {"prediction": (PREDICTED, "solid")})
    return figure
