"""Differences between methods: forest plots, ablations, and differences by size of the lesion."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semimedref_core.figures.canvas import BLUE, GREEN, ORANGE, PURPLE, SKY, TYPE, VERMILION, as_text
from semimedref_core.figures.results import METRIC_NAMES, PAGE, grid, panel_title


def difference_forest(differences: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image") -> Figure:
    """The difference between a method and each other one, in points. The thick interval is over images, the thin one
    also over seeds; a single seed has no thin one.

    Small dots are single seeds. The other method with the best mean has a filled mark. There is a panel for each
    setting and label ratio, with a row for each method that ran there. Each panel has its own axis, so one sees whether
    an interval contains zero even if differences are small.

    Args:
        differences: a table of :func:`semimedref_core.experiments.statistics.method_differences`.
    """
    chosen = differences[differences["metric"] == metric]
    panels = list(chosen.groupby(["setting", "label_ratio"], sort=False))
    figure, axes = grid([len(panel) for _, panel in panels])
    for ax, (about, panel) in zip(axes, panels, strict=True):
        panel = panel.sort_values("difference", ascending=False, ignore_index=True)
        _rows(ax, [_with_seeds(row.against, row.seeds) for row in panel.itertuples()], panel)
        for place, difference in panel.iterrows():
            colour = VERMILION if difference["difference"] > 0 else BLUE
            _interval(ax, place, difference, colour, filled=difference["best"])
        ax.set_title(panel_title(*about, 28), fontsize=TYPE)
    _explain(figure, f"{METRIC_NAMES[metric]}: {method} minus the other (points)", "filled: the best other method")
    return figure


def _with_seeds(name: str, seeds: int) -> str:
    return f"{name}, 1 seed" if seeds == 1 else name


def ablation_bars(ablated: pd.DataFrame, metric: str = "dice_image") -> Figure:
    """The loss or gain of each variant against the whole method, in points: bars with the intervals of the forest plot.

    There is a line of panels for each setting and label ratio, with a row for each variant that ran there. If one
    variant loses far more than most, a second panel shows the values near zero.

    Args:
        ablated: a table of :func:`semimedref_core.experiments.statistics.ablations`.
    """
    chosen = ablated[ablated["metric"] == metric]
    lines, heights = [], []
    for about, group in chosen.groupby(["setting", "label_ratio"], sort=False):
        group = group.sort_values("difference", ignore_index=True)
        names = [textwrap.fill(_with_seeds(row.variant, row.seeds), 24) for row in group.itertuples()]
        most = 1 + max(name.count("\n") for name in names)  # lines of text in a row
        lines.append((about, group, names))
        heights.append(0.9 + max(0.34, 0.19 * most) * len(group))
    figure = plt.figure(figsize=(PAGE, 0.6 + sum(heights)), layout="constrained")
    parts = figure.subfigures(len(lines), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (about, group, names) in zip(parts, lines, strict=True):
        near = 4 * group["difference"].abs().median()
        views = [None, near] if group["difference"].abs().max() > 2 * near else [None]
        for ax, view in zip(part.subplots(1, len(views), sharey=True, squeeze=False)[0], views, strict=True):
            _rows(ax, names, group)
            for place, row in group.iterrows():
                colour = SKY if row["difference"] < 0 else ORANGE
                ax.barh(place, 100 * row["difference"], color=colour, height=0.62, alpha=0.7)
                _interval(ax, place, row, "0.25", filled=True)
            if view:
                ax.set_xlim(-100 * view, 100 * view)
            ax.set_title("the same, near zero" if view else panel_title(*about, 28), fontsize=TYPE)
    _explain(figure, f"{METRIC_NAMES[metric]}: variant minus the whole method (points)", "bar: mean")
    return figure


def size_bars(tables: dict[str, pd.DataFrame], method: str = "semi_medref") -> Figure:
    """Dice per image of a method minus another's, by the size of the lesion: one group of bars for each comparison.

    Args:
        tables: title -> :func:`semimedref_core.experiments.statistics.by_lesion_size`.
    """
    figure, ax = plt.subplots(figsize=(PAGE, 1.2 + 0.72 * len(tables)), layout="constrained")
    colours = {"no lesion": "0.6", "small": SKY, "middle": GREEN, "large": PURPLE}
    drawn = {}
    for group, table in enumerate(tables.values()):
        for number, (name, row) in enumerate(table.iterrows()):
            place = group + 0.2 * (number - (len(table) - 1) / 2)
            drawn[name] = ax.barh(place, 100 * (row["ours"] - row["theirs"]), 0.18, color=colours[name])
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(
        range(len(tables)),
        [as_text(textwrap.fill(title.replace(" %", "\N{NO-BREAK SPACE}%"), 34)) for title in tables],
        fontsize=TYPE,
    )
    ax.set_ylim(len(tables) - 0.45, -0.55)
    ax.set_xlabel(f"Dice per image: {method} minus the other (points)", fontsize=TYPE)
    shown = [name for name in colours if name in drawn]
    figure.legend(
        [drawn[name] for name in shown], shown, loc="outside upper center", ncols=4, fontsize=TYPE, frameon=False
    )
    ax.grid(axis="x", alpha=0.3)
    return figure


def _interval(ax: Axes, place: int, row: pd.Series, colour: str, filled: bool) -> None:
    if row["seeds"] > 1:
        ax.plot([100 * row["low"], 100 * row["high"]], [place] * 2, color=colour, linewidth=1.2, zorder=2)
    ax.plot(
        [100 * row["low_images"], 100 * row["high_images"]],
        [place] * 2,
        color=colour,
        linewidth=4,
        alpha=0.55,
        zorder=3,
    )
    ax.plot(100 * row["by_seed"], [place + 0.24] * row["seeds"], ".", color="0.5", markersize=4, zorder=3)
    ax.plot(100 * row["difference"], place, "o", color=colour, markersize=6, zorder=4,
            markerfacecolor=colour if filled else "white")  # fmt: skip


def _rows(ax: Axes, names: list[str], rows: pd.DataFrame) -> None:
    """Sets up a row for each name from top to bottom, a line at difference 0, and an x axis that fits the rows.

    The axis fits means, seeds and intervals over images, and from three seeds on also those over seeds. The thin line
    of two seeds may leave the panel.
    """
    ax.axvline(0, color="black", linewidth=1)
    ax.grid(axis="x", alpha=0.3)
    ax.set_yticks(range(len(names)), map(as_text, names), fontsize=TYPE)
    ax.set_ylim(len(names) - 0.4, -0.6)
    seen = [
        rows["difference"],
        rows.loc[rows["seeds"] > 2, "low"],
        rows.loc[rows["seeds"] > 2, "high"],
        rows["low_images"],
        rows["high_images"],
        *rows["by_seed"],
    ]
    values = 100 * np.concatenate([*map(np.asarray, seen), [0.0]])
    low, high = np.nanmin(values), np.nanmax(values)
    ax.set_xlim(low - 0.06 * (high - low) - 0.2, high + 0.06 * (high - low) + 0.2)


def _explain(figure: Figure, what: str, mark: str) -> None:
    intervals = "95 %: thick over images (if kept), thin over seeds as well"
    figure.supxlabel(f"{what}\n{intervals}\ndots: seeds; {mark}", fontsize=TYPE)
