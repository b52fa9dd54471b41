"""Pseudo-labels: what the teacher says of an unlabelled pair, and which of its pixels the student learns from.

These are the paper's. A step takes both functions as arguments, so that others can stand in their place; ours are in
:mod:`semimedref_core.methods.reported_places`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from semimedref_core.batch import Unlabelled
from semimedref_core.config import Config
from semimedref_core.teacher import Teacher

Label = Callable[[Teacher | nn.Module, Tensor, Unlabelled, Config], Tensor]
"""From teacher, weak views ``[B, 1, H, W]``, batch and settings to the lesion probabilities p ``[B, 1, H, W]``."""
Weigh = Callable[[Tensor, Unlabelled, Config], Tensor | None]
"""From a target ``[B, 1, H, W]`` of 0 and 1 to weights ``[B, 1, H, W]`` of its pixels, 0 or 1; None: 1 everywhere."""


@torch.no_grad()
def teacher_probabilities(teacher: Teacher | nn.Module, weak: Tensor, unlabelled: Unlabelled, config: Config) -> Tensor:
    """The teacher's lesion probabilities p ``[B, 1, H, W]`` on the weak views.

    The teacher looks once. The partners' maps of T-PatchMix are these, permuted; the release runs the teacher once
    more to get them (Ledger 6).
    """
    return teacher(weak, unlabelled.input_ids).logits.sigmoid()


def every_pixel(target: Tensor, unlabelled: Unlabelled, config: Config) -> None:
    """All pixels of a pseudo-label teach alike, as in paper and release (Ledger 5)."""
