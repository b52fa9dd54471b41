"""The released code's step, for comparison with the paper's step. Written from a description.

========= =============================================== ============================================================
          the release                                     here
========= =============================================== ============================================================
Ledger 1  the patch is pasted before the gate decides:    image, target and text change together or not at all
          a refused patch stays in the image
Ledger 2  only the first phrase of a report counts;       any zone named by the receiver's report, the donor's, or
          ``upper lower`` is one box, middle included     both (``patch_zones``)
Ledger 3  the first phrase becomes "A and B", the count   zones, laterality and number are rewritten
          and laterality words stay
Ledger 4  in mode ``probability`` the text stays          the text follows in every mode
Ledger 8  equal thirds                                    a grid that fits the data
Ledger 9  a phrase needs height words, side and "lung":   the parser reads the whole grammar
          ``all left lung`` is no phrase
Ledger 13 PosAug hides phrases before mixing reads them   mixing reads the report, then PosAug hides phrases of the
                                                          mixed report
========= =============================================== ============================================================

These are always part of the method ``semi_medref_release``. Four more differences have a setting each, so that the
effect of each can be measured. The preset ``release-qata`` sets all four:

========= =========================== ================================================================================
Ledger 14 ``axes = transposed``       pictures lie on their side while boxes and words mean upright ones
Ledger 15 ``mask_loss = dice``        DiceCE has no cross-entropy
Ledger 16 ``strong_view = clamped``   the strong view clips grey values to 0 to 1
Ledger 17 ``choose_by = student``     the student's micro Dice chooses the weights that are kept
========= =========================== ================================================================================
"""

from __future__ import annotations

import math
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
from semimedref_core.teacher import Teacher, ramp
from semimedref_kernels import patch_mix

_OF_MIXING = "patch_p patch_size gate grid weak_view strong_view teacher_view pseudo_labels unfound".split()
_PRESET = preset("paper-qata")
SETTINGS = {name: _PRESET[name] for name in _OF_MIXING}
"""The release's settings of mixing, with the names of :class:`semimedref_core.config.Config`."""

_PHRASE = re.compile(rf"(?:(?:{'|'.join(HEIGHTS)}) )+(?:{'|'.join(SIDES)}) lung")


def first_phrase(text: str) -> str | None:
    """The first position phrase with height words, such as ``middle lower left lung``; ``None`` if there is none."""
    found = _PHRASE.search(text)
    return found[0] if found else None


def phrase_box(phrase: str, height: int, width: int) -> np.ndarray:
    """The box of a phrase in px, ``[4]`` int64: from its highest to its lowest third, with everything in between."""
    *heights, side, _ = phrase.split()
    boxes = THIRDS.boxes(height, width)[3 * SIDES.index(side) :]
    first, last = HEIGHTS.index(heights[0]), HEIGHTS.index(heights[-1])
    return np.concatenate([boxes[first][:2], boxes[last][2:]])


def propose(
    rng: np.random.Generator,
    texts: Sequence[str],
    height: int,
    width: int,
    mode: str = "position",
    p: float = SETTINGS["patch_p"],
) -> Proposal:
    """Draws partners and patch places for a batch.

    Args:
        rng: source of chance.
        texts: B reports as text, after PosAug (Ledger 13).
        height, width: size of the images in px; the boxes do not follow the view.
        mode: ``position`` (inside the box of the receiver's first phrase; a donor may give if its first phrase names
            the same side, or if it has no phrase), ``probability`` (where the teacher is confident) or ``random``
            (anywhere).
        p: probability that a sample is offered a patch.

    Returns:
        A proposal with one box for each sample instead of six, ``[B, 1, 4]``; its ``zones`` are 0, or -1 for no patch.

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
    """Whether a donor with this text may give a patch in mode ``position``. It may if the receiver's text has a phrase
    and the two first phrases do not name opposite sides (Ledger 2)."""
    a, b = first_phrase(own), first_phrase(donor)
    return a is not None and (b is None or a.split()[-2] == b.split()[-2])


def mixed_texts(own: str, donor: str, mode: str = "position") -> list[str]:
    """The two possible texts of a sample: its own, and its own with the first phrase A changed.

    Let B be the donor's first phrase. A becomes "A and B" in mode ``position`` and B in mode ``random``. It stays A in
    mode ``probability`` (Ledger 4), and also if A or B is missing or both are equal (Ledger 3).
    """
    a, b = first_phrase(own), first_phrase(donor)
    if mode == "probability" or not a or not b or a == b:
        return [own, own]
    return [own, own.replace(a, b if mode == "random" else f"{a} and {b}", 1)]


def hide_phrases(rng: np.random.Generator, text: str, p: float = 0.5, mode: str = "mix") -> str:
    """The release's PosAug: hits each phrase that its pattern finds independently."""

    def replacement(found: re.Match) -> str:
        return draw_hits(rng, p, mode).get(found[0].split()[-2], found[0])

    return _PHRASE.sub(replacement, text)


