"""ITCL: positives, gradients, temperatures, and the space of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semimedref_core.figures.canvas import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, as_text
from semimedref_core.reports import Report

POSITIVE_COLOURS = {"hard": VERMILION, "soft": BLUE}
SIDE_COLOURS = {"left only": ORANGE, "right only": BLUE, "both sides": GREEN, "no infection": PURPLE}


def short(report: Report) -> str:
    """The position phrases of a report in short form, such as ``all left + lower right``."""
    return " + ".join(phrase.removesuffix(" lung") for phrase in report.phrases) or "no infection"


def sides(report: Report) -> str:
    """The entry of :data:`SIDE_COLOURS` for a report."""
    left, right = any(report.side("left")), any(report.side("right"))
    return "both sides" if left and right else "left only" if left else "right only" if right else "no infection"


def heat_maps(matrices: Mapping[str, np.ndarray], labels: Sequence[str], meaning: str, top: float) -> Figure:
    """Matrices over images (rows) and texts (columns), on one colour scale.

    Args:
        matrices: title -> ``[N, N]``, at least 0.
        labels: N names of the rows.
        meaning: label of the colour bar.
        top: end of the colour scale; larger values have its last colour.
    """
    values = list(matrices.values())
    # Fixed places in inches: nothing jumps between the answers of a widget, and no layout is computed.
    side, left, between, bottom = max(3.6, 0.17 * len(labels)), 3.05, 0.2, 0.35
    width, height = left + len(values) * (side + between) + 0.8, side + bottom + 0.4
    figure = plt.figure(figsize=(width, height))
    for k, (title, matrix) in enumerate(matrices.items()):
        x = left + k * (side + between)
        ax = figure.add_axes((x / width, bottom / height, side / width, side / height), xticks=[], yticks=[])
        drawn = ax.imshow(matrix, cmap="cividis", vmin=0, vmax=top)
        ax.set_title(title, y=1)
        ax.set_xlabel("text j, in the order of the rows")
    font = {"fontsize": 10, "ha": "right", "va": "center"}
    for i, label in enumerate(labels):
        figure.axes[0].text(-0.02, i, as_text(label), transform=figure.axes[0].get_yaxis_transform(), **font)
    extend = "max" if max(matrix.max() for matrix in values) > 1.001 * top else "neither"
    beside = figure.add_axes(((x + side + 0.15) / width, (bottom + 0.1) / height, 0.15 / width, (side - 0.2) / height))
    figure.colorbar(drawn, cax=beside, label=meaning, extend=extend)
    return figure


def pulls(u: np.ndarray, v: np.ndarray, arrows: Mapping[str, np.ndarray], reports: Sequence[Report]) -> Figure:
    """Image and text embeddings on the unit circle, and the directions in which the loss moves the images.

    Args:
        u, v: ``[N, 2]`` unit vectors.
        arrows: title -> ``[N, 2]``, the step of each image.
        reports: N reports.
    """
    colours = [BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE]
    figure, axes = plt.subplots(1, len(arrows), figsize=(4.3 * len(arrows), 5), layout="constrained", squeeze=False)
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97))
    for ax, (title, steps) in zip(axes[0], arrows.items(), strict=True):
        ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.8"))
        for i, colour in enumerate(colours[: len(u)]):
            ax.plot(*u[i], "o", color=colour, markersize=9, markerfacecolor="white", markeredgewidth=2)
            ax.plot(*v[i], "s", color=colour, markersize=9)
            ax.annotate("", u[i] + steps[i], u[i], arrowprops={"arrowstyle": "-|>", "color": BLACK, "linewidth": 1.6})
            ax.text(*(0.86 * u[i]), f"u{i + 1}", ha="center", va="center", fontsize=10)
            ax.text(*(0.86 * v[i]), f"v{i + 1}", ha="center", va="center", fontsize=10)
        ax.set(title=title, xlim=(-1.35, 1.35), ylim=(-1.2, 1.25), aspect="equal")
        ax.set_axis_off()
    marks = [Line2D([], [], color=colour, marker="s", linestyle="") for colour in colours[: len(u)]]
    names = [f"{i + 1}: {short(report)}" for i, report in enumerate(reports)]
    figure.legend(
        marks,
        names,
        loc="outside lower center",
        ncols=3,
        fontsize=10,
        frameon=False,
        title="u: image (ring), v: text (square)",
    )
    return figure


def group_cosines(means: pd.DataFrame) -> Figure:
    """Mean cosines of images and texts: a column of ``means`` for each network, a row for each group of texts.

    The first word of a network's name chooses its colour: ``hard``, ``soft`` or another one.
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for name, column in means.items():
        ax.plot(means.index, column, "o-", color=_colour(name), label=name)
    ax.set(ylabel="mean cosine of image and text", xlim=(-0.3, len(means) - 0.7))
    ax.grid(alpha=0.3, axis="y")
    marks, names = ax.get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def embedding_ranks(scores: pd.DataFrame, chance: Mapping[str, float]) -> Figure:
    """How well cosines follow shared zones: a panel for the rank correlations, one for the mean P of the nearest text.

    Args:
        scores: a row for each network; the columns ``order``, ``beyond`` (correlations) and ``nearest`` (a mean P).
            Colours are those of :func:`group_cosines`.
        chance: column -> the value that chance gives, drawn as a dotted line.
    """
    panel = {"rank correlation": ["order", "beyond"], "mean P": ["nearest"]}
    words = {"order": "order", "beyond": "order, without\nthe texts' means", "nearest": "nearest\ntext"}
    figure, axes = plt.subplots(
        1, 2, figsize=(7.0, 3.6), layout="constrained", gridspec_kw={"width_ratios": [len(c) for c in panel.values()]}
    )
    width = 0.8 / len(scores)
    for ax, (label, columns) in zip(axes, panel.items(), strict=True):
        for k, (name, row) in enumerate(scores.iterrows()):
            places = np.arange(len(columns)) + (k - (len(scores) - 1) / 2) * width
            ax.bar(places, row[columns], width, color=_colour(name), label=name)
        for k, column in enumerate(columns):
            ax.plot((k - 0.45, k + 0.45), [chance[column]] * 2, ":", color=BLACK, label="chance" if k == 0 else None)
        ax.set_xticks(range(len(columns)), [words[column] for column in columns])
        ax.set_ylabel(label)
    marks, names = axes[0].get_legend_handles_labels()
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def _colour(network: str) -> str:
    return POSITIVE_COLOURS.get(network.split()[0], "0.6")


