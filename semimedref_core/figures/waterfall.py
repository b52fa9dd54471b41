"""From supervised training to the whole method, with one bar for each added part."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semimedref_core.experiments.in_words import seeds_in_words
from semimedref_core.figures.canvas import BLUE, SKY, VERMILION
from semimedref_core.figures.results import METRIC_NAMES, PAGE

_WIDTH = 0.62


def waterfall_panels(tables: Mapping[str, pd.DataFrame], metric: str = "dice_image") -> Figure:
    """One panel for each table: a full bar at both ends, and between them the gain of each step. It has its 95 %
    interval if there are three or more seeds.

    Gains are red, losses are light blue. The axis starts just below the lowest bar. So compare the numbers at the bars,
    not the lengths of the bars.

    Args:
        tables: title -> :func:`semimedref_core.experiments.verdict.waterfall`.
        metric: the metric of the tables.
    """
    figure, axes = plt.subplots(len(tables), 1, figsize=(PAGE, 4.3 * len(tables)), layout="constrained", squeeze=False)
    for ax, (title, table) in zip(axes[:, 0], tables.items(), strict=True):
        _panel(ax, table)
        ax.set_title(f"{title}, {seeds_in_words(int(table['seeds'].iloc[-1]))}", fontsize=12)
        ax.set_ylabel(f"{METRIC_NAMES[metric]} (%), valid split", fontsize=11)
    return figure


def _panel(ax: Axes, table: pd.DataFrame) -> None:
    means = 100 * table["mean"].to_numpy()
    names = [*table["step"], "the whole method"]
    floor = np.floor(means.min()) - 1.5
    places = range(len(names))
    for place, mean in ((0, means[0]), (len(names) - 1, means[-1])):
        ax.bar(place, mean - floor, _WIDTH, floor, color=BLUE if place == 0 else VERMILION)
        ax.annotate(f"{mean:.1f}", (place, mean), (0, 3), textcoords="offset points", ha="center", fontsize=11)
    for place, (_, row) in enumerate(table.iterrows()):
        if place == 0:
            continue
        low, high = sorted((means[place - 1], means[place]))
        up = row["difference"] >= 0
        ax.bar(place, high - low, _WIDTH, low, color=VERMILION if up else SKY, alpha=0.75)
        top = high
        if row["seeds"] > 2:  # two seeds have an interval of thirteen standard errors, one has none
            ends = means[place - 1] + 100 * np.array([row["low"], row["high"]])
            ax.vlines(place, *ends, color="0.25", linewidth=1.4)
            top = max(high, ends.max())
        ax.annotate(
            f"{100 * row['difference']:+.1f}",
            (place, top),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=11,
        )
    for place, mean in enumerate(means):
        ax.hlines(mean, place + _WIDTH / 2, place + 1 - _WIDTH / 2, color="0.5", linewidth=0.8)
    ax.set_xticks(places, ["\n".join(textwrap.wrap(name, 12)) for name in names], fontsize=10)
    ax.set_ylim(floor)
    ax.margins(y=0.12)
    ax.spines[["top", "right"]].set_visible(False)
