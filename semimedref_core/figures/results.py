"""Finished runs: the score of each method at each label ratio, and over training time."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semimedref_core.experiments.in_words import percent
from semimedref_core.figures.canvas import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, TYPE, VERMILION, as_text

METRIC_NAMES = {
    "dice_image": "Dice per image",
    "dice_micro": "Dice micro",
    "miou_image": "mIoU per image",
    "miou_micro": "mIoU micro",
}
_GREY = "0.45"
_MARKERS = "osD^vPX<>*"
_RATIO_LOOKS = tuple(
    {"color": colour, "marker": marker}
    for colour, marker in ((VERMILION, "o"), (BLUE, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (BLACK, "P"))
)
PAGE, ROW = 6.4, 0.24
"""Inches: the width of a page's column, where text of 10 points stays readable, and the height of a row of text."""


def method_styles(methods: Iterable[str], method: str) -> dict[str, dict]:
    """Colour, marker and weight of each method. Two methods stand out; the others are grey with different markers."""
    styles = {}
    for number, name in enumerate(sorted(set(methods) - {method, "supervised"})):
        styles[name] = {"color": _GREY, "marker": _MARKERS[number % len(_MARKERS)], "linewidth": 1.0, "zorder": 2}
    styles["supervised"] = {"color": BLUE, "marker": "s", "linewidth": 2.2, "zorder": 3}
    styles[method] = {"color": VERMILION, "marker": "o", "linewidth": 2.6, "zorder": 4}
    return styles


def score_panels(
    curves: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image", bare: pd.DataFrame | None = None
) -> Figure:
    """The mean over seeds of each method at each label ratio: one panel for each setting, one row for each method.

    The rows are sorted by the mean at the smallest label ratio. In a row, the smallest label ratio is on top. A bar is
    the 95 % interval over seeds. It needs three or more seeds: with two, Student's interval spans thirteen standard
    errors on each side. A single seed has a small mark. A dashed line is supervised training with all masks.

    Args:
        curves: of :func:`semimedref_core.experiments.statistics.learning_curves`.
        method: its rows are shaded.
        metric: the metric of the curves.
        bare: the same for runs :func:`semimedref_core.experiments.results.without_help`, drawn as hollow marks.
    """
    bare = curves.iloc[:0] if bare is None else bare[bare["method"] != "supervised"]
    alone = curves.groupby("setting")["label_ratio"].transform("nunique") == 1
    shown = curves[(curves["label_ratio"] < 1) | alone]
    looks = dict(zip(np.sort(shown["label_ratio"].unique()), itertools.cycle(_RATIO_LOOKS), strict=False))
    settings = list(shown.groupby("setting", sort=False))
    several = [group["label_ratio"].nunique() for _, group in settings]
    figure, axes = grid(
        [group["method"].nunique() * (3 + n) / 4 for n, (_, group) in zip(several, settings, strict=True)]
    )
    for ax, (setting, group) in zip(axes, settings, strict=True):
        ratios = sorted(group["label_ratio"].unique(), reverse=True)
        above = dict(zip(ratios, 0.8 * ((np.arange(len(ratios)) + 0.5) / len(ratios) - 0.5), strict=True))
        full = curves[(curves["setting"] == setting) & (curves["label_ratio"] == 1) & (group["label_ratio"].max() < 1)]
        full = full[full["method"] == "supervised"]
        hollow = bare[(bare["setting"] == setting) & bare["label_ratio"].isin(group["label_ratio"])]
        order = list(group.sort_values(["label_ratio", "mean"])["method"].drop_duplicates())
        if method in order:
            ax.axhspan(order.index(method) - 0.45, order.index(method) + 0.45, color="0.92", zorder=0)
        for rows, face in ((group, {}), (hollow, {"markerfacecolor": "white"})):
            for row in rows[rows["method"].isin(order)].to_dict("records"):
                place = order.index(row["method"]) + above[row["label_ratio"]]
                _score(ax, place, row, looks[row["label_ratio"]] | face)
        for mean in full["mean"]:
            ax.axvline(100 * mean, color="black", linestyle="dashed", linewidth=1.2, zorder=1)
        sure = group.loc[group["seeds"] > 2, ["low", "high"]].to_numpy().ravel()
        _limit(ax, np.concatenate([sure, *(table["mean"] for table in (group, full, hollow))]))
        ax.set_yticks(range(len(order)), map(as_text, order), fontsize=TYPE)
        ax.set_ylim(-0.6, len(order) - 0.4)
        ax.set_title(panel_title(setting, width=28), fontsize=TYPE)
        ax.grid(axis="x", alpha=0.3)
    handles = [
        Line2D([], [], linestyle="none", markersize=7, label=f"{percent(ratio)} labels", **look)
        for ratio, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), fontsize=TYPE, frameon=False,
                  handletextpad=0.1, columnspacing=1.0)  # fmt: skip
    told = f"{METRIC_NAMES[metric]} (%), valid split; bar: 95 % over three or more seeds; small: 1 seed"
    if (curves["label_ratio"] == 1).any():
        told += "\ndashed: supervised training with all masks"
    if len(bare):
        told += "\nhollow: without our help (pseudo-labels cut to reported zones, mirrored teacher)"
    figure.supxlabel(told, fontsize=TYPE)
    return figure


