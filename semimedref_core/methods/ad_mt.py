"""AD-MT: two teachers follow the student in turns. A module decides what is learnt where they disagree.

Zhao et al., "Alternate diverse teaching for semi-supervised medical image segmentation", ECCV 2024 (arXiv 2311.17325).
Written from a description of the paper.

- *Random periodic alternate (RPA) updating*: for a period of random length, one teacher is updated as a moving average
  of the student, and the other one does not change. So the teachers see different unlabelled images (the batches of
  their periods) and different augmentations. In the periods of one teacher, only the grey values of the strong view
  change. In the periods of the other, a box of the partner is pasted as well (:data:`.boxes.half`). The paper pastes
  too; the kind of box is ours. The text of a sample does not change. A period has at most :data:`PERIOD` steps, in the
  paper at most half an epoch.
- *Conflict-combating module (CCM)*: the label is an average of the teachers' maps, with weights that fall with their
  entropy. Where the teachers disagree, the label is this average or the student's prediction: the one with less
  entropy. The student learns from pixels with a confident label (0.95, as in the paper for 2D images).

A third average is evaluated. Like the teacher of all other methods, it follows the student at every step.
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

PERIOD = 50  # largest number of steps of a turn: half an epoch of the phantom
_TURNS = 4096  # turns are drawn for so many steps; then they repeat


class Averages(Several):
    """Three moving averages of one student: ``first`` is evaluated, ``second`` and ``third`` teach.

    All its state is in buffers, so a checkpoint holds it.

    Attributes:
        turns: ``[_TURNS]`` bool, true in the turns of the third network.
        step: ``[1]`` int64, number of updates so far.
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
    """Replaces :class:`.Teacher`. Torch's random numbers draw the turns, so they depend on the seed.

    Args:
        student: the averages start as copies of this network.
    """

    def __init__(self, student: nn.Module):
        self.network = Averages(student).eval().requires_grad_(False)

    @property
    def turn(self) -> Tensor:
        """``[1]`` float: 0 in the turn of the second network of :class:`Averages`, 1 in the turn of the third."""
        return self.network.turns.index_select(0, self.network.step % _TURNS).float()

    @property
    def both(self) -> tuple[nn.Module, nn.Module]:
        """The two teaching networks."""
        return self.network.second, self.network.third

    @torch.no_grad()
    def update(self, student: nn.Module, decay: float | Tensor) -> None:
        """Moves two networks towards the student: the evaluated one, and the teacher of the turn."""
        turn = self.turn[0]
        follow(self.network.first, student, 1 - decay)
        follow(self.network.second, student, (1 - decay) * (1 - turn))
        follow(self.network.third, student, (1 - decay) * turn)
        self.network.step += 1


def entropy(p: Tensor) -> Tensor:
    """The binary entropy of probabilities of any shape, in nats: 0 at 0 and 1, at most log 2."""
    return torch.special.entr(p) + torch.special.entr(1 - p)


def ensemble(p: Tensor) -> Tensor:
    """Probabilities ``[T, B, 1, H, W]`` of T teachers, averaged by weights ``exp(-entropy)``: ``[B, 1, H, W]``."""
    weights = (-entropy(p)).exp()
    return (weights * p).sum(0) / weights.sum(0)


def ad_mt(student: nn.Module, teacher: AlternateTeachers, batch: Batch, config: Config) -> Tensor:
    """DiceCE of the strong view against the label of teachers and student."""
    unlabelled = batch.unlabelled
    weak = weak_view(unlabelled.images, unlabelled.affine)
    each = torch.stack([label(one, weak, unlabelled, config) for one in teacher.both])
    p, (one, other) = ensemble(each), each >= 0.5
    maps = torch.cat(
        [strong_view(weak, **unlabelled.photometry), teaching(p, unlabelled.codes, config), one != other], 1
    )
    boxes = unlabelled.proposal["boxes"][0] * teacher.turn.long()  # empty in the turns of the second network
    maps, p, _ = patch_mix(maps, p, unlabelled.proposal["partner"], boxes, 0.0)
    mixed, teaches, conflict = maps.split([weak.shape[1], 1, 1], 1)
    logits = student(mixed, unlabelled.input_ids).logits
    own = logits.detach().sigmoid()
    p = torch.where((conflict > 0) & (entropy(own) < entropy(p)), own, p)
    return rounded_dice_ce(logits, p, teaches, config.confidence)
