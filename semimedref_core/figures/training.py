"""Training: curves, and mixed samples."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from semimedref_core.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PATCH,
    PREDICTED,
    PURPLE,
    SKY,
    TYPE,
    VERMILION,
    as_text,
    box,
    legend,
    outline,
    panels,
    show_image,
)

METHOD_COLOURS = {"supervised": BLUE, "semi_medref": VERMILION}
OTHER_COLOURS = (GREEN, PURPLE, ORANGE, SKY, BLACK)  # colours of further methods, in their order


def training_curves(logs: Mapping[str, Sequence[dict]]) -> Figure:
    """Training loss on labelled pairs, and validation Dice of student and teacher, of each method's metrics.jsonl."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    others = itertools.cycle(OTHER_COLOURS)
    for method, lines in logs.items():
        colour = METHOD_COLOURS.get(method) or next(others)
        losses = [(line["step"], line["loss_labelled"]) for line in lines if "loss_labelled" in line]
        left.plot(*zip(*losses, strict=True), color=colour, label=as_text(method))
        for network, style in (("student", "dotted"), ("teacher", "solid")):
            scores = [(line["step"], 100 * line["valid"][network]["dice_image"]) for line in lines if "valid" in line]
            right.plot(
                *zip(*scores, strict=True),
                color=colour,
                linestyle=style,
                marker="o",
                label=as_text(f"{method}, {network}"),
            )
    left.set(xlabel="step", ylabel="DiceCE on labelled pairs", ylim=(0, None))
    right.set(xlabel="step", ylabel="validation Dice per image (%)")
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=TYPE)
    return figure


def mixing_gallery(
    weak: np.ndarray,
    probs: np.ndarray,
    mixed: np.ndarray,
    target: np.ndarray,
    patches: Sequence[Sequence[int]],
    titles: Sequence[tuple[str, str]],
) -> Figure:
    """The teacher's view and the student's mixed sample, one row for each sample.

    Args:
        weak, mixed: ``[N, H, W]`` images; probs: ``[N, H, W]`` teacher probabilities; target: ``[N, H, W]`` 0/1.
        patches: N boxes (y0, x0, y1, x1) px of the pasted patches.
        titles: N pairs (report that the teacher read, text that the student reads).
    """
    figure, axes = panels(len(weak), 3, 3.2, 3.6)
    for row, image, p, pasted, y, patch, (own, text) in zip(
        axes, weak, probs, mixed, target, patches, titles, strict=True
    ):
        show_image(row[0], image, f"report: {own}")
        shown = row[1].imshow(p, cmap="cividis", vmin=0, vmax=1)
        row[1].set_axis_off()
        row[1].set_title("teacher's probability", fontsize=TYPE)
        show_image(row[2], pasted, f"the student reads: {text}")
        outline(row[2], y, PREDICTED)
        box(row[2], patch, PATCH, "dashed")
    figure.colorbar(shown, ax=list(axes[:, 1]), shrink=0.6, location="bottom", label="probability p")
    legend(figure, {"target of the student": (PREDICTED, "solid"), "patch": (PATCH, "dashed")})
    return figure


DICE = "validation Dice per image (%)"
# Label of a panel of the replay -> name of its curve, colour, line style.
REPLAYED = {
    "mean loss": {
        "DiceCE, labelled": (BLUE, "solid"), "DiceCE, mixed": (VERMILION, "dashed"), "ITCL, labelled": (GREEN, "dotted")
    },
    "share of largest, or of samples": {
        "w_u": (BLUE, "solid"), "learning rate": (GREEN, "dotted"), "samples mixed": (VERMILION, "dashed")
    },
    DICE: {"teacher": (VERMILION, "solid"), "student": (VERMILION, "dotted")},
}  # fmt: skip


def replay_panels(curves: Mapping[str, np.ndarray], step: int) -> Figure:
    """A run's curves up to a step, on the axes of the whole run.

    The axis of Dice starts below its lowest value, so that teacher and student can be told apart.

    Args:
        curves: name as in :data:`REPLAYED` -> ``[n, 2]`` of (step, value); empty curves are left out. ``w_u`` and
            ``learning rate`` are shares of their largest, ``samples mixed`` is a share of the samples.
        step: later points are not drawn.
    """
    figure = plt.figure(figsize=(9.6, 6.2))  # no wider, so that a narrow window does not make the letters small
    places = {"left": 0.07, "right": 0.985, "bottom": 0.08, "top": 0.95, "wspace": 0.2, "hspace": 0.35}
    axes = figure.subplot_mosaic("AB;CC", gridspec_kw=places).values()  # fixed: nothing jumps between steps
    last = max(curve[-1, 0] for curve in curves.values() if len(curve))
    for ax, (panel, styles) in zip(axes, REPLAYED.items(), strict=True):
        drawn = {name: curves[name] for name in styles if len(curves[name])}
        for name, curve in drawn.items():
            colour, style = styles[name]
            past = curve[curve[:, 0] <= step]
            every = 1 if panel == DICE else [-1]  # validations are few: each has a mark
            ax.plot(*past.T, color=colour, linestyle=style, marker="o", markersize=3, markevery=every, label=name)
        ax.axvline(step, color="grey", linewidth=0.8)
        values = np.concatenate([curve[:, 1] for curve in drawn.values()] or [np.ones(1)])
        low = values.min() - 0.2 * np.ptp(values) - 1 if panel == DICE else 0
        top = values.max() + 0.08 * (values.max() - low)
        ax.set(xlabel="step", ylabel=panel, xlim=(0, 1.02 * last), ylim=(low, top))
        ax.locator_params(nbins=5)
        ax.grid(alpha=0.3)
        if drawn:
            ax.legend(
                fontsize=TYPE,
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
                ncols=len(styles),
                columnspacing=0.6,
                handlelength=1.4,
                handletextpad=0.3,
                frameon=False,
            )
    return figure