def _score(ax: Axes, place: float, row: dict, look: dict) -> None:
    """One mean, with its interval if it has three or more seeds; a single seed is small."""
    if row["seeds"] > 2:
        ax.hlines(place, 100 * row["low"], 100 * row["high"], color=look["color"], linewidth=2, alpha=0.5, zorder=2)
    ax.plot(100 * row["mean"], place, linestyle="none", markersize=7 if row["seeds"] > 1 else 4, zorder=3, **look)


def grid(rows: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Panels in two columns as wide as a page's column, each high enough for so many rows of text; the last of an odd
    number is alone."""
    lines = -(-len(rows) // 2)
    heights = [0.95 + ROW * max(rows[2 * line : 2 * line + 2]) for line in range(lines)]
    figure, axes = plt.subplots(
        lines, 2, figsize=(PAGE, 1.1 + sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(rows) :]:
        ax.remove()
    return figure, list(axes.flat[: len(rows)])


def _limit(ax: Axes, shares: np.ndarray) -> None:
    """Fits the x axis to the important values; the interval of two seeds may leave the panel."""
    low, high = 100 * np.nanmin(shares), 100 * np.nanmax(shares)
    ax.set_xlim(low - 0.05 * (high - low) - 0.5, high + 0.05 * (high - low) + 0.5)


def timed(curves: pd.DataFrame) -> pd.DataFrame:
    """The rows at the smallest label ratio of the settings whose times say something.

    A step of supervised training sees the fewest images. If it was not the fastest, then the times of that setting say
    more of what else the computer did. Without it nobody can tell.

    Args:
        curves: of :func:`semimedref_core.experiments.statistics.learning_curves`.
    """
    smallest = curves[curves["label_ratio"] == curves.groupby("setting")["label_ratio"].transform("min")]
    fastest = smallest["minutes"] <= smallest.groupby("setting")["minutes"].transform("min")
    believed = smallest.loc[fastest & (smallest["method"] == "supervised"), "setting"]
    return smallest[smallest["setting"].isin(believed)]


def cost_and_accuracy(curves: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image") -> Figure:
    """The metric over the mean minutes of a run: one panel for each setting.

    A grey line joins the methods that no other method beats in both. The legend is sorted by the means.

    Args:
        curves: of :func:`timed`.
    """
    styles = method_styles(curves["method"], method)
    settings = list(curves.groupby("setting", sort=False))
    handles = {}
    figure, axes = grid([9] * len(settings))
    for ax, (setting, group) in zip(axes, settings, strict=True):
        rows = group.sort_values("minutes")
        front = rows[rows["mean"] >= rows["mean"].cummax()]
        ax.plot(front["minutes"], 100 * front["mean"], color="0.8", linewidth=4, zorder=1, solid_capstyle="round")
        for row in rows.itertuples():
            # Hollow marks, so that one on top of another one leaves it visible.
            style = {**styles[row.method], "linestyle": "none", "markersize": 9, "markeredgewidth": 2}
            style |= {"markerfacecolor": "none", "markeredgecolor": styles[row.method]["color"]}
            handles[row.method] = ax.plot(row.minutes, 100 * row.mean, **style)[0]
        ax.set(xlabel="minutes a run", xlim=(0, 1.08 * rows["minutes"].max()))
        ax.margins(y=0.08)
        ax.set_title(panel_title(setting, rows["label_ratio"].iloc[0], 28), fontsize=TYPE)
        ax.grid(alpha=0.3)
    figure.supylabel(f"{METRIC_NAMES[metric]} (%)", fontsize=TYPE)
    order = list(
        curves.groupby("method")["mean"].mean().sort_values(ascending=False).index.intersection(handles, sort=False)
    )
    figure.legend(
        [handles[name] for name in order], map(as_text, order), loc="outside lower center", ncols=4, fontsize=TYPE,
        frameon=False,
    )  # fmt: skip
    return figure


def spread(values: list[float], gap: float) -> np.ndarray:
    """Places for labels: as close as possible to the ascending values, with a distance of at least ``gap``."""
    blocks = []  # each [sum of (value - own offset), count]: labels that touch move together, to their mean
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and _start(blocks[-1], gap) < _start(blocks[-2], gap) + gap * blocks[-2][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    return np.array([_start(block, gap) + gap * i for block in blocks for i in range(block[1])])


def _start(block: list, gap: float) -> float:
    return block[0] / block[1] - gap * (block[1] - 1) / 2


def panel_title(setting: str, ratio: float | None = None, width: int = 200) -> str:
    """The title of a panel: the data in the first line, other settings below it, in lines of so many letters."""
    dataset, _, others = setting.partition(", ")
    labels = "" if ratio is None else f", {percent(ratio)} labels"
    return as_text("\n".join([f"{dataset}{labels}", *textwrap.wrap(others, width)]))


def removal_curves(
    tables: Mapping[str, Sequence[pd.DataFrame]], method: str = "semi_medref", metric: str = "dice_image"
) -> Figure:
    """A metric over the removal rate: a line for the mean of each method, and dots for its seeds.

    Lines differ in colour, mark and style, and each has its name at its end. The method has its colour and mark of the
    other figures. Blue, the colour of supervised training there, is not used.

    Args:
        tables: name of the method -> for each seed the rows of one mode in a table of
            :func:`semimedref_core.tools.positions.reports_table`, such as ``table[table["reports"] == "removed"]``.
            The looks of the others repeat after five.
        method: the one in the method's colour.
        metric: the metric to draw.

    Raises:
        ValueError: if the tables of a method have several modes.
    """
    figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    ends = {}
    # In this order colour-blind readers can tell neighbours apart. Purple is last: they may take it for green or sky.
    colours, styles = (BLACK, GREEN, SKY, ORANGE, PURPLE), ("--", "-.", ":", "-", "--")
    others = itertools.cycle(zip(colours, "sD^vP", styles, strict=True))
    looks = {name: (VERMILION, "o", "-") if name == method else next(others) for name in tables}
    for name, of_seeds in tables.items():
        colour, marker, style = looks[name]
        rows = pd.concat(of_seeds)
        if rows["reports"].nunique() != 1:
            raise ValueError(f"{name}: a line is of one kind of reports, got {', '.join(rows['reports'].unique())}")
        mean = 100 * rows.groupby("removal_rate")[metric].mean()
        aside = 0.02 * (len(ends) - (len(tables) - 1) / 2)  # so that no mark lies under another one
        ax.plot(rows["removal_rate"] + aside, 100 * rows[metric], ".", color=colour, alpha=0.8, markersize=8, zorder=4)
        look = {"color": colour, "marker": marker, "linestyle": style, "markeredgecolor": BLACK}
        ax.plot(mean.index + aside, mean, linewidth=2, markersize=6.5, **look)
        ends[name] = mean.index[-1] + aside, mean.iloc[-1]
    low, high = ax.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][1])
    places = spread([ends[name][1] for name in order], 0.065 * (high - low))
    for name, place in zip(order, places, strict=True):
        colour = looks[name][0]
        ax.annotate(
            as_text(name), ends[name], (1.09, place), fontsize=TYPE, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.2, "shrinkA": 1, "shrinkB": 3,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
    ax.set(xlim=(-0.06, 1.06), ylim=(min(low, places[0]), max(high, places[-1])))
    ax.set_xlabel("removal rate: share of the reports that lack their positions")
    ax.set_ylabel(f"{METRIC_NAMES[metric]} (%)")
    ax.grid(alpha=0.3)
    return figure
