"""AD-MT: two teachers that follow the student by turns, and what is learnt where they disagree.

Zhao et al., "Alternate diverse teaching for semi-supervised medical image segmentation", ECCV 2024 (arXiv 2311.17325).
Written from a description of the paper.

- *Random periodic alternate (RPA) updating*: one teacher at a time is a moving average of the student, for a period of
  random length, while the other one stays as it is. So each meets other unlabelled images (the batches of its periods),
  and another augmentation: in the periods of one only the grey values of the strong view change, in those of the other
  a box of the partner's is pasted as well (:data:`.boxes.half`; the paper pastes too, how is ours). The text stays the
  sample's own. A period has at most :data:`PERIOD` steps; the paper's has at most half an epoch.
- *Conflict-combating module (CCM)*: the teachers' maps are averaged by weights that fall with their entropy. Where the
  teachers agree, the average is the label. Where they are in conflict, it is the average or the student's own answer,
  whichever has less entropy. Pixels of the label teach where it is confident (the paper's 0.95 for 2D images).

What is evaluated is a third average, which follows at every step as that of all methods does.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.methods.baselines import rounded_dice_ce, teaching
from semimedref_core.methods.reported_places import label
from semimedref_core.networks import Several
from semimedref_core.teacher import Teacher, follow
from semimedref_core.views import strong_view, weak_view
from semimedref_kernels import patch_mix

PERIOD = 50  # most steps of a turn: half an epoch of the phantom
_TURNS = 4096  # steps that are drawn ahead; then they come again


class Averages(Several):
    """Three moving averages of one student: ``first`` is evaluated, ``second`` and ``third`` teach.

    All of its state is in its buffers, so a checkpoint holds it.

    Attributes:
        turns: ``[_TURNS]`` bool, whether it is the third's turn.
        step: ``[1]`` int64, updates so far.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.first, self.second, self.third = (copy.deepcopy(student) for _ in range(3))
        place = next(student.parameters()).device
        lengths = torch.randint(1, PERIOD + 1, (_TURNS,))
        turns = torch.arange(_TURNS).remainder(2).bool().repeat_interleave(lengths)[:_TURNS]
        self.register_buffer("turns", turns.to(place))
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64, device=place))


class AlternateTeachers(Teacher):
    """In place of :class:`.Teacher`; torch's source of chance draws the turns, so the seed decides on them.

    Args:
        student: the network to follow; it is copied.
    """

    def __init__(self, student: nn.Module):
        self.network = Averages(student).eval().requires_grad_(False)

    @property
    def turn(self) -> Tensor:
        """``[1]`` float, 0 in the turn of the second of :class:`Averages`, 1 in that of the third."""
        return self.network.turns.index_select(0, self.network.step % _TURNS).float()

    @property
    def both(self) -> tuple[nn.Module, nn.Module]:
        """The two that teach."""
        return self.network.second, self.network.third

    @torch.no_grad()
    def update(self, student: nn.Module, decay: float | Tensor) -> None:
        """Moves the one that is evaluated and the one whose turn it is towards the student."""
        turn = self.turn[0]
        follow(self.network.first, student, 1 - decay)
        follow(self.network.second, student, (1 - decay) * (1 - turn))
        follow(self.network.third, student, (1 - decay) * turn)
        self.network.step += 1


def entropy(p: Tensor) -> Tensor:
    """Of probabilities of any shape, in nats: 0 where they are 0 or 1, and at most log 2."""
    return torch.special.entr(p) + torch.special.entr(1 - p)


def ensemble(p: Tensor) -> Tensor:
    """Probabilities ``[T, B, 1, H, W]`` of T teachers, averaged by weights ``exp(-entropy)``: ``[B, 1, H, W]``."""
    weights = (-entropy(p)).exp()
    return (weights * p).sum(0) / weights.sum(0)


def ad_mt(student: nn.Module, teacher: AlternateTeachers, batch: Batch, config: Config) -> Tensor:
    """DiceCE of the strong view against the label that teachers and student have come to."""
    unlabelled = batch.unlabelled
    weak = weak_view(unlabelled.images, unlabelled.affine)
    each = torch.stack([label(one, weak, unlabelled, config) for one in teacher.both])
    p, (one, other) = ensemble(each), each >= 0.5
    maps = torch.cat(
        [strong_view(weak, **unlabelled.photometry), teaching(p, unlabelled.codes, config), one != other], 1
    )
    boxes = unlabelled.proposal["boxes"][0] * teacher.turn.long()  # empty, save in the turn of the third
    maps, p, _ = patch_mix(maps, p, unlabelled.proposal["partner"], boxes, 0.0)
    mixed, teaches, conflict = maps.split([weak.shape[1], 1, 1], 1)
    logits = student(mixed, unlabelled.input_ids).logits
    own = logits.detach().sigmoid()
    p = torch.where((conflict > 0) & (entropy(own) < entropy(p)), own, p)
    return rounded_dice_ce(logits, p, teaches, config.confidence)
