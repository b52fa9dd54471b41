"""How the released code mixes, for comparison with :mod:`semimedref_core.patchmix`. Written from a description.

======== ================================================ ============================================================
         the release                                      here
======== ================================================ ============================================================
Ledger 1 the patch is pasted, then the gate is asked:     image, target and text change together or not at all
         a refused patch stays in the image
Ledger 2 the first phrase of a report is its only one;    any zone that the donor's report names
         ``upper lower`` is one box, the middle included
Ledger 3 the first phrase becomes "A and B", the count    zones, count and laterality are all rewritten
         and laterality words stay
Ledger 4 in mode ``probability`` the text stays           the text follows in every mode
Ledger 8 equal thirds                                     a grid that fits the data
Ledger 9 a phrase is height words, side, "lung": in       the whole grammar is read
         ``all left lung`` it finds none
======== ================================================ ============================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semimedref_core.anatomy import THIRDS
from semimedref_core.patchmix import Proposal, patch_boxes
from semimedref_core.reports import HEIGHTS, SIDES
from semimedref_kernels import patch_mix

MODES = ("position", "probability")
SETTINGS = {
    "patch_p": 0.08,
    "patch_size": 16 / 224,
    "gate": 0.55,
    "grid": "thirds",
    "weak_view": "release",
    "strong_view": "release",
    "pseudo_labels": "teacher",
}
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
        texts: B reports as text.
        height, width: of the images in px; the boxes do not follow the view.
        mode: ``position`` (inside the box of the donor's first phrase, if that of the sample names the same side) or
            ``probability`` (anywhere the teacher is sure).
        p: probability of a sample to be offered a patch.

    Returns:
        A proposal with one box a sample instead of six, ``[B, 1, 4]``; its ``zones`` are 0, or -1 for no patch.

    Raises:
        ValueError: if the mode is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"unknown patch mode {mode!r}; the release has {', '.join(MODES)}")
    batch = len(texts)
    partner = rng.permutation(batch)
    offered, centres = rng.random(batch) < p, rng.random((batch, 2)).astype(np.float32)
    phrases = [first_phrase(text) for text in texts]
    boxes, zones = np.tile(np.array([0, 0, height, width]), (batch, 1, 1)), np.full(batch, -1)
    for i, j in enumerate(partner):
        if not offered[i] or i == j:
            continue
        if mode == "probability":
            zones[i] = 0
        elif phrases[i] and phrases[j] and phrases[i].split()[-2] == phrases[j].split()[-2]:
            boxes[i, 0], zones[i] = phrase_box(phrases[j], height, width), 0
    return Proposal(partner, centres, boxes, zones)


def mixed_texts(own: str, donor: str, mode: str = "position") -> list[str]:
    """The two texts a sample can end with: its own, and that with the donor's first phrase behind its own first."""
    a, b = first_phrase(own), first_phrase(donor)
    if mode == "probability" or not a or not b:
        return [own, own]
    return [own, own.replace(a, f"{a} and {b}", 1)]


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
