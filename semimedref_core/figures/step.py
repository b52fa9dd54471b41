"""One training step: the flow of tensors, one sample on its way, the gradients of each loss, and schedules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from torch import Tensor

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
from semimedref_core.tools.inspection import shape_text

_KINDS = {
    "prepared on the CPU": "#EDEDED",
    "no gradient": "#D6E9F8",
    "trained by gradient": "#FBE3B5",
    "loss": "#CDEBE0",
}
_DATA, _FIXED, _TRAINED, _LOSS = _KINDS
_LEFT = (0.0, 3.5, 6.8, 10.0, 13.6, 16.9, 20.5, 23.4)  # left edge of each column
_WIDE = (3.0, 2.8, 2.6, 2.8, 2.8, 3.1, 2.0, 0.8)
# Box: column, middle, kind, title, and its lines, symbol -> name of the tensor.
_BOXES = {
    "labelled": (0, 7.0, _DATA, "labelled pairs",
                 {"images": "labelled.images", "masks": "labelled.masks", "reports $r_l$": "labelled.input_ids",
                  "their zones": "labelled.codes"}),
    "unlabelled": (0, 3.5, _DATA, "unlabelled pairs",
                   {"images": "unlabelled.images", "reports $r_u$": "unlabelled.input_ids",
                    "their zones": "unlabelled.codes"}),
    "plan": (0, 0.9, _DATA, "plan of the mixing",
             {"partners": "unlabelled.proposal.partner", "zone boxes": "unlabelled.proposal.boxes",
              "texts, PosAug": "unlabelled.text_choices"}),
    "x": (1, 7.0, _FIXED, "weak view, report", {"$x_l$": "x_l", "$y_l$": "y_l", "$r_l$": "labelled.input_ids"}),
    "weak": (1, 3.5, _FIXED, "weak view, report", {"$x_u$": "x_u", "$r_u$": "unlabelled.input_ids"}),
    "teacher": (2, 4.35, _FIXED, "teacher", {"$p$": "p"}),
    "strong": (2, 2.65, _FIXED, "strong view", {"$s$": "s"}),
    "mix": (3, 3.25, _FIXED, "T-PatchMix",
            {"$s_{mix}$": "s_mix", "$y_{mix}$": "y_mix", "$r_{mix}$": "r_mix", "accepted": "accepted"}),
    "student": (4, 4.3, _TRAINED, "student", {"images": "images", "texts": "tokens"}),
    "mask": (5, 7.0, _TRAINED, "mask, labelled", {"logits": "logits_l"}),
    "embedding": (5, 5.55, _TRAINED, "for ITCL, labelled", {"$u_l$": "u_l", "$v_l$": "v_l"}),
    "embedding weak": (5, 4.0, _TRAINED, "for ITCL, unlabelled", {"$u_u$": "u_u", "$v_u$": "v_u"}),
    "mask mixed": (5, 2.55, _TRAINED, "mask, mixed", {"logits": "logits_mix"}),
    "loss": (6, 7.0, _LOSS, "DiceCE", {}),
    "loss itcl": (6, 5.55, _LOSS, "$w_l$ ITCL", {"zones": "labelled.codes"}),
    "loss weak": (6, 4.0, _LOSS, "$w_u w_c$ ITCL", {"zones": "unlabelled.codes"}),
    "loss mixed": (6, 2.55, _LOSS, "$w_u$ DiceCE", {}),
    "L": (7, 4.78, _LOSS, "L", {}),
}  # fmt: skip
_ARROWS = [
    ("labelled", "x"), ("unlabelled", "weak"), ("weak", "teacher"), ("weak", "strong"), ("teacher", "mix"),
    ("strong", "mix"), ("x", "student"), ("mix", "student"), ("student", "mask"), ("student", "embedding"),
    ("student", "embedding weak"), ("student", "mask mixed"), ("mask", "loss"), ("embedding", "loss itcl"),
    ("embedding weak", "loss weak"), ("mask mixed", "loss mixed"),
    ("loss", "L"), ("loss itcl", "L"), ("loss weak", "L"), ("loss mixed", "L"),
]  # fmt: skip
# Long arrows: their points, their label, and its place.
_LANES = [
    ([(4.9, 7.81), (4.9, 8.2), (21.4, 8.2), (21.4, 7.28)], "masks", (12.5, 8.3)),
    ([(4.9, 4.12), (4.9, 5.55), (13.6, 5.55)], "weak views and reports again, for the embeddings only", (9.3, 5.65)),
    ([(3.0, 0.9), (10.9, 0.9), (10.9, 2.25)], "", (0, 0)),
    ([(11.9, 2.25), (11.9, 0.5), (21.4, 0.5), (21.4, 2.27)], "mixed targets", (16.6, 0.6)),
]


def step_flow(tensors: Mapping[str, Tensor]) -> Figure:
    """The step as boxes and arrows; each box shows the shapes of its tensors.

    Args:
        tensors: the tensors of the step by name: those of the batch (dotted names) and those computed from them.
    """
    figure, ax = plt.subplots(figsize=(15, 6.4), layout="constrained")
    ax.set(xlim=(-0.1, 24.3), ylim=(0.0, 8.7))
    ax.set_axis_off()
    for name, (column, middle, kind, title, lines) in _BOXES.items():
        x, width, height = _LEFT[column], _WIDE[column], _height(name)
        low = middle - height / 2
        frame = FancyBboxPatch((x, low), width, height, "round,pad=0,rounding_size=0.1", fc=_KINDS[kind], ec="#555555")
        ax.add_patch(frame)
        top = middle if not lines else low + height - 0.27
        ax.text(x + width / 2, top, title, ha="center", va="center", fontsize=11, weight="bold")
        for row, (symbol, key) in enumerate(lines.items()):
            y, shape = low + height - 0.68 - 0.34 * row, shape_text(tensors[key]).replace(" x ", "×")
            ax.text(x + 0.1, y, symbol, va="center", fontsize=10)
            ax.text(x + width - 0.1, y, shape, va="center", ha="right", fontsize=10)
    for start, end in _ARROWS:
        (c0, y0, *_), (c1, y1, *_) = _BOXES[start], _BOXES[end]
        half0, half1 = _height(start) / 2 - 0.15, _height(end) / 2 - 0.15
        # A horizontal arrow if the two boxes overlap in height.
        leave = min(max(y1, y0 - half0), y0 + half0)
        arrive = min(max(leave, y1 - half1), y1 + half1)
        _arrow(ax, [(_LEFT[c0] + _WIDE[c0], leave), (_LEFT[c1], arrive)])
    for way, words, place in _LANES:
        _arrow(ax, way)
        ax.text(*place, words, fontsize=11, ha="center", color="#444444")
    decoded = len(tensors["logits_l"]) + len(tensors["logits_mix"])
    said = f"all three kinds\nin one pass;\n{decoded} of {len(tensors['images'])} decoded"
    ax.text(15.0, 2.4, said, fontsize=11, ha="center", va="center", color="#444444")
    _arrow(ax, [(13.6, 4.75), (9.4, 4.75)], PURPLE, "dashed")
    ax.text(11.5, 4.85, "moving average of the weights", fontsize=11, ha="center", color=PURPLE)
    handles = [Patch(facecolor=colour, edgecolor="#555555", label=kind) for kind, colour in _KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=11, frameon=False)
    return figure


def _height(box: str) -> float:
    return 6.4 if box == "student" else 0.55 + 0.36 * len(_BOXES[box][4])


def _arrow(ax: Axes, way: Sequence[tuple[float, float]], colour: str = "#444444", style: str = "solid") -> None:
    """Draws an arrow through these points."""
    x, y = zip(*way[:-1], strict=True)
    ax.plot(x, y, color=colour, linestyle=style, linewidth=1.3, solid_capstyle="butt")
    head = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0, "linestyle": style}
    ax.add_patch(FancyArrowPatch(way[-2], way[-1], color=colour, linewidth=1.3, **head))


def sample_strip(
    weak: np.ndarray,
    p: np.ndarray,
    strong: np.ndarray,
    partner: np.ndarray,
    partner_p: np.ndarray,
    mixed: np.ndarray,
    target: np.ndarray,
    patch: Sequence[int],
    texts: tuple[str, str],
) -> Figure:
    """One unlabelled sample on its way to the student.

    Args:
        weak, strong, mixed: ``[H, W]`` views of the image and its mixture; partner: ``[H, W]``, its strong view.
        p, partner_p: ``[H, W]`` teacher probabilities of both; target: ``[H, W]`` 0/1.
        patch: (y0, x0, y1, x1) px, the proposed box; empty if there is none.
        texts: the texts for the teacher and for the student.
    """
    figure, axes = panels(2, 3, 3.1, 3.1)
    titles = ["weak view", "teacher's p of this sample", "strong view", "partner's strong view", "mixed", "target"]
    for ax, picture, title in zip(axes.flat, (weak, p, strong, partner, mixed, mixed), titles, strict=True):
        show_image(ax, picture, title)
    read = "\n".join(f"{who} reads: {text}" for who, text in zip(("Teacher", "Student"), texts, strict=True))
    figure.suptitle(as_text(read), fontsize=TYPE)
    axes[0, 1].images[0].set(cmap="cividis", clim=(0, 1))
    figure.colorbar(axes[0, 1].images[0], ax=axes[0, 1], shrink=0.8, location="bottom")
    if patch[2] > patch[0]:
        for ax in axes[1]:
            box(ax, patch, PATCH, "dashed")
    outline(axes[1, 0], partner_p, PREDICTED)
    outline(axes[1, 2], target, PREDICTED)
    marked = "at least 0.5: partner's p, and target of the student"
    legend(figure, {"patch from the partner": (PATCH, "dashed"), marked: (PREDICTED, "solid")})
    return figure


def pseudo_label_gallery(
    weak: np.ndarray, regions: np.ndarray, says: np.ndarray, kept: np.ndarray, reports: Sequence[str]
) -> Figure:
    """Pseudo-labels with and without the limits of the report on the place of lesions (Ledger 5).

    Args:
        weak: ``[N, H, W]`` weak views; regions: ``[N, H, W]`` 0/1, 1 where a lesion may lie according to the report.
        says, kept: ``[N, H, W]`` probabilities of the teacher, and the same only inside the regions.
        reports: N texts.
    """
    figure, axes = panels(1, len(weak), 3.0, 3.6)
    for ax, image, region, alone, cut, report in zip(axes[0], weak, regions, says, kept, reports, strict=True):
        show_image(ax, image, report)
        outline(ax, region, SKY, "dotted")
        outline(ax, alone, PURPLE)
        outline(ax, cut, ORANGE, "dashed")
    entries = {"teacher alone": (PURPLE, "solid"), "reported zones": (SKY, "dotted"), "kept": (ORANGE, "dashed")}
    legend(figure, entries)
    return figure


def gradient_map(norms: pd.DataFrame) -> Figure:
    """Gradient norm of each loss term (rows) in each part of the network (columns), as numbers on colours."""
    figure, ax = plt.subplots(figsize=(9, 0.62 * len(norms) + 1.2), layout="constrained")
    shown = ax.imshow(norms, cmap="cividis", norm=LogNorm(), aspect="auto")
    for (row, column), value in np.ndenumerate(norms.to_numpy()):
        dark = np.isnan(value) or shown.norm(value) > 0.5
        ax.text(column, row, "none" if np.isnan(value) else f"{value:.3f}", ha="center", va="center", fontsize=11,
                color="black" if dark else "white")  # fmt: skip
    ax.set_xticks(range(norms.shape[1]), [name.replace(" ", "\n", 1) for name in norms.columns], fontsize=10)
    ax.set_yticks(range(len(norms)), [re.sub(r"w_(\w)", r"$w_\1$", name) for name in norms.index], fontsize=10)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    return figure


def schedule_curves(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Weight of the unsupervised loss, decay of the teacher and learning rate, with one column for each run.

    Args:
        runs: title -> table with the time as index (its name is the axis label) and the columns ``w_u``, ``decay``,
            ``unbounded`` (the decay without our bound) and ``lr``.
    """
    figure, axes = plt.subplots(3, len(runs), figsize=(5.2 * len(runs), 6.4), layout="constrained", sharex="col")
    for column, (title, run) in zip(axes.T, runs.items(), strict=True):
        for ax, name, colour in zip(column, ("w_u", "decay", "lr"), (VERMILION, BLUE, GREEN), strict=True):
            ax.plot(run.index, 1 - run[name] if name == "decay" else run[name], color=colour, linewidth=2)
            ax.grid(alpha=0.3)
        column[1].plot(run.index, 1 - run["unbounded"], color=BLACK, linestyle="dashed", label="without our bound")
        column[1].set(yscale="log", ylim=(5e-4, 1))
        column[1].legend(fontsize=10, loc="upper right")
        column[0].set_title(title, fontsize=11)
        column[2].set_xlabel(run.index.name)
        column[2].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for ax in axes[0]:  # both columns on one scale
        ax.set_ylim(-0.05, 1.05)
    for ax, label in zip(axes[:, 0], ("$w_u$ (Eq. 15)", "$1 - d$ (Eq. 16)", "learning rate"), strict=True):
        ax.set_ylabel(label)
    return figure


