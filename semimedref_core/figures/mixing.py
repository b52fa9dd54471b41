"""T-PatchMix: zone boxes and patches, a mixed pair, the gate, rewritten reports, outcomes of proposals."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from semimedref_core.figures.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PATCH,
    PREDICTED,
    SKY,
    TRUTH,
    TYPE,
    VERMILION,
    YELLOW,
    as_text,
    box,
    legend,
    outline,
    panels,
    show_image,
)
from semimedref_core.reports import Report
from semimedref_core.tools.mixing_audit import OUTCOMES

GOES, COMES = "#cfcfcf", YELLOW
MODE_STYLES = {"position": (BLUE, "solid"), "probability": (ORANGE, "dashed"), "random": (GREEN, "dotted")}
OUTCOME_STYLES = dict(zip(OUTCOMES, ((GREEN, ""), (ORANGE, "//"), (VERMILION, "xx"), ("#d9d9d9", "")), strict=True))


def teacher_gallery(images: np.ndarray, masks: np.ndarray, probs: np.ndarray) -> Figure:
    """Images with their masks above, the teacher's probabilities ``[N, H, W]`` below; one column for each pair."""
    figure, axes = panels(2, len(images), 2.4, 2.35)
    for (top, bottom), image, mask, p in zip(axes.T, images, masks, probs, strict=True):
        show_image(top, image)
        shown = bottom.imshow(p, cmap="cividis", vmin=0, vmax=1)
        bottom.set_axis_off()
        for ax in (top, bottom):
            outline(ax, mask)
    figure.colorbar(shown, ax=list(axes[1]), shrink=0.8, label="probability p")
    legend(figure, {"mask": (TRUTH, "solid")})
    return figure


def broken_pair(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], patches: Sequence, reports: Sequence[Report], titles
) -> Figure:
    """Two samples before and after plain CutMix, which does not change their reports.

    Args:
        images, masks: two ``[2, H, W]`` each, before and after mixing; titles: the fault of each sample.
    """
    figure, axes = panels(1, 4, 2.9, 3.2)
    for k, (report, title) in enumerate(zip(reports, titles, strict=True)):
        own, mixed = axes[0, 2 * k : 2 * k + 2]
        for ax, moment, above in ((own, 0, report.render()), (mixed, 1, title)):
            show_image(ax, images[moment][k], above)
            outline(ax, masks[moment][k])
            box(ax, patches[k], PATCH, "dashed")
    legend(figure, {"mask before and after": (TRUTH, "solid"), "patch": (PATCH, "dashed")})
    return figure


def proposals(
    image: np.ndarray, p: np.ndarray, boxes: np.ndarray, report: Report, patches: Mapping[str, Sequence]
) -> Figure:
    """The places of patches in each mode: many draws for one donor, with its zones.

    Args:
        image, p: ``[H, W]`` of the donor; boxes: ``[6, 4]`` px; report: the donor's report.
        patches: mode -> drawn patches (y0, x0, y1, x1).
    """
    figure, axes = panels(1, 1 + len(patches), 2.9, 3.4)
    show_image(axes[0, 0], image, f"donor: {report}")
    for corners, named in zip(boxes, report.zones, strict=True):
        box(axes[0, 0], corners, SKY, "solid" if named else "dotted", 1.2, 0.2 if named else 0)
    for ax, (mode, drawn) in zip(axes[0, 1:], patches.items(), strict=True):
        show_image(ax, image, f"{mode}: {len(drawn)} patches")
        outline(ax, p, PREDICTED)
        for corners, named in zip(boxes, report.zones, strict=True):
            box(ax, corners, SKY, "solid" if named else "dotted", 0.8)
        for patch in drawn:
            box(ax, patch, PATCH, "solid", 1.4)
    zones = {"zone named": (SKY, "solid"), "zone not named": (SKY, "dotted")}
    legend(figure, {**zones, "patch": (PATCH, "solid"), "teacher's p at least 0.5": (PREDICTED, "solid")})
    return figure


def mixed_pair(
    images: np.ndarray,
    probs: np.ndarray,
    mixed: np.ndarray,
    target: np.ndarray,
    patch: Sequence[int],
    reports: Sequence[Report],
    accepted: bool,
) -> Figure:
    """Image, target and text of one pair, mixed (frame dashed) or refused (frame dotted).

    Args:
        images, probs: ``[2, H, W]`` receiver and donor; mixed, target: ``[H, W]`` for the student.
        patch: (y0, x0, y1, x1) px; an empty patch has no frame.
        reports: of the receiver, of the donor, and for the student.
    """
    figure = plt.figure(figsize=(9.6, 7.5))
    # Fixed places: nothing jumps between the answers of the widget, and no layout is computed.
    places = {"left": 0.01, "right": 0.99, "bottom": 0.06, "top": 0.96, "hspace": 0.13, "wspace": 0.04}
    axes = figure.subplot_mosaic("ABC;DEF;TTT", height_ratios=(1, 1, 0.3), gridspec_kw=places)
    outcome = "mixed" if accepted else "refused: the receiver's own"
    titles = ("receiver $s_i$", "donor $s_j$", outcome, "$p_i$", "$p_j$", "mixed p" if accepted else "$p_i$")
    for name, title, shown in zip("ABCDEF", titles, (*images, mixed, *probs, target), strict=True):
        show_image(axes[name], shown)
        axes[name].set_title(title, fontsize=TYPE, y=1)  # the title has formulas
    for name in "DEF":
        axes[name].images[0].set(cmap="cividis", clim=(0, 1))
    outline(axes["C"], target, PREDICTED)
    outline(axes["F"], target, PREDICTED)
    if patch[2] > patch[0] and patch[3] > patch[1]:
        for name in "ABCDEF" if accepted else "ABDE":
            box(axes[name], patch, PATCH, "dashed" if accepted else "dotted")
    own, donor, told = (report.render() for report in reports)
    _write(
        axes["T"], [("receiver", own, told, GOES), ("donor", donor, donor, GOES), ("student reads", told, own, COMES)]
    )
    legend(
        figure, {"patch": (PATCH, "dashed" if accepted else "dotted"), "target of the student": (PREDICTED, "solid")}
    )
    return figure


