"""What reports without positions cost a trained network: ``semimedref evaluate --reports``.

As in the release, one checkpoint is asked with whole reports, and with reports of which a share, the *removal rate*, is
changed. A network with ISPG is asked for more. Its token speaks where reports are whole, as in training, and in the
mode ``soft``; in all other modes it is hidden, so that each tells what the text alone is worth:

====== ===========================================================================================================
soft   the positions are removed, and the token of the predicted zones is read
hard   a sentence of the zones predicted with a probability of at least 0.5 is written in the place of the phrases
oracle the true zones, which is the whole report
====== ===========================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pandas as pd
import torch
from torch import nn

from semimedref_core.data.chance import source
from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import image_counts, network_inputs, recovery, scores
from semimedref_core.missing_positions import MODES, draw_changed, filled_in, text_at_hand
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
ISPG_MODES = ("soft", "hard")


def counts_with(network: nn.Module, pairs: Pairs, texts: Texts | ReadTexts, mode: str) -> np.ndarray:
    """:func:`semimedref_core.evaluation.image_counts` of a network that reads every report as a mode has it.

    Args:
        network, pairs, texts: as there.
        mode: of :mod:`semimedref_core.missing_positions`, or of :data:`ISPG_MODES` for a network with ISPG.
    """
    guide = getattr(network, "guide", None)
    if mode == "hard":
        predicted = predicted_zones(network, pairs, texts) >= 0.5
        told = [filled_in(report, zones) for report, zones in zip(pairs.reports, predicted, strict=True)]
    else:
        told = [text_at_hand(report, "removed" if mode == "soft" else mode) for report in pairs.reports]
    with guide.hidden() if guide is not None and mode not in ("full", "soft") else nullcontext():
        return image_counts(network, pairs, texts, told=told)


@torch.no_grad()
def predicted_zones(network: nn.Module, pairs: Pairs, texts: Texts | ReadTexts) -> np.ndarray:
    """The probabilities ``[N, 6]`` of the zones that a network with ISPG predicts from the images alone."""
    return torch.cat([network.guide(images).sigmoid() for images, _ in network_inputs(pairs, texts)]).cpu().numpy()


def reports_table(
    network: nn.Module,
    pairs: Pairs,
    texts: Texts | ReadTexts,
    modes: Sequence[str] | None = None,
    rates: Sequence[float] = RATES,
) -> pd.DataFrame:
    """The metrics at each removal rate, one row a mode and a rate.

    Which reports are changed is drawn from one seed, alike for every network and mode, and those of a smaller rate are
    among those of a larger one. Each mode is predicted once and each image counted from it, or from whole reports.

    Args:
        network, pairs, texts: as in :func:`counts_with`.
        modes: all that change a report if left out, and those of :data:`ISPG_MODES` for a network with ISPG.
        rates: removal rates, 0 to 1.

    Returns:
        Columns ``reports`` (the mode), ``removal_rate`` and the metrics of :func:`semimedref_core.evaluation.scores`,
        0 to 1.
    """
    if modes is None:
        modes = MODES[1:] if getattr(network, "guide", None) is None else (*MODES[1:], *ISPG_MODES)
    full = counts_with(network, pairs, texts, "full")
    rows = []
    for mode in modes:
        other = full if mode == "full" else counts_with(network, pairs, texts, mode)
        for rate in rates:
            changed = draw_changed(source("reports without positions"), len(pairs), rate)
            counts = np.where(changed[:, None], other, full)
            rows.append({"reports": mode, "removal_rate": rate, **scores(counts)})
    return pd.DataFrame(rows)


def recoveries(table: pd.DataFrame, metric: str = "dice_image") -> dict[str, float]:
    """:func:`semimedref_core.evaluation.recovery` where every position is removed: soft, hard and oracle.

    Args:
        table: of :func:`reports_table`, with the rates 0 and 1.
        metric: of which it is taken.

    Returns:
        By mode; empty for a network without ISPG.
    """
    value = table.set_index(["reports", "removal_rate"])[metric]
    if "soft" not in set(table["reports"]):
        return {}
    full, removed = value["removed", 0.0], value["removed", 1.0]
    reached = {**{mode: value[mode, 1.0] for mode in ISPG_MODES}, "oracle": full}
    return {mode: recovery(score, full, removed) for mode, score in reached.items()}
