"""Notebook 05: ITCL."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy, normalize

from semimedref_core.itcl import loss_floor
from semimedref_core.reports import Report
from semimedref_core.teaching.answers import about
from semimedref_kernels import soft_contrastive_loss

THREE = (0b000100, 0b000110, 0b001000)
"""The zone vectors of the three pairs of the notebook's worked example."""


def least_value(answer) -> str:
    hint = "A cross-entropy is least if the softmax equals the wanted shares. What is left? Remember all three rows."
    if isinstance(answer, int | float) and answer == 0:
        return "With soft positives the loss never reaches 0: a row that wants two texts cannot put all weight on one."
    return about(answer, float(loss_floor(torch.tensor(THREE))), 0.01, hint)


def no_room(answer) -> str:
    codes = torch.tensor([Report.of(zones).code for zones in answer])
    if len(codes) != 4 or any(len(zones) != 6 for zones in answer):
        return "The answer must be a list of four zone vectors, each of six numbers 0 or 1."
    floor = float(loss_floor(codes))
    if math.isclose(floor, math.log(4), rel_tol=1e-6):
        return ""
    return (
        f"The floor of these four is {floor:.2f}, and a uniform softmax has log 4 = {math.log(4):.2f}. "
        "What must each row of P look like if its wanted shares are uniform? Remember the rule for 0/0."
    )


def hard(answer) -> str:
    generator = torch.Generator().manual_seed(0)
    u, v = (normalize(torch.randn(5, 3, dtype=torch.float64, generator=generator), dim=1) for _ in range(2))
    codes, own, tau = torch.tensor([4, 4, 6, 36, 8]), torch.arange(5), 0.5
    value = answer(u, v, codes, tau)
    if value is None:
        return "The function returns None."
    z = u @ v.T / tau
    right = (cross_entropy(z, own) + cross_entropy(z.T, own)) / 2
    hint = "This is not the cross-entropy with only the own text as positive."
    if abs(float(value) - float(soft_contrastive_loss(u, v, codes, tau))) < 1e-6:
        hint = "This is the loss with soft positives. For which reports is P the identity?"
    return about(value, float(right), 1e-6, hint)


EXERCISES = {"05.1": least_value, "05.2": no_room, "05.3": hard}