def rewritten_reports(rewrites: Sequence[tuple[Report, str, Report]]) -> Figure:
    """Reports before and after a zone is pasted, as (own, zone, merged). Removed and new words are marked."""
    size = (9.6, 0.85 * len(rewrites) + 0.3)
    figure, axes = plt.subplots(len(rewrites), 1, figsize=size, layout="constrained", squeeze=False)
    for ax, (own, zone, merged) in zip(axes[:, 0], rewrites, strict=True):
        before, after = own.render(), merged.render()
        _write(
            ax, [("own", before, after, GOES), ("pasted", zone, zone, GOES), ("student reads", after, before, COMES)]
        )
    marks = [Patch(facecolor=GOES, label="word that goes"), Patch(facecolor=COMES, label="word that comes")]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=TYPE, frameon=False)
    return figure


def _write(ax: Axes, lines: Sequence[tuple[str, str, str, str]]) -> None:
    """Writes lines of (label, text, other text, colour) in a monospaced font. Words that are not in the other text get
    the colour."""
    indent = 2 + max(len(label) for label, *_ in lines)
    columns = max(110, indent + max(len(text) for _, text, *_ in lines))
    size = 72 * ax.figure.get_figwidth() * 0.97 / (0.602 * columns)  # the width of a letter is 0.602 of the font size
    style = {"family": "monospace", "fontsize": size, "transform": ax.transAxes, "va": "center"}
    for row, (label, text, other, colour) in enumerate(lines):
        y = 1 - (row + 0.5) / len(lines)
        ax.text(0, y, label, weight="bold", **style)
        words = list(re.finditer(r"\S+", text))
        matcher = difflib.SequenceMatcher(a=[word[0] for word in words], b=other.split(), autojunk=False)
        same = {a + n for a, _, length in matcher.get_matching_blocks() for n in range(length)}
        for k, word in enumerate(words):
            mark = None if k in same else {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
            ax.text((indent + word.start()) / columns, y, as_text(word[0]), bbox=mark, **style)
    ax.set_axis_off()


def gate_curves(
    thresholds: Sequence[float],
    accepted: Mapping[str, Sequence],
    true: Mapping[str, Sequence],
    gates: Mapping[str, float],
) -> Figure:
    """The share of accepted proposals, and the true share of lesion in their patches, over the threshold of the gate.

    Args:
        accepted, true: mode -> shares 0 to 1, one for each threshold; NaN if nothing was accepted.
        gates: name -> threshold, drawn as vertical lines.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for ax, curves in zip(axes, (accepted, true), strict=True):
        for mode, shares in curves.items():
            colour, style = MODE_STYLES[mode]
            ax.plot(thresholds, 100 * np.asarray(shares), color=colour, linestyle=style, linewidth=2, label=mode)
        for name, gate in gates.items():
            ax.axvline(gate, color="grey", linewidth=1)
            ax.text(gate, 103, name, ha="center", va="bottom", fontsize=TYPE, color="dimgrey")
        ax.set(xlabel="gate: smallest mean $p_j$ in the patch", xlim=(0, 0.75), ylim=(0, 102))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("accepted, % of proposals")
    axes[1].set_ylabel("true lesion, % of accepted patches")
    axes[1].legend(fontsize=TYPE, loc="lower right")
    return figure


def outcome_bars(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """The outcomes of proposals, one bar for each way of mixing: name -> outcome -> share 0 to 1."""
    figure, ax = plt.subplots(figsize=(9.6, 0.62 * len(shares) + 1.1), layout="constrained")
    for y, outcome in enumerate(shares.values()):
        left = 0.0
        for name, (colour, hatch) in OUTCOME_STYLES.items():
            part = 100 * outcome[name]
            ax.barh(y, part, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.7)
            if part >= 4:
                mark = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
                ax.text(left + part / 2, y, f"{part:.0f} %", ha="center", va="center", fontsize=TYPE, bbox=mark)
            left += part
    ax.set_yticks(range(len(shares)), shares)
    ax.set(xlim=(0, 100), xlabel="% of proposals")
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    patches = [Patch(facecolor=c, hatch=h, edgecolor="white", label=name) for name, (c, h) in OUTCOME_STYLES.items()]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(patches), fontsize=TYPE, frameon=False)
    return figure
