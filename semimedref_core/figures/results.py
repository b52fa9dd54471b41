"""Finished runs: accuracy over label ratio, and over training time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semimedref_core.figures.canvas import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, TYPE, VERMILION, as_text

METRIC_NAMES = {
    "dice_image": "Dice per image",
    "dice_micro": "Dice micro",
    "miou_image": "mIoU per image",
    "miou_micro": "mIoU micro",
}
_GREY = "0.45"
_MARKERS = "osD^vPX<>*"


def method_styles(methods: Iterable[str], method: str) -> dict[str, dict]:
    """Colour, marker and weight of each method. Two methods stand out; the others are grey with different markers."""
    styles = {}
    for number, name in enumerate(sorted(set(methods) - {method, "supervised"})):
        styles[name] = {"color": _GREY, "marker": _MARKERS[number % len(_MARKERS)], "linewidth": 1.0, "zorder": 2}
    styles["supervised"] = {"color": BLUE, "marker": "s", "linewidth": 2.2, "zorder": 3}
    styles[method] = {"color": VERMILION, "marker": "o", "linewidth": 2.6, "zorder": 4}
    return styles


def curve_panels(
    curves: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image", bare: pd.DataFrame | None = None
) -> Figure:
    """Mean over seeds by label ratio, with 95 % intervals: one panel for each setting.

    The method and supervised training have bands, the others have bars. Both need three or more seeds: with two seeds,
    Student's interval spans thirteen standard errors on each side. A dashed line is supervised training with all masks.
    A setting with one label ratio is shown as points, with one column for each method.

    Args:
        curves: of :func:`semimedref_core.experiments.statistics.learning_curves`.
        method: drawn in front.
        metric: the metric of the curves.
        bare: the same for runs :func:`semimedref_core.experiments.results.without_help`, drawn as hollow marks.
    """
    styles = method_styles(curves["method"], method)
    bare = curves.iloc[:0] if bare is None else bare[bare["method"] != "supervised"]
    ratios = curves.groupby("setting")["label_ratio"].transform("nunique")
    settings = list(curves[(curves["label_ratio"] < 1) | (ratios == 1)].groupby("setting", sort=False))
    widths = [5.6 if group["label_ratio"].nunique() > 1 else max(2.8, 1.6 + 0.3 * len(group)) for _, group in settings]
    figure, axes = plt.subplots(
        1, len(settings), figsize=(sum(widths) + 0.4, 4.4), width_ratios=widths, layout="constrained", squeeze=False
    )
    for ax, (setting, group) in zip(axes[0], settings, strict=True):
        full = curves[(curves["setting"] == setting) & (curves["label_ratio"] == 1) & (group["label_ratio"].max() < 1)]
        full = full[full["method"] == "supervised"]
        several = group["label_ratio"].nunique() > 1
        hollow = bare[(bare["setting"] == setting) & bare["label_ratio"].isin(group["label_ratio"])]
        labels = []
        if several:
            labels = _curves(ax, group, styles, method)
            _hollow(ax, hollow, hollow["label_ratio"], styles)
            ax.set_title(panel_title(setting), fontsize=TYPE)
        else:
            order = list(group.sort_values("mean")["method"])
            _columns(ax, group, styles)
            _hollow(ax, hollow, hollow["method"].map(order.index), styles)
            ax.set_title(panel_title(setting, group["label_ratio"].iloc[0]), fontsize=TYPE)
        for mean in full["mean"]:
            ends = (group["label_ratio"].min(), group["label_ratio"].max()) if several else (-0.5, len(group) - 0.5)
            ax.hlines(100 * mean, *ends, color=BLUE, linestyle="dashed", linewidth=1.2)
            ax.annotate(
                "supervised, all masks", (ends[0], 100 * mean), (0, 3), textcoords="offset points", fontsize=TYPE,
                color=BLUE,
            )  # fmt: skip
        _limit(
            ax,
            np.append(group[["low", "high"]].to_numpy()[group["seeds"] > 2], [group["mean"], group["mean"]]),
            [*full["mean"], *hollow["mean"], *labels],
        )
        ax.grid(axis="y", alpha=0.3)
    if len(bare):
        figure.supxlabel(
            "hollow: without our help (pseudo-labels cut to reported zones, mirrored teacher)", fontsize=TYPE
        )
    axes[0, 0].set_ylabel(f"{METRIC_NAMES[metric]} (%), valid split")
    return figure


def _curves(ax: Axes, group: pd.DataFrame, styles: dict, method: str) -> list[float]:
    """Draws the curves with their names at their ends; returns the places of the names, as shares."""
    names = list(group.groupby("method")["mean"].mean().sort_values().index)
    ratios = np.sort(group["label_ratio"].unique())
    ends = {}
    for number, name in enumerate(names):
        rows, style = group[group["method"] == name], styles[name]
        shift = 1 + 0.012 * (number - len(names) / 2)  # bars are beside each other, not on top of each other
        if name in (method, "supervised"):
            band = 100 * rows["low"], 100 * rows["high"]
            ax.fill_between(
                rows["label_ratio"], *band, rows["seeds"] > 2, color=style["color"], alpha=0.18, linewidth=0
            )
            shift = 1
        else:
            sure = rows[rows["seeds"] > 2]
            ax.vlines(shift * sure["label_ratio"], 100 * sure["low"], 100 * sure["high"], color="0.75", zorder=1)
        ax.plot(shift * rows["label_ratio"], 100 * rows["mean"], markersize=5, **style)
        ends[name] = rows["label_ratio"].iloc[-1], 100 * rows["mean"].iloc[-1]
    ax.set_xscale("log")
    ax.set_xticks(ratios, [per_cent(ratio) for ratio in ratios])
    ax.minorticks_off()
    ax.set_xlim(ratios[0] / 1.12, ratios[-1] * (ratios[-1] / ratios[0]) ** 0.36)
    ax.set_xlabel("share of the training pairs with masks")
    low, high = 100 * group["mean"].min(), 100 * group["mean"].max()
    order = sorted(ends, key=lambda name: ends[name][1])
    places = spread([ends[name][1] for name in order], 0.085 * (high - low + 4))
    for name, place in zip(order, places, strict=True):
        colour = styles[name]["color"]
        # Dotted where it crosses the panel, so that nobody takes it for a curve.
        look = {"color": colour, "linewidth": 0.8, "linestyle": "-" if ends[name][0] == ratios[-1] else ":"}
        ax.annotate(
            as_text(name), ends[name], (ratios[-1] * 1.13, place), fontsize=TYPE, color=colour, va="center",
            fontweight="bold" if name == method else None,
            arrowprops={"arrowstyle": "-", "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5), **look},
        )  # fmt: skip
    return [place / 100 for place in places]


def _hollow(ax: Axes, rows: pd.DataFrame, places: pd.Series, styles: dict) -> None:
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        look = {**styles[row["method"]], "markerfacecolor": "white", "zorder": 5}
        ax.plot(place, 100 * row["mean"], markersize=6, **look)


def _columns(ax: Axes, group: pd.DataFrame, styles: dict) -> None:
    group = group.sort_values("mean", ignore_index=True)
    for position, row in group.iterrows():
        style = styles[row["method"]]
        if row["seeds"] > 2:
            ax.plot(
                [position] * 2, [100 * row["low"], 100 * row["high"]], color=style["color"], linewidth=1.6, alpha=0.6
            )
        ax.plot(position, 100 * row["mean"], markersize=7, **style)
    ax.set_xticks(
        range(len(group)), group["method"].map(as_text), rotation=50, ha="right", rotation_mode="anchor", fontsize=TYPE
    )
    ax.set_xlim(-0.6, len(group) - 0.4)


def _limit(ax: Axes, values: np.ndarray, more: list[float]) -> None:
    """Sets the limits of the y axis for the important values; the interval of two seeds may leave the panel."""
    values = 100 * np.append(values, more)
    low, high = np.nanmin(values), np.nanmax(values)
    ax.set_ylim(low - 0.05 * (high - low) - 0.5, high + 0.05 * (high - low) + 0.8)


def cost_and_accuracy(curves: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image") -> Figure:
    """The metric over the mean minutes of a run, at the smallest label ratio: one panel for each setting.

    A grey line joins the methods that no other method beats in both. The legend is sorted by the means.

    Args:
        curves: of :func:`semimedref_core.experiments.statistics.learning_curves`.
    """
    styles = method_styles(curves["method"], method)
    settings = list(curves.groupby("setting", sort=False))
    size = (3.9 * len(settings) + 1.4, 3.8)
    handles = {}
    figure, axes = plt.subplots(1, len(settings), figsize=size, layout="constrained", squeeze=False)
    for ax, (setting, group) in zip(axes[0], settings, strict=True):
        ratio = group["label_ratio"].min()
        rows = group[group["label_ratio"] == ratio].sort_values("minutes")
        front = rows[rows["mean"] >= rows["mean"].cummax()]
        ax.plot(front["minutes"], 100 * front["mean"], color="0.8", linewidth=4, zorder=1, solid_capstyle="round")
        for row in rows.itertuples():
            style = {**styles[row.method], "linestyle": "none", "markersize": 9}
            handles[row.method] = ax.plot(row.minutes, 100 * row.mean, **style)[0]
        ax.set(xlabel="minutes a run", xlim=(0, 1.08 * rows["minutes"].max()))
        ax.margins(y=0.08)
        ax.set_title(panel_title(setting, ratio), fontsize=TYPE)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"{METRIC_NAMES[metric]} (%)")
    order = list(
        curves.groupby("method")["mean"].mean().sort_values(ascending=False).index.intersection(handles, sort=False)
    )
    figure.legend(
        [handles[name] for name in order], map(as_text, order), loc="outside right upper", fontsize=TYPE, frameon=False
    )
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


def panel_title(setting: str, ratio: float | None = None) -> str:
    """The title of a panel: the data in the first line, other settings in the second."""
    dataset, _, others = setting.partition(", ")
    labels = "" if ratio is None else f", {per_cent(ratio)} labels"
    return as_text(f"{dataset}{labels}" + (f"\n{others}" if others else ""))


def per_cent(ratio: float) -> str:
    return f"{100 * ratio:g} %"


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
        ax.plot(rows["removal_rate"], 100 * rows[metric], ".", color=colour, alpha=0.45, markersize=5)
        look = {"color": colour, "marker": marker, "linestyle": style, "markeredgecolor": BLACK}
        ax.plot(mean.index, mean, linewidth=2, markersize=6.5, **look)
        ends[name] = mean.index[-1], mean.iloc[-1]
    low, high = ax.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][1])
    places = spread([ends[name][1] for name in order], 0.065 * (high - low))
    for name, place in zip(order, places, strict=True):
        colour = looks[name][0]
        ax.annotate(
            as_text(name), ends[name], (1.06, place), fontsize=TYPE, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1.2, "shrinkA": 1, "shrinkB": 3,
                        "relpos": (0, 0.5)},
        )  # fmt: skip
    ax.set(xlim=(-0.03, 1.03), ylim=(min(low, places[0]), max(high, places[-1])))
    ax.set_xlabel("removal rate: share of the reports that lack their positions")
    ax.set_ylabel(f"{METRIC_NAMES[metric]} (%)")
    ax.grid(alpha=0.3)
    return figure
