"""Finished runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from semimedref_core.checkpoints import CheckpointError


def results_table(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Metrics of finished runs in per cent, mean and standard deviation over seeds.

    Args:
        folders: run folders, each with its ``results.json`` and ``config.json``.

    Returns:
        One row for each method and network of runs that differ in nothing but the seed.

    Raises:
        CheckpointError: for a folder that holds no finished run.
    """
    rows = []
    for folder in map(Path, folders):
        if not (folder / "results.json").is_file():
            raise CheckpointError(f"{folder}: no finished run (results.json is missing); go on with it by --resume")
        results, config = (json.loads((folder / name).read_text()) for name in ("results.json", "config.json"))
        about = {name: config[name] for name in ("dataset", "label_ratio", "weak_view", "steps", "method")}
        for network in ("student", "teacher"):
            rows.append({**about, "network": network, "seeds": config["seed"], **results[network]})
    metrics = ["dice_image", "miou_image", "dice_micro", "miou_micro"]
    groups = pd.DataFrame(rows).groupby(
        ["dataset", "label_ratio", "weak_view", "steps", "method", "network"], sort=False
    )
    table = groups[metrics].agg(lambda values: f"{100 * values.mean():.1f} ± {100 * values.std():.1f}")
    table.insert(0, "seeds", groups["seeds"].nunique())
    return table
