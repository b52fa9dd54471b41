"""Static figures: overlays, curves, predictions, and what the teacher saw. Colours are safe for the colour-blind."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semimedref_core.data.pairs import Pairs

# Okabe and Ito's palette. Truth and prediction differ in line style too.
TRUTH, PREDICTED = "#56B4E9", "#E69F00"
METHOD_COLOURS = {"supervised": "#0072B2", "semi_medref": "#D55E00"}


def show_image(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """A grey image ``[H, W]`` without axes; the title is wrapped."""
    ax.imshow(image, cmap="gray")
    ax.set_axis_off()
    if title:
        ax.set_title("\n".join(textwrap.wrap(title, 34)), fontsize=8)


def outline(ax: Axes, mask: np.ndarray, colour: str = TRUTH, style: str = "solid") -> None:
    """The contour of a mask ``[H, W]`` (0/1 or probabilities, cut at 0.5), which leaves the image visible."""
    if mask.max() >= 0.5:
        ax.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.6)


def sample_gallery(pairs: Pairs, count: int = 4) -> Figure:
    """The first pairs: image, mask as a contour, report as title."""
    count = min(count, len(pairs))
    figure, axes = _grid(1, count, 3.0, 3.6)
    for ax, image, mask, report in zip(axes[0], pairs.images, pairs.masks, pairs.reports, strict=False):
        show_image(ax, image, report.render())
        outline(ax, mask)
    _legend(figure, {"mask": (TRUTH, "solid")})
    return figure


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
    figure, axes = _grid(len(weak), 3, 3.2, 3.6)
    for row, (image, p, pasted, y, (own, text)) in zip(
        axes, zip(weak, probs, mixed, target, titles, strict=True), strict=True
    ):
        show_image(row[0], image, own)
        row[1].imshow(p, cmap="cividis", vmin=0, vmax=1)
        row[1].set_axis_off()
        row[1].set_title("teacher's probability", fontsize=8)
        show_image(row[2], pasted, text)
        outline(row[2], y, PREDICTED)
    _legend(figure, {"target of the student": (PREDICTED, "solid")})
    return figure


def prediction_gallery(pairs: Pairs, predictions: Mapping[str, np.ndarray]) -> Figure:
    """Each method's prediction on the same pairs, one pair a column, the report on top.

    Args:
        pairs: N pairs with masks.
        predictions: method -> ``[N, H, W]`` probabilities.
    """
    figure, axes = _grid(len(predictions), len(pairs), 3.0, 3.4)
    for r, (method, probs) in enumerate(predictions.items()):
        for ax, image, mask, p, report in zip(axes[r], pairs.images, pairs.masks, probs, pairs.reports, strict=True):
            show_image(ax, image, report.render() if r == 0 else "")
            outline(ax, mask)
            outline(ax, p, PREDICTED, "dashed")
            dice = 2 * (mask * (p >= 0.5)).sum() / max(1, mask.sum() + (p >= 0.5).sum())
            ax.text(
                0.02, 0.03, f"{method}  Dice {dice:.2f}", transform=ax.transAxes, color="white", fontsize=8,
                bbox={"facecolor": "black", "alpha": 0.6, "pad": 2},
            )  # fmt: skip
    _legend(figure, {"mask": (TRUTH, "solid"), "prediction": (PREDICTED, "dashed")})
    return figure


def prediction_overlay(image: np.ndarray, probs: np.ndarray, report: str) -> Figure:
    """One image with the contour of its predicted lesion and the report as title."""
    figure, ax = plt.subplots(figsize=(5, 5.4), layout="constrained")
    show_image(ax, image, report)
    outline(ax, probs, PREDICTED)
    _legend(figure, {"prediction": (PREDICTED, "solid")})
    return figure


def _grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Axes ``[rows, columns]``, each of this size in inches, with room for three lines of title and a legend below."""
    size = (width * columns, height * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(h_pad=0.12, rect=(0, 0, 1, 0.98))
    return figure, axes


def _legend(figure: Figure, entries: Mapping[str, tuple[str, str]]) -> None:
    lines = [Line2D([], [], color=colour, linestyle=style, linewidth=1.6) for colour, style in entries.values()]
    figure.legend(lines, list(entries), loc="outside lower center", ncols=len(lines), fontsize=8, frameon=False)