def trajectory_curves(steps: pd.DataFrame, burn_in: float, ramp: float) -> Figure:
    """A short run, step by step: loss terms, weight and mixed samples, and distance of the teacher from the student.

    Args:
        steps: one row for each step, with ``loss_labelled``, ``loss_mixed``, ``loss_itcl``, ``w_u``, ``accepted``,
            ``gap`` (distance between the weights of teacher and student) and ``move`` (length of the student's step),
            both relative to the student's weights.
        burn_in, ramp: lengths in steps.
    """
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    smooth = steps.rolling(5, min_periods=1, center=True).mean()
    lines = [
        {"loss_labelled": (BLUE, "DiceCE, labelled"), "loss_mixed": (VERMILION, "DiceCE, mixed"),
         "loss_itcl": (GREEN, "ITCL, labelled")},
        {"w_u": (VERMILION, "$w_u$"), "accepted": (BLACK, "samples mixed")},
        {"gap": (PURPLE, "teacher to student"), "move": (ORANGE, "one step of the student")},
    ]  # fmt: skip
    for ax, curves in zip(axes, lines, strict=True):
        ax.axvspan(0, burn_in, color="#CCCCCC", alpha=0.6, linewidth=0)
        ax.axvspan(burn_in, burn_in + ramp, color="#CCCCCC", alpha=0.25, linewidth=0)
        for name, (colour, label) in curves.items():
            values = steps[name] if name == "w_u" else smooth[name].where(steps[name].notna())
            ax.plot(steps.index, values, color=colour, label=label, linewidth=2)
        ax.set(xlabel="step", ylim=(0, None), xlim=(0, len(steps)))
        ax.grid(alpha=0.3)
        if "gap" in curves:  # room for the legend above the curves
            ax.set_ylim(0, 1.3 * smooth[["gap", "move"]].max().max())
        ax.legend(fontsize=10)
        for place, words in ((burn_in / 2, "burn-in"), (burn_in + ramp / 2, "ramp")):
            ax.text(place, 1.01, words, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=10)
    for ax, label in zip(
        axes, ("loss term", "weight, or share of samples", "distance / length of the weights"), strict=True
    ):
        ax.set_ylabel(label)
    return figure
