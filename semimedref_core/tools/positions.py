"""Measures how a trained network performs on reports without positions: ``semimedref evaluate --reports``.

As in the release, one checkpoint is evaluated with complete reports and with reports of which a share, the *removal
rate*, is changed. A network with ISPG has more modes. Its token is visible for complete reports, as in training, and in
the mode ``soft``. All other modes hide the token, so that they measure the text alone:

====== ===========================================================================================================
soft   the positions are removed, and the network reads the token of the predicted zones
hard   phrases of the zones with a predicted probability of at least 0.5 replace the phrases of the report
oracle the true zones, that is, the complete report
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
from semimedref_core.evaluation import device_of, image_counts, network_inputs, recovery, scores
from semimedref_core.missing_positions import MODES, draw_changed, filled_in, text_at_hand
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
ISPG_MODES = ("soft", "hard")


def counts_with(network: nn.Module, pairs: Pairs, texts: Texts | ReadTexts, mode: str) -> np.ndarray:
    """:func:`semimedref_core.evaluation.image_counts` of a network that reads every report in this mode.

    Args:
        network, pairs, texts: as in that function.
        mode: one of :mod:`semimedref_core.missing_positions`, or of :data:`ISPG_MODES` for a network with ISPG.
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
    """The zone probabilities ``[N, 6]`` that a network with ISPG predicts from the images."""
    inputs = network_inputs(pairs, texts, device_of(network))
    return torch.cat([network.guide(images).sigmoid() for images, _ in inputs]).cpu().numpy()


def reports_table(
    network: nn.Module,
    pairs: Pairs,
    texts: Texts | ReadTexts,
    modes: Sequence[str] | None = None,
    rates: Sequence[float] = RATES,
) -> pd.DataFrame:
    """The metrics at each removal rate; one row for each mode and rate.

    One seed draws the changed reports for all networks and modes. A larger rate changes all reports of a smaller rate
    and more. Each mode needs one prediction; each image then uses it or the prediction with complete reports.

    Args:
        network, pairs, texts: as in :func:`counts_with`.
        modes: by default all modes that change a report, and :data:`ISPG_MODES` for a network with ISPG.
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
    """:func:`semimedref_core.evaluation.recovery` of soft, hard and oracle, with all positions removed.

    Args:
        table: a table of :func:`reports_table` with the rates 0 and 1.
        metric: the metric of the recovery.

    Returns:
        Mode -> recovery; empty for a network without ISPG.
    """
    value = table.set_index(["reports", "removal_rate"])[metric]
    if "soft" not in set(table["reports"]):
        return {}
    full, removed = value["removed", 0.0], value["removed", 1.0]
    reached = {**{mode: value[mode, 1.0] for mode in ISPG_MODES}, "oracle": full}
    return {mode: recovery(score, full, removed) for mode, score in reached.items()}
