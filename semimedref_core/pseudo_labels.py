"""Pseudo-labels: the teacher's prediction for an unlabelled pair, and the pixels of it from which the student learns.

These two functions follow the release. A step takes them as arguments, so others can replace them. Ours are in
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
"""Teacher, weak views ``[B, 1, H, W]``, batch and settings -> lesion probabilities p ``[B, 1, H, W]``."""
Weigh = Callable[[Tensor, Unlabelled, Config], Tensor | None]
"""A target ``[B, 1, H, W]`` of 0 and 1 -> weights ``[B, 1, H, W]`` of its pixels, 0 or 1; None: 1 everywhere."""


@torch.no_grad()
def teacher_probabilities(teacher: Teacher | nn.Module, weak: Tensor, unlabelled: Unlabelled, config: Config) -> Tensor:
    """The teacher's lesion probabilities p ``[B, 1, H, W]`` on the weak views.

    The teacher runs once. T-PatchMix permutes these maps to get the partners' maps; the release runs the teacher a
    second time for them (Ledger 6).
    """
    return teacher(weak, unlabelled.input_ids).logits.sigmoid()


def every_pixel(target: Tensor, unlabelled: Unlabelled, config: Config) -> None:
    """All pixels of a pseudo-label have the same weight, as in the release (Ledger 5)."""
