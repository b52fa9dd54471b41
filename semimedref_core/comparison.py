"""Finished runs side by side: one tidy table of all, means and spread over seeds, and differences seed by seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from semimedref_core.checkpoints import CheckpointError
from semimedref_core.runstate import read_metrics

METRICS = ["dice_image", "miou_image", "dice_micro", "miou_micro"]
SETTINGS = ["dataset", "label_ratio", "weak_view", "steps"]  # always shown; others where they differ between runs
NOT_COMPARED = {"method", "seed", "data", "eval_every"}  # settings in which the runs of one comparison may differ


def finished_runs(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Every finished run as two rows, student and teacher.

    Columns: the settings (the setting ``network`` as ``architecture``), ``network`` (student or teacher), ``folder``,
    ``seconds`` and the metrics (0 to 1).

    Args:
        folders: run folders, each with its ``results.json`` and ``config.json``.

    Raises:
        CheckpointError: for a folder that holds no finished run, naming all such folders.
    """
    unfinished = [str(folder) for folder in map(Path, folders) if not (folder / "results.json").is_file()]
    if unfinished or not folders:
        which = ", ".join(unfinished) or "no folder given"
        raise CheckpointError(f"{which}: no finished run (results.json is missing); go on with it by --resume")
    rows = []
    for folder in map(Path, folders):
        results, config = (json.loads((folder / name).read_text()) for name in ("results.json", "config.json"))
        config["architecture"] = config.pop("network")
        for network in ("student", "teacher"):
            about = {"folder": str(folder), "network": network, "seconds": results["seconds"]}
            rows.append({**config, **about, **results[network]})
    return pd.DataFrame(rows)


def compared_settings(runs: pd.DataFrame) -> list[str]:
    """The settings that tell the runs' groups apart: :data:`SETTINGS`, and every other in which some runs differ."""
    made_by_run = {"folder", "network", "seconds", *METRICS}
    others = [name for name in runs if name not in {*SETTINGS, *NOT_COMPARED, *made_by_run}]
    return SETTINGS + [name for name in others if runs[name].nunique() > 1]


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Metrics in per cent, mean ± standard deviation over seeds.

    Args:
        runs: of :func:`finished_runs`.

    Returns:
        One row for each method and network of runs that differ in nothing but the seed.
    """
    groups = runs.groupby([*compared_settings(runs), "method", "network"], sort=False)
    table = groups[METRICS].agg(lambda values: f"{100 * values.mean():.1f} ± {100 * values.std():.1f}")
    table.insert(0, "seeds", groups["seed"].nunique())
    return table


def paired_differences(
    runs: pd.DataFrame, method: str = "semi_medref", against: str = "supervised", network: str = "teacher"
) -> pd.DataFrame:
    """What a method is above another, seed by seed: both had the same labelled pairs, views, steps and first weights.

    Returns:
        One row for each setting and seed that both methods have; metrics as differences of shares (-1 to 1).
    """
    index = [*compared_settings(runs), "seed"]
    chosen = runs[runs["network"] == network].set_index(index)
    return (chosen.loc[chosen["method"] == method, METRICS] - chosen.loc[chosen["method"] == against, METRICS]).dropna()


def validation_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """The validations on the way: settings, ``method``, ``network``, ``seed``, ``at_step`` and metrics, tidy."""
    about = [*compared_settings(runs), "method", "network", "seed"]
    rows = []
    for _, run in runs.iterrows():
        for line in read_metrics(Path(run["folder"]) / "metrics.jsonl"):
            if "valid" in line:
                rows.append({**run[about], "at_step": line["step"], **line["valid"][run["network"]]})
    return pd.DataFrame(rows)