def plan_mixing(
    rng: np.random.Generator, reports: list[Report], boxes: np.ndarray, config: Config, texts: Texts | ReadTexts
) -> tuple[Tensor, Proposal]:
    """Replaces :func:`semimedref_core.data.batches.plan_mixing`.

    Returns:
        ``[B, 2, L]`` token ids of :func:`mixed_texts`, cut if they are too long, and the proposal of :func:`propose`.
        Both read the texts after PosAug (Ledger 13). The zone boxes are not used.
    """
    told = [hide_phrases(rng, report.render(), config.posaug_p, config.posaug_mode) for report in reports]
    proposal = propose(rng, told, config.image_size, config.image_size, config.patch_mode, config.patch_p)
    mixed = [mixed_texts(own, told[j], config.patch_mode) for own, j in zip(told, proposal.partner, strict=True)]
    return texts([text for two in mixed for text in two], cut=True).unflatten(0, (len(reports), 2)), proposal


def paste_then_gate(
    images: Tensor, probs: Tensor, text_choices: Tensor, proposal: dict[str, Tensor], block: int, mode: str, gate: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Replaces :func:`semimedref_core.patchmix.t_patchmix`. Two arguments differ: ``text_choices`` ``[B, 2, L]`` come
    from :func:`mixed_texts`, and the proposal from :func:`propose`.

    Returns:
        Mixed images, probabilities, token ids ``[B, L]``, accepted ``[B]`` bool. A refused patch stays in the image.
    """
    boxes, zones = patch_boxes(probs, **proposal, block=block, mode=mode, gate=gate)
    mixed, _, _ = patch_mix(images, probs, proposal["partner"], boxes, 0.0)  # pastes every patch that is not empty
    _, target, accepted = patch_mix(images, probs, proposal["partner"], boxes, gate)
    choice = torch.where(accepted, zones + 1, 0)
    return mixed, target, text_choices[torch.arange(len(choice), device=choice.device), choice], accepted


def step(student: nn.Module, teacher: Teacher, batch: Batch, w_u: float | Tensor, config: Config) -> dict[str, Tensor]:
    """The paper's step with the release's mixing; ``mask_loss = dice`` also leaves out the cross-entropy."""
    loss = dice if config.mask_loss == "dice" else dice_ce
    return semi_medref(student, teacher, batch, w_u, config, mix=paste_then_gate, mask_loss=loss)


def schedule(step: int, epoch: int) -> dict[str, float]:
    """The schedule of the release's training, for comparison with :func:`semimedref_core.step.schedule`.

    Its values are those of the preset ``paper-qata``, over other spans. After 5 epochs of burn-in, the weight of the
    unlabelled loss grows over 15 epochs, and the decay of the teacher over 20. The learning rate follows half a cosine
    of 200 epochs to 1e-6, without warm-up.

    Args:
        step: from 0.
        epoch: number of steps of an epoch.

    Returns:
        ``w_u``, ``decay`` and ``lr`` of this step.
    """
    at = step / epoch
    cosine = (1 + math.cos(math.pi * at / 200)) / 2
    decay, last = _PRESET["ema_decay"], _PRESET["ema_decay_last"]
    return {
        "w_u": _PRESET["unsupervised_weight"] * ramp(at, 5, 15),
        "decay": decay + (last - decay) * ramp(at, 5, 20),
        "lr": 1e-6 + (_PRESET["lr"] - 1e-6) * cosine,
    }


def dice(logits: Tensor, target: Tensor, weight: None = None) -> Tensor:
    """Replaces :func:`semimedref_core.losses.dice_ce`; all pixels have the same weight.

    The release pins MONAI 1.0.1, whose cross-entropy of a single channel is a softmax over one class. It is 0 for any
    prediction, so only Dice is left (Ledger 15).
    """
    return dice_of_images(logits, target).mean()
