"""Predictions of finished runs on images of the valid split. The images are chosen by the difference between
methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from semimedref_core.data.asked import as_read, split_asked, upright
from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import dice_and_iou, overlap, predict
from semimedref_core.experiments.results import settings_of
from semimedref_core.networks import Texts
from semimedref_core.runtime.checkpoints import CheckpointError, from_pretrained, load_texts


def gains_and_losses(runs: pd.DataFrame, methods: Sequence[str], count: int = 4) -> tuple[Pairs, dict[str, np.ndarray]]:
    """Predictions of the teachers of several methods on images from the largest gain to the largest loss of the last
    method.

    Args:
        runs: rows of :func:`semimedref_core.experiments.results.finished_runs`, of one setting and label ratio. Each
            method uses the smallest seed that all methods have.
        methods: two or more; images are ranked by the Dice of the last method minus that of the one before it.
        count: number of images, from the largest gain to the largest loss, evenly spaced in rank.

    Returns:
        The pairs, upright, and for each method its probabilities ``[count, H, W]``.

    Raises:
        CheckpointError: if a run has no trained network in its folder.
        DataError: if the run's data cannot be read.
    """
    chosen = runs[(runs["network"] == "teacher") & (runs["variant"] == "") & runs["method"].isin(methods)]
    folders = chosen[[Path(folder, "teacher", "model.safetensors").is_file() for folder in chosen["folder"]]]
    seeds = [set(folders.loc[folders["method"] == method, "seed"]) for method in methods]
    common = set.intersection(*seeds)
    if not common:
        raise CheckpointError(
            f"no seed for which {', '.join(methods)} all have trained networks; give the folder of the training "
            "runs, with teacher/ in each run"
        )
    of_seed = folders[folders["seed"] == min(common)].set_index("method")["folder"]
    teachers = {method: Path(of_seed[method], "teacher") for method in methods}
    networks = {method: from_pretrained(folder) for method, folder in teachers.items()}
    pairs = split_asked("valid", settings_of(of_seed[methods[-1]]), networks[methods[-1]][1])
    probs = {method: _probabilities(*networks[method], load_texts(teachers[method]), pairs) for method in methods}
    masks = torch.from_numpy(pairs.masks)[:, None].bool()
    ours, other = (
        dice_and_iou(overlap(torch.from_numpy(probs[m])[:, None] >= 0.5, masks).numpy())[0] for m in methods[:-3:-1]
    )
    order = np.argsort(other - ours, kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
    return pairs.subset(rows.tolist()), {method: probs[method][rows] for method in methods}


def _probabilities(network: nn.Module, about: dict, texts: Texts, pairs: Pairs) -> np.ndarray:
    """The probabilities ``[N, H, W]`` of a network for upright pairs."""
    read = as_read(pairs, about, network.channels)
    return upright(torch.cat(list(predict(network, read, texts)))[:, 0].numpy(), about)
