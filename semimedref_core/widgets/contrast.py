"""The ITCL explorer: wanted and given shares of the texts of a batch for each image, and the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from semimedref_core.figures.contrast import heat_maps, short
from semimedref_core.itcl import itcl, loss_floor
from semimedref_core.reports import Report
from semimedref_core.widgets.base import Explorer
from semimedref_kernels import jaccard

POSITIVES = ("soft", "hard")


@dataclass(frozen=True)
class Contrast:
    """Wanted shares, given shares and loss of ITCL for a batch of N pairs.

    Attributes:
        wanted: ``[N, N]``, P divided by its row sums: the share that image i should give to text j.
        given: ``[N, N]``, the share that it does give, ``softmax_j z_ij``.
        loss: the loss of both directions.
        floor: the smallest possible loss of the batch.
    """

    wanted: Tensor
    given: Tensor
    loss: float
    floor: float


def contrast(u: Tensor, v: Tensor, codes: Tensor, tau: float, positives: str = "soft") -> Contrast:
    """Eq. 9 to 11 with their intermediate results.

    Args:
        u, v: ``[N, D]`` image and text embeddings of any norm.
        codes: ``[N]`` zone codes.
        tau: temperature, above 0.
        positives: ``soft`` (shared zones) or ``hard`` (only the own text).

    Raises:
        ValueError: if positives or tau are invalid.
    """
    if positives not in POSITIVES:
        raise ValueError(f"unknown positives {positives!r}; choose one of {', '.join(POSITIVES)}")
    codes = codes if positives == "soft" else torch.zeros_like(codes)  # no shared zones: P is the identity
    p, z = jaccard(codes), normalize(u, dim=1) @ normalize(v, dim=1).T / tau  # Eq. 9, Eq. 10
    loss = itcl(u, v, codes, tau)  # Eq. 11
    return Contrast(p / p.sum(1, keepdim=True), z.softmax(1), float(loss), float(loss_floor(codes)))


def contrast_explorer(reports: Sequence[Report], embeddings: Mapping[str, tuple[Tensor, Tensor]]) -> Explorer:
    """The widget: batches that are drawn from M pairs with known embeddings.

    Args:
        reports: M reports.
        embeddings: name -> image and text embeddings ``[M, D]``, for example before and after training.
    """
    all_codes = torch.tensor([report.code for report in reports])

    def answer(seed: int, size: int, tau: float, positives: str, network: str):
        rows = np.random.default_rng(seed).permutation(len(reports))[:size]
        u, v = (x[rows] for x in embeddings[network])
        found = contrast(u, v, all_codes[rows], tau, positives)
        maps = {"wanted: P / row sum": found.wanted.numpy(), "given: softmax of z": found.given.numpy()}
        # An image whose zones nobody shares wants all of its own text. So the colours end at three times an even share.
        names, top = [short(reports[i]) for i in rows], min(1.0, 3 / len(rows))
        figure = heat_maps(maps, names, "share of text j for image i", top)
        said = (
            f"{positives} positives, tau {tau:.3f}: loss {found.loss:.3f}; no embeddings get below {found.floor:.3f}, "
            f"an even softmax has {math.log(len(rows)):.3f}"
        )
        return figure, said

    most = min(32, len(reports))
    slow = {"continuous_update": False}
    controls = {
        "seed": ipywidgets.IntSlider(0, 0, 50, description="batch drawn with seed", **slow),
        "size": ipywidgets.IntSlider(min(12, most), 2, most, description="pairs", **slow),
        "tau": ipywidgets.FloatLogSlider(0.07, min=math.log10(0.005), max=0, description="tau", **slow),
        "positives": ipywidgets.Dropdown(options=POSITIVES, description="positives"),
        "network": ipywidgets.Dropdown(options=list(embeddings), value=list(embeddings)[-1], description="embeddings"),
    }
    return Explorer(controls, answer, "Two heat maps over images and texts: the wanted and the given shares")
