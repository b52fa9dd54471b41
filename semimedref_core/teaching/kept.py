"""One comparison of kept runs, for the exercises on statistics. It does not depend on the reader's folder."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from semimedref_core.evaluation import dice_and_iou
from semimedref_core.experiments import counts_of, finished_runs, method_differences, notebooks_folder

ABOUT = {"dataset": "qata", "architecture": "compact", "image_size": 64, "label_ratio": 0.01, "network": "teacher"}
OURS, METRIC = "semi_medref", "dice_image"


@lru_cache(maxsize=1)
def kept_comparison() -> pd.DataFrame:
    """The differences between Semi-MedRef and each other method in the kept runs on QaTa with 1 % of the masks, Dice
    per image.

    Returns:
        One row for each other method, by name: ``difference``, ``low``, ``high``, ``p``, ``p_holm``, ``verdict`` of
        :func:`semimedref_core.experiments.method_differences`; ``ours`` and ``theirs`` ``[S]`` (0 to 1) for the common
        seeds; and ``of_images`` ``[S, N]``, ours minus theirs on each validation image.
    """
    runs = finished_runs([notebooks_folder() / "results"])
    for name, value in ABOUT.items():
        runs = runs[runs[name] == value]
    runs = runs[runs["variant"] == ""]
    found = method_differences(runs, OURS, metrics=(METRIC,)).set_index("against")
    more = {name: _by_seed(*(runs[runs["method"] == each] for each in (OURS, name))) for name in found.index}
    return found.join(pd.DataFrame(more, index=["ours", "theirs", "of_images"]).T)


def _by_seed(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[np.ndarray]:
    seeds = sorted(set(ours["seed"]) & set(theirs["seed"]))
    sides = [runs.set_index("seed").loc[seeds] for runs in (ours, theirs)]
    of_images = [
        np.stack([dice_and_iou(counts_of(folder, "teacher"))[0] for folder in side["folder"]]) for side in sides
    ]
    return [*(side[METRIC].to_numpy() for side in sides), of_images[0] - of_images[1]]