def temperatures(
    taus: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]], floors: Mapping, tau: float
) -> Figure:
    """How the loss, the sharpness of the softmax and the gradient depend on the temperature.

    Args:
        taus: ``[T]`` temperatures.
        curves: axis label -> (``hard``, ``soft`` or ``both`` -> ``[T]``).
        floors: axis label -> (``hard`` or ``soft`` -> the value that P asks for), drawn dashed.
        tau: the current temperature, which is marked.
    """
    figure, axes = plt.subplots(1, len(curves), figsize=(3.9 * len(curves), 3.6), layout="constrained")
    for ax, (label, kinds) in zip(axes, curves.items(), strict=True):
        for kind, values in kinds.items():
            ax.plot(taus, values, color=POSITIVE_COLOURS.get(kind, BLACK))
            if values.max() > 10 * values.min():
                ax.set_yscale("log")
        for kind, value in floors.get(label, {}).items():
            ax.axhline(value, color=POSITIVE_COLOURS[kind], linestyle="dashed", linewidth=1)
        ax.axvline(tau, color="0.6", linestyle="dotted")
        ax.set(xscale="log", xlabel=r"$\tau$", ylabel=label)
        ax.grid(alpha=0.3)
    marks = [Line2D([], [], color=colour) for colour in (POSITIVE_COLOURS["soft"], POSITIVE_COLOURS["hard"], BLACK)]
    marks += [Line2D([], [], color="0.3", linestyle="dashed"), Line2D([], [], color="0.6", linestyle="dotted")]
    names = ["soft positives", "hard positives", "both", "what P asks for", r"$\tau$ in use"]
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), fontsize=10, frameon=False)
    return figure


def embedding_space(spaces: Mapping[str, tuple[np.ndarray, np.ndarray]], reports: Sequence[Report]) -> Figure:
    """Image embeddings (dots) and text embeddings (crosses) in the plane, coloured by the sides that reports name.

    Args:
        spaces: title -> (images ``[N, 2]``, texts ``[N, 2]``).
        reports: N reports.
    """
    kinds = [sides(report) for report in reports]
    shown = [kind for kind in SIDE_COLOURS if kind in kinds]
    colours = [SIDE_COLOURS[kind] for kind in kinds]
    figure, axes = plt.subplots(
        1, len(spaces), figsize=(3.9 * len(spaces), 4.2), layout="constrained", squeeze=False, sharex=True, sharey=True
    )
    for ax, (title, (images, texts)) in zip(axes[0], spaces.items(), strict=True):
        ax.scatter(*images.T, c=colours, s=16, alpha=0.75, linewidths=0)
        ax.scatter(*texts.T, c=colours, s=34, marker="x", linewidths=1.3)
        ax.set(title=title, xticks=[], yticks=[])
    marks = [Line2D([], [], color=SIDE_COLOURS[kind], marker="o", linestyle="") for kind in shown]
    marks += [Line2D([], [], color="0.3", marker=mark, linestyle="") for mark in "ox"]
    names = [*shown, "image", "text"]
    figure.legend(marks, names, loc="outside lower center", ncols=len(names), fontsize=10, frameon=False)
    return figure
