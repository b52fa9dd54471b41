"""Differences between methods: forest plots, ablations, and differences by size of the lesion."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semimedref_core.figures.canvas import BLUE, GREEN, ORANGE, PURPLE, SKY, TYPE, VERMILION, as_text
from semimedref_core.figures.results import METRIC_NAMES, panel_title


def difference_forest(differences: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image") -> Figure:
    """The difference between a method and each other one, in points. The thick interval is over images, the thin one
    also over seeds.

    Small dots are single seeds. The other method with the best mean has a filled mark. Each setting has a row of
    panels, with one panel for each label ratio. Each panel has its own axis, so one sees whether an interval contains
    zero even if differences are small.

    Args:
        differences: a table of :func:`semimedref_core.experiments.statistics.method_differences`.
    """
    chosen = differences[differences["metric"] == metric]
    settings = [group for _, group in chosen.groupby("setting", sort=False)]
    order = list(chosen.groupby("against")["difference"].mean().sort_values(ascending=False).index)
    names = [[name for name in order if name in set(group["against"])] for group in settings]
    columns = max(group["label_ratio"].nunique() for group in settings)
    heights = [0.9 + 0.3 * len(rows) for rows in names]
    figure, axes = plt.subplots(
        len(settings), columns, figsize=(max(7.4, 1.6 + 2.3 * columns), 0.5 + sum(heights)), layout="constrained",
        squeeze=False, sharey="row", height_ratios=heights,
    )  # fmt: skip
    for row, group, others in zip(axes, settings, names, strict=True):
        panels = list(group.groupby(["setting", "label_ratio"], sort=False))
        for ax, (about, panel) in zip(row, panels, strict=False):
            _rows(ax, others, panel)
            for _, difference in panel.iterrows():
                colour = VERMILION if difference["difference"] > 0 else BLUE
                _interval(ax, others.index(difference["against"]), difference, colour, filled=difference["best"])
            ax.set_title(panel_title(*about), fontsize=TYPE)
        for ax in row[len(panels) :]:
            ax.remove()
    _explain(figure, f"{METRIC_NAMES[metric]}: {method} minus the other (points)", "filled: the best other method")
    return figure


def ablation_bars(ablated: pd.DataFrame, metric: str = "dice_image") -> Figure:
    """The loss or gain of each variant against the whole method, in points: bars with the intervals of the forest plot.

    There is a panel for each setting and label ratio. If one variant loses far more than most, a second panel shows the
    values near zero.

    Args:
        ablated: a table of :func:`semimedref_core.experiments.statistics.ablations`.
    """
    chosen = ablated[ablated["metric"] == metric]
    names = list(chosen.groupby("variant")["difference"].mean().sort_values().index)
    near = 4 * chosen["difference"].abs().median()
    views = [None, near] if chosen["difference"].abs().max() > 2 * near else [None]
    panels = [(*panel, view) for panel in chosen.groupby(["setting", "label_ratio"], sort=False) for view in views]
    size = (max(7.4, 2.6 + 3.6 * len(panels)), 1.3 + 0.36 * len(names))
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for ax, (about, group, view) in zip(axes[0], panels, strict=True):
        _rows(ax, names, chosen)
        for _, row in group.iterrows():
            place = names.index(row["variant"])
            ax.barh(
                place, 100 * row["difference"], color=SKY if row["difference"] < 0 else ORANGE, height=0.62, alpha=0.7
            )
            _interval(ax, place, row, "0.25", filled=True)
        if view:
            ax.set_xlim(-100 * view, 100 * view)
        ax.set_title("the same, near zero" if view else panel_title(*about), fontsize=TYPE)
    _explain(figure, f"{METRIC_NAMES[metric]}: variant minus the whole method (points)", "bar: mean")
    return figure


def size_bars(tables: dict[str, pd.DataFrame], method: str = "semi_medref") -> Figure:
    """Dice per image of a method minus another's, by the size of the lesion: one group of bars for each comparison.

    Args:
        tables: title -> :func:`semimedref_core.experiments.statistics.by_lesion_size`.
    """
    figure, ax = plt.subplots(figsize=(7.5, 1.2 + 0.72 * len(tables)), layout="constrained")
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

    The axis fits means, seeds and intervals of three or more seeds; other intervals may leave the panel.
    """
    ax.axvline(0, color="black", linewidth=1)
    ax.grid(axis="x", alpha=0.3)
    ax.set_yticks(range(len(names)), map(as_text, names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    seen = [
        rows["difference"],
        rows.loc[rows["seeds"] > 2, "low"],
        rows.loc[rows["seeds"] > 2, "high"],
        *rows["by_seed"],
    ]
    values = 100 * np.concatenate([*map(np.asarray, seen), [0.0]])
    low, high = np.nanmin(values), np.nanmax(values)
    ax.set_xlim(low - 0.06 * (high - low) - 0.2, high + 0.06 * (high - low) + 0.2)


def _explain(figure: Figure, what: str, mark: str) -> None:
    intervals = "95 %: thick over images (if kept), thin over seeds as well; dots: seeds"
    figure.supxlabel(f"{what}\n{intervals}; {mark}", fontsize=TYPE)
