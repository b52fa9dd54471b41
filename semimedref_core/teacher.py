"""The EMA teacher, and the ramps that bring the unsupervised loss in."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.profiler import record_function


class Teacher:
    """An exponential moving average of the student, always in eval mode and without gradients.

    Eq. 14: ``theta' <- d theta' + (1 - d) theta`` for parameters. Buffers are copied if they are integers, averaged
    otherwise.

    Args:
        student: the network to follow; it is copied.

    >>> import torch
    >>> from semimedref_core import Teacher
    >>> student = torch.nn.Linear(1, 1)
    >>> teacher = Teacher(student)
    >>> _ = student.weight.data.add_(1)
    >>> teacher.update(student, decay=0.9)
    >>> round((student.weight - teacher.network.weight).item(), 3)
    0.9
    """

    def __init__(self, student: nn.Module):
        self.network = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, decay: float | Tensor) -> None:
        """Moves the teacher towards the student; ``decay`` 0 copies, 1 keeps. A scalar tensor is not waited for."""
        follow(self.network, student, 1 - decay)

    def __call__(self, *args, **kwargs):
        return self.network(*args, **kwargs)


@record_function("teacher update")
@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, share: float | Tensor) -> None:
    """Moves what floats in ``average`` towards the network, by this share of the way; copies what are integers.

    Args:
        average, network: of one kind.
        share: 0 to 1; a scalar tensor on their device is not waited for.
    """
    ours, theirs = average.state_dict(), network.state_dict()
    floating = [name for name, value in ours.items() if value.is_floating_point()]
    mine, other = [ours[name] for name in floating], [theirs[name] for name in floating]
    if isinstance(share, Tensor):
        way = torch._foreach_sub(other, mine)
        torch._foreach_mul_(way, share)
        torch._foreach_add_(mine, way)
    else:
        torch._foreach_lerp_(mine, other, share)
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])


def burning_in(w_u: float | Tensor) -> bool:
    """Whether a step leaves the unlabelled pairs out: if the weight of their loss is the number 0.

    A tensor is not asked for its value: the host would have to wait for it.
    """
    return not isinstance(w_u, Tensor) and w_u == 0


def ramp(step: int, start: float, length: float) -> float:
    """Eq. 15, as a share of w_u: 0 until ``start``, then linear to 1 over ``length`` steps (at once if that is 0)."""
    if step < start:
        return 0.0
    return min(1.0, (step - start) / length) if length > 0 else 1.0


def ema_decay(step: int, burn_in: float, length: float, first: float, last: float) -> float:
    """Eq. 16, the teacher's decay: ``first`` during burn-in, then linear to ``last`` over ``length`` steps.

    Never above ``(1 + step) / (10 + step)``, so that the untrained network is forgotten whatever the schedule's length.
    That bound is ours; it is the decay of a teacher that looks back over the last tenth of the steps so far.
    """
    decay = first + (last - first) * ramp(step, burn_in, length)
    return min(decay, (1 + step) / (10 + step))


def half_life(decay: float) -> float:
    """Steps after which half of what the teacher knew is forgotten, ``log(1/2) / log d``; for 0 < ``decay`` < 1."""
    return math.log(0.5) / math.log(decay)
