"""Training: curves, and what the teacher tells the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from semimedref_core.figures.canvas import BLUE, PREDICTED, VERMILION, legend, outline, panels, show_image

METHOD_COLOURS = {"supervised": BLUE, "semi_medref": VERMILION}


def training_curves(logs: Mapping[str, Sequence[dict]]) -> Figure:
    """Training loss on labelled pairs, and validation Dice of student and teacher, of each method's metrics.jsonl."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for method, lines in logs.items():
        colour = METHOD_COLOURS[method]
        losses = [(line["step"], line["loss_labelled"]) for line in lines if "loss_labelled" in line]
        left.plot(*zip(*losses, strict=True), color=colour, label=method)
        for network, style in (("student", "dotted"), ("teacher", "solid")):
            scores = [(line["step"], 100 * line["valid"][network]["dice_image"]) for line in lines if "valid" in line]
            right.plot(
                *zip(*scores, strict=True), color=colour, linestyle=style, marker="o", label=f"{method}, {network}"
            )
    left.set(xlabel="step", ylabel="DiceCE on labelled pairs", ylim=(0, None))
    right.set(xlabel="step", ylabel="validation Dice per image (%)")
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    return figure


def mixing_gallery(
    weak: np.ndarray, probs: np.ndarray, mixed: np.ndarray, target: np.ndarray, titles: Sequence[tuple[str, str]]
) -> Figure:
    """What the teacher saw and what the student gets, one sample a row.

    Args:
        weak, mixed: ``[N, H, W]`` images; probs: ``[N, H, W]`` teacher probabilities; target: ``[N, H, W]`` 0/1.
        titles: N pairs (report that the teacher read, text that the student reads).
    """
    figure, axes = panels(len(weak), 3, 3.2, 3.6)
    for row, (image, p, pasted, y, (own, text)) in zip(
        axes, zip(weak, probs, mixed, target, titles, strict=True), strict=True
    ):
        show_image(row[0], image, own)
        row[1].imshow(p, cmap="cividis", vmin=0, vmax=1)
        row[1].set_axis_off()
        row[1].set_title("teacher's probability", fontsize=8)
        show_image(row[2], pasted, text)
        outline(row[2], y, PREDICTED)
    legend(figure, {"target of the student": (PREDICTED, "solid")})
    return figure
