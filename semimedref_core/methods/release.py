"""How the released code works, for comparison with the paper's step here. Written from a description.

========= =============================================== ============================================================
          the release                                     here
========= =============================================== ============================================================
Ledger 1  the patch is pasted, then the gate is asked:    image, target and text change together or not at all
          a refused patch stays in the image
Ledger 2  the first phrase of a report is its only one;   any zone that the receiver's report names, the donor's, or
          ``upper lower`` is one box, the middle included both (``patch_zones``)
Ledger 3  the first phrase becomes "A and B", the count   zones, laterality and number are rewritten
          and laterality words stay
Ledger 4  in mode ``probability`` the text stays          the text follows in every mode
Ledger 8  equal thirds                                    a grid that fits the data
Ledger 9  a phrase is height words, side, "lung": in      the whole grammar is read
          ``all left lung`` it finds none
Ledger 13 PosAug hides phrases before mixing looks for    mixing reads the report, and PosAug then hides phrases of the
          them                                            mixed one
========= =============================================== ============================================================

These are always part of the method ``semi_medref_release``. Four more have a setting each, so that the effect of one
can be seen alone; the preset ``release-qata`` has them all:

========= =========================== ================================================================================
Ledger 14 ``axes = transposed``       pictures lie on their side while boxes and words mean upright ones
Ledger 15 ``mask_loss = dice``        DiceCE has no cross-entropy
Ledger 16 ``strong_view = clamped``   the strong view cuts grey values to 0 to 1
Ledger 17 ``choose_by = student``     the student's micro Dice chooses the weights that are kept
========= =========================== ================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.losses import dice_ce, dice_of_images
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts
from semimedref_core.patchmix import PATCH_MODES, Proposal, patch_boxes
from semimedref_core.posaug import draw_hits
from semimedref_core.presets import preset
from semimedref_core.reports import HEIGHTS, SIDES, Report
from semimedref_core.semi_medref import semi_medref
from semimedref_core.teacher import Teacher
from semimedref_kernels import patch_mix

_OF_MIXING = "patch_p patch_size gate grid weak_view strong_view teacher_view pseudo_labels unfound".split()
SETTINGS = {name: preset("paper-qata")[name] for name in _OF_MIXING}
"""Its settings of mixing, by the names of :class:`semimedref_core.config.Config`."""

_PHRASE = re.compile(rf"(?:(?:{'|'.join(HEIGHTS)}) )+(?:{'|'.join(SIDES)}) lung")


def first_phrase(text: str) -> str | None:
    """The first position phrase with height words, such as ``middle lower left lung``; ``None`` if there is none."""
    found = _PHRASE.search(text)
    return found[0] if found else None


def phrase_box(phrase: str, height: int, width: int) -> np.ndarray:
    """The box of a phrase in px, ``[4]`` int64: from its highest to its lowest third, whatever lies between."""
    *heights, side, _ = phrase.split()
    boxes = THIRDS.boxes(height, width)[3 * SIDES.index(side) :]
    first, last = HEIGHTS.index(heights[0]), HEIGHTS.index(heights[-1])
    return np.concatenate([boxes[first][:2], boxes[last][2:]])


def propose(
    rng: np.random.Generator, texts: Sequence[str], height: int, width: int, mode: str = "position", p: float = 0.08
) -> Proposal:
    """Draws partners and patch places for a batch.

    Args:
        rng: source of chance.
        texts: B reports as text, after PosAug (Ledger 13).
        height, width: of the images in px; the boxes do not follow the view.
        mode: ``position`` (inside the box of the receiver's first phrase; a donor whose first phrase names the other
            side gives nothing, one without a phrase may give), ``probability`` (anywhere the teacher is sure) or
            ``random`` (anywhere).
        p: probability of a sample to be offered a patch.

    Returns:
        A proposal with one box a sample instead of six, ``[B, 1, 4]``; its ``zones`` are 0, or -1 for no patch.

    Raises:
        ValueError: if the mode is unknown.
    """
    if mode not in PATCH_MODES:
        raise ValueError(f"unknown patch mode {mode!r}; the release has {', '.join(PATCH_MODES)}")
    batch = len(texts)
    partner = rng.permutation(batch)
    offered, centres = rng.random(batch) < p, rng.random((batch, 2)).astype(np.float32)
    boxes, zones = np.tile(np.array([0, 0, height, width]), (batch, 1, 1)), np.full(batch, -1)
    for i, j in enumerate(partner):
        if not offered[i] or i == j:
            continue
        if mode != "position":
            zones[i] = 0
        elif may_give(texts[i], texts[j]):
            boxes[i, 0], zones[i] = phrase_box(first_phrase(texts[i]), height, width), 0
    return Proposal(partner, centres, boxes, zones)


def may_give(own: str, donor: str) -> bool:
    """Whether a donor of this text may give a patch in mode ``position``: the receiver's text has a phrase, and the
    first phrases do not name opposite sides (Ledger 2)."""
    a, b = first_phrase(own), first_phrase(donor)
    return a is not None and (b is None or a.split()[-2] == b.split()[-2])


def mixed_texts(own: str, donor: str, mode: str = "position") -> list[str]:
    """The two texts a sample can end with: its own, and its own with the first phrase A changed.

    With the donor's first phrase B, A becomes "A and B" in mode ``position``, B in mode ``random``, and stays in mode
    ``probability`` (Ledger 4). It stays too where one of them is missing or both are equal (Ledger 3).
    """
    a, b = first_phrase(own), first_phrase(donor)
    if mode == "probability" or not a or not b or a == b:
        return [own, own]
    return [own, own.replace(a, b if mode == "random" else f"{a} and {b}", 1)]


def hide_phrases(rng: np.random.Generator, text: str, p: float = 0.5, mode: str = "mix") -> str:
    """PosAug of the phrases that its pattern finds, each hit by itself."""

    def replacement(found: re.Match) -> str:
        return draw_hits(rng, p, mode).get(found[0].split()[-2], found[0])

    return _PHRASE.sub(replacement, text)


def plan_mixing(
    rng: np.random.Generator, reports: list[Report], boxes: np.ndarray, config: Config, texts: Texts | ReadTexts
) -> tuple[Tensor, Proposal]:
    """In place of :func:`semimedref_core.data.batches.plan_mixing`.

    Returns:
        ``[B, 2, L]`` token ids of :func:`mixed_texts`, cut where they are too long, and the proposal of
        :func:`propose`, both of the texts as PosAug has left them (Ledger 13); the zone boxes are not asked.
    """
    told = [hide_phrases(rng, report.render(), config.posaug_p, config.posaug_mode) for report in reports]
    proposal = propose(rng, told, config.image_size, config.image_size, config.patch_mode, config.patch_p)
    choices = [
        texts(mixed_texts(own, told[j], config.patch_mode), cut=True)
        for own, j in zip(told, proposal.partner, strict=True)
    ]
    return torch.stack(choices), proposal


def paste_then_gate(
    images: Tensor, probs: Tensor, text_choices: Tensor, proposal: dict[str, Tensor], block: int, mode: str, gate: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In place of :func:`semimedref_core.patchmix.t_patchmix`, and with its arguments, save for ``text_choices``
    ``[B, 2, L]`` of :func:`mixed_texts` and a proposal of :func:`propose`.

    Returns:
        Mixed images, probabilities, token ids ``[B, L]``, accepted ``[B]`` bool. Where a patch was refused the image
        holds it all the same.
    """
    boxes, zones = patch_boxes(probs, **proposal, block=block, mode=mode, confident=gate)
    mixed, _, _ = patch_mix(images, probs, proposal["partner"], boxes, 0.0)  # every patch that is not empty
    _, target, accepted = patch_mix(images, probs, proposal["partner"], boxes, gate)
    choice = torch.where(accepted, zones + 1, 0)
    return mixed, target, text_choices[torch.arange(len(choice), device=choice.device), choice], accepted


def step(student: nn.Module, teacher: Teacher, batch: Batch, w_u: float | Tensor, config: Config) -> dict[str, Tensor]:
    """The paper's step, mixed as the release mixes; ``mask_loss = dice`` leaves out the cross-entropy too."""
    loss = dice if config.mask_loss == "dice" else dice_ce
    return semi_medref(student, teacher, batch, w_u, config, mix=paste_then_gate, mask_loss=loss)


def dice(logits: Tensor, target: Tensor, weight: None = None) -> Tensor:
    """In place of :func:`semimedref_core.losses.dice_ce`, where each pixel teaches.

    MONAI 1.0.1, which the release pins, takes the cross-entropy of a single channel by a softmax over one class. That
    is 0 whatever the network says, so Dice alone is left (Ledger 15).
    """
    return dice_of_images(logits, target).mean()
