"""The EMA teacher, and the ramps that raise the weight of the unsupervised loss."""

from __future__ import annotations

import copy
import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.profiler import record_function


class Teacher:
    """An exponential moving average of the student, always in eval mode and without gradients.

    Eq. 14: ``theta' <- d theta' + (1 - d) theta`` for parameters. Integer buffers are copied; other buffers are
    averaged.

    Args:
        student: the teacher starts as a copy of this network.

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
        """Moves the teacher towards the student. A decay of 0 copies it, 1 changes nothing. A scalar tensor causes no
        host sync."""
        follow(self.network, student, 1 - decay)

    def __call__(self, *args, **kwargs):
        return self.network(*args, **kwargs)


@record_function("teacher update")
@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, share: float | Tensor) -> None:
    """Moves the floating-point tensors of ``average`` towards the network by this share of the way. Copies integer
    tensors.

    Args:
        average, network: of one kind.
        share: 0 to 1; a scalar tensor on their device causes no host sync.
    """
    floating, others = [], []
    for ours, theirs in zip(_tensors(average), _tensors(network), strict=True):
        (floating if ours.is_floating_point() else others).append((ours, theirs))
    mine, other = zip(*floating, strict=True)
    if isinstance(share, Tensor):
        way = torch._foreach_sub(other, mine)
        torch._foreach_mul_(way, share)
        torch._foreach_add_(mine, way)
    else:
        torch._foreach_lerp_(mine, other, share)
    if others:
        torch._foreach_copy_(*zip(*others, strict=True))


_PLACES: WeakKeyDictionary[nn.Module, list[tuple[dict[str, Tensor], str]]] = WeakKeyDictionary()


def _tensors(network: nn.Module) -> list[Tensor]:
    """The tensors of ``state_dict``, without a walk through all modules in each step.

    The first call notes the dictionaries of the modules and the names in them. It does not note the tensors, because
    ``network.to`` may replace them.
    """
    if network not in _PLACES:
        _PLACES[network] = [
            (held, name)
            for module in network.modules()
            for held in (module._parameters, module._buffers)
            for name, value in held.items()
            if value is not None and name not in module._non_persistent_buffers_set
        ]
    return [held[name] for held, name in _PLACES[network]]


def burning_in(w_u: float | Tensor) -> bool:
    """Whether a step leaves out the unlabelled pairs. It does so if the weight of their loss is the number 0.

    A tensor never means burn-in: the host would have to wait to read its value.
    """
    return not isinstance(w_u, Tensor) and w_u == 0


def ramp(step: int, start: float, length: float) -> float:
    """Eq. 15, as a share of w_u: 0 until ``start``, then linear to 1 over ``length`` steps (0: at once)."""
    if step < start:
        return 0.0
    return min(1.0, (step - start) / length) if length > 0 else 1.0


def ema_decay(step: int, burn_in: float, length: float, first: float, last: float) -> float:
    """Eq. 16, the teacher's decay: ``first`` during burn-in, then linear to ``last`` over ``length`` steps.

    The decay is never above ``(1 + step) / (10 + step)``, so the teacher forgets the untrained network in a schedule of
    any length. This bound is ours. With it, the teacher averages over about the last tenth of the steps so far.
    """
    decay = first + (last - first) * ramp(step, burn_in, length)
    return min(decay, (1 + step) / (10 + step))


def half_life(decay: float) -> float:
    """Steps that halve the share of old weights in the average: ``log(1/2) / log d``, for 0 < ``decay`` < 1."""
    return math.log(0.5) / math.log(decay)
