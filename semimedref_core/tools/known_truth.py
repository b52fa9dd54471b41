"""Mixing of batches as training makes them, with the truth of every unlabelled pair beside it.

Each batch is made twice: of the images, and of the masks in place of the images. Both have the same views, because all
random draws depend on seed and step alone. So the truth of a view is known, and a second channel can carry it through
mixing: afterwards this channel is what the mixed image shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from semimedref_core import patchmix, views
from semimedref_core.anatomy import THIRDS, Grid
from semimedref_core.batch import Unlabelled
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.pairs import Pairs
from semimedref_core.methods import release
from semimedref_core.networks.text import Texts
from semimedref_core.reports import Report
from semimedref_core.tools.mixing_audit import zone_of_patch


def batches_with_truth(
    labelled: Pairs, unlabelled: Pairs, config: Config, texts: Texts, grid: Grid
) -> Iterator[tuple[Unlabelled, Tensor]]:
    """The unlabelled half of batch 0, 1, 2 and so on, without end, with the truth in its weak views.

    Args:
        labelled: pairs of the labelled half of each batch, which is left out here.
        unlabelled: pairs with masks.
        config: settings of the batches.
        texts: turns texts into tokens.
        grid: where the zones lie.

    Yields:
        The unlabelled half of the batch, and its masks as the weak view shows them, ``[B, 1, H, W]`` 0/1.
    """
    pictures = Batches(labelled, unlabelled, config, texts, grid)
    masks = Batches(labelled, replace(unlabelled, images=unlabelled.masks), config, texts, grid)
    step = 0
    while True:
        batch = pictures(step).unlabelled
        yield batch, views.place_masks(masks(step).unlabelled.images, batch.affine)
        step += 1


@dataclass(frozen=True)
class Mix:
    """A mixed batch of B samples.

    Attributes:
        images: ``[B, C, H, W]``.
        input_ids: ``[B, L]``, the tokens that the student reads.
        accepted: ``[B]`` bool.
        patches: ``[B, 4]`` px (y0, x0, y1, x1); empty where no patch was offered.
        zones: ``[B]``, the zone that a patch lies in, or -1.
    """

    images: Tensor
    input_ids: Tensor
    accepted: Tensor
    patches: Tensor
    zones: Tensor

    def reports(self, texts: Texts) -> list[Report]:
        """The B reports that the student reads."""
        return [Report.parse(text) for text in texts.decode(self.input_ids)]


def mix_ours(batch: Unlabelled, s: Tensor, p: Tensor, config: Config, donors_box_alone: bool = False) -> Mix:
    """Mixes a batch by T-PatchMix (Eq. 4 to 8).

    Args:
        batch: unlabelled half of a batch.
        s: ``[B, C, H, W]`` strong views; further channels are pasted as well.
        p: ``[B, 1, H, W]`` the teacher's probabilities.
        config: settings of mixing.
        donors_box_alone: cut patches to the zone in the donor's view, and not also to the zone in the receiver's.
    """
    plan, how = dict(batch.proposal), _how(config)
    if donors_box_alone:
        plan["boxes"] = batch.zone_boxes[plan["partner"]]
    mixed, _, input_ids, accepted = patchmix.t_patchmix(s, p, batch.text_choices, plan, *how)
    return Mix(mixed, input_ids, accepted, *_patches(p, plan, how))


def mix_as_released(
    batch: Unlabelled, s: Tensor, p: Tensor, config: Config, texts: Texts, rng: np.random.Generator
) -> Mix:
    """Mixes a batch as the released code does; each sample is offered a patch.

    Args:
        batch, s, p, config: as in :func:`mix_ours`.
        texts: turns texts into tokens; long enough for two phrases more than a report has, since this function
            cuts nothing.
        rng: source of chance of partners and places.
    """
    read = texts.decode(batch.input_ids)
    drawn = release.propose(rng, read, *s.shape[2:], config.patch_mode, p=1.0)
    told = (release.mixed_texts(own, read[j], config.patch_mode) for own, j in zip(read, drawn.partner, strict=True))
    plan, how = {name: torch.as_tensor(value) for name, value in vars(drawn).items()}, _how(config)
    choices = torch.stack([texts(each) for each in told])
    mixed, _, input_ids, accepted = release.paste_then_gate(s, p, choices, plan, *how)
    patches, _ = _patches(p, plan, how)
    thirds = torch.from_numpy(THIRDS.boxes(*s.shape[2:]))
    return Mix(mixed, input_ids, accepted, patches, zone_of_patch(patches, thirds))


def _how(config: Config) -> tuple[int, str, float]:
    return config.block, config.patch_mode, config.gate


def _patches(p: Tensor, plan: dict[str, Tensor], how: Sequence) -> tuple[Tensor, Tensor]:
    block, mode, gate = how
    return patchmix.patch_boxes(p, **plan, block=block, mode=mode, gate=gate)
