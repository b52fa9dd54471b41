"""Finished runs: every seed of every method, how they got there, and what they cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from semimedref_core.comparison import SETTINGS
from semimedref_core.figures.training import METHOD_COLOURS

METRIC_NAMES = {"dice_image": "Dice per image", "dice_micro": "Dice micro", "miou_image": "mIoU per image"}


def seed_by_seed(runs: pd.DataFrame, metrics: tuple[str, ...] = ("dice_image", "dice_micro")) -> Figure:
    """The teacher's metrics, one panel for each setting and metric; a grey line joins the runs of one seed.

    Args:
        runs: of :func:`semimedref_core.comparison.finished_runs`.
        metrics: rows of the figure.
    """
    settings = list(runs[runs["network"] == "teacher"].groupby(SETTINGS, sort=False))
    size = (2.9 * len(settings) + 0.6, 2.7 * len(metrics) + 0.5)
    figure, axes = plt.subplots(len(metrics), len(settings), figsize=size, layout="constrained", squeeze=False)
    methods = list(dict.fromkeys(runs["method"].sort_values(key=lambda names: names != "supervised")))
    for row, metric in zip(axes, metrics, strict=True):
        for ax, (_, group) in zip(row, settings, strict=True):
            table = 100 * group.pivot(index="seed", columns="method", values=metric).reindex(columns=methods)
            for _, scores in table.iterrows():
                ax.plot(range(len(methods)), scores, color="0.6", linewidth=1, zorder=1)
            for position, method in enumerate(methods):
                scores = table[method].dropna()
                colour = METHOD_COLOURS[method]
                ax.scatter([position] * len(scores), scores, color=colour, s=28, zorder=2)
                ax.plot([position - 0.2, position + 0.2], [scores.mean()] * 2, color=colour, linewidth=2.5)
                ax.annotate(
                    f"{scores.mean():.1f}", (position + 0.24, scores.mean()), va="center", fontsize=9, color=colour
                )
            ax.set_xticks(range(len(methods)), methods, fontsize=9)
            ax.set_xlim(-0.5, len(methods) - 0.2)
            ax.grid(axis="y", alpha=0.3)
        row[0].set_ylabel(f"{METRIC_NAMES[metric]} (%)")
        bottom, top = min(ax.get_ylim()[0] for ax in row), max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(bottom, top)
    for ax, (setting, _) in zip(axes[0], settings, strict=True):
        ax.set_title(_named(setting), fontsize=9)
    return figure


def curves_with_spread(curves: pd.DataFrame, metric: str = "dice_image") -> Figure:
    """Validation metric over steps: mean over seeds (student dotted, teacher solid), the band from worst to best seed.

    Args:
        curves: of :func:`semimedref_core.comparison.validation_curves`.
        metric: one of the metrics.
    """
    settings = list(curves.groupby(SETTINGS, sort=False))
    size = (3.4 * len(settings), 3.4)
    figure, axes = plt.subplots(1, len(settings), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for ax, (setting, group) in zip(axes[0], settings, strict=True):
        for (method, network), runs in group.groupby(["method", "network"]):
            steps = 100 * runs.groupby("at_step")[metric].agg(["mean", "min", "max"])
            style = {"student": "dotted", "teacher": "solid"}[network]
            colour = METHOD_COLOURS[method]
            ax.plot(steps.index, steps["mean"], color=colour, linestyle=style, marker="o", markersize=3)
            if network == "teacher":
                ax.fill_between(steps.index, steps["min"], steps["max"], color=colour, alpha=0.18, linewidth=0)
                ax.annotate(method, (steps.index[-1], steps["mean"].iloc[-1]), (-4, 8), textcoords="offset points",
                            ha="right", fontsize=9, color=colour)  # fmt: skip
        ax.set(xlabel="step", xlim=(0, None))
        ax.set_title(_named(setting), fontsize=9)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"validation {METRIC_NAMES[metric]} (%)")
    return figure


def cost_and_gain(runs: pd.DataFrame, metric: str = "dice_image") -> Figure:
    """What each run took and what came out: minutes against the teacher's metric, one panel for each setting."""
    settings = list(runs[runs["network"] == "teacher"].groupby(SETTINGS, sort=False))
    size = (3.0 * len(settings) + 0.4, 3.0)
    figure, axes = plt.subplots(1, len(settings), figsize=size, layout="constrained", squeeze=False)
    for ax, (setting, group) in zip(axes[0], settings, strict=True):
        for method, of_method in group.groupby("method"):
            minutes, scores = of_method["seconds"] / 60, 100 * of_method[metric]
            ax.scatter(minutes, scores, color=METHOD_COLOURS[method], s=30, label=method)
        ax.set(xlabel="minutes", xlim=(0, 1.15 * np.max(group["seconds"]) / 60))
        ax.set_title(_named(setting), fontsize=9)
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel(f"{METRIC_NAMES[metric]} (%)")
    axes[0, 0].legend(fontsize=8, loc="lower right")
    return figure


def _named(setting: tuple) -> str:
    dataset, ratio, weak_view, steps = setting
    return f"{dataset}, {100 * ratio:g} % labels\n{weak_view} weak view, {steps} steps"
