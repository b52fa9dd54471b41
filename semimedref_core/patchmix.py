"""T-PatchMix: patches of image, pseudo-label and referring text are mixed as one.

For sample i with partner j: *propose* a patch, *gate* it by the teacher's mean probability of the partner's lesion in
it, *apply* it to image, target and text together or to none. The invariant: what the image shows, the mask marks and
the text says are the same thing, for every sample, also when the gate refuses.

A patch always lies inside one zone box, so the zone that a pasted lesion adds to the report is known before the gate
has spoken: both texts are prepared on the CPU, and the accepted flag picks one on the device without a host sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from semimedref_core.config import MixCount, MixText, PatchMode, PatchZones
from semimedref_core.positions import AnyReport
from semimedref_kernels import patch_mix

PATCH_MODES = get_args(PatchMode)
PATCH_ZONES = get_args(PatchZones)
MIX_COUNTS = get_args(MixCount)


@dataclass(frozen=True)
class Proposal:
    """Who gives to whom, and where, for B samples.

    Attributes:
        partner: ``[B]`` int64, the donor j of each sample i.
        centres: ``[B, 2]`` float32 in 0 to 1: where in its zone box the patch's centre lies (modes ``position`` and
            ``random``), or the chance that picks a confident pixel (mode ``probability`` uses the first).
        boxes: ``[B, 6, 4]`` int64 px, where a patch of each zone may lie: the zone's box in the donor's view, cut to
            its box in the receiver's. So a pasted lesion ends in the zone that it comes from, and the text names it,
            even where the two views were moved apart. Empty (0, 0, 0, 0) where the two boxes do not meet.
        zones: ``[B]`` int64, the zone of the patch; -1 where no patch is proposed.
    """

    partner: np.ndarray
    centres: np.ndarray
    boxes: np.ndarray
    zones: np.ndarray


def compatible_zones(own: AnyReport, donor: AnyReport, named_by: PatchZones = "donor") -> list[int]:
    """The zones in which the donor may give a patch; none where the two reports name opposite sides, or one does not
    say where.

    The release looks at first phrases only (Ledger 2).

    Args:
        own, donor: the reports of receiver and donor.
        named_by: whose report must name a zone. ``receiver`` is the paper's rule: the patch lies where the receiver's
            report says already that something is, and a donor that names no zone is allowed. ``donor`` is ours: the
            text gets a zone that it may not have had, so a left-only report can become bilateral, and a receiver that
            names no zone is allowed. ``both`` is stricter than either.

    Raises:
        ValueError: if ``named_by`` is unknown.

    >>> from semimedref_core import Report
    >>> left, both = Report.of([0, 1, 1, 0, 0, 0]), Report.of([0, 0, 1, 0, 0, 1])
    >>> [compatible_zones(left, both, whose) for whose in ("receiver", "donor", "both")]
    [[1, 2], [2, 5], [2]]
    """
    if named_by not in PATCH_ZONES:
        raise ValueError(f"unknown rule {named_by!r} for zones; choose one of {', '.join(PATCH_ZONES)}")
    of_own, of_donor = ({k for k, bit in enumerate(report.zones) if bit} for report in (own, donor))
    opposite = of_own and of_donor and not set(own.sides) & set(donor.sides)
    if opposite or not (own.located and donor.located):
        return []
    return sorted({"receiver": of_own, "donor": of_donor, "both": of_own & of_donor}[named_by])


def common_boxes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where boxes ``[..., 4]`` (top, left, bottom, right; px) overlap, one by one; (0, 0, 0, 0) where they do not."""
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    return np.where((low < high).all(-1, keepdims=True), np.concatenate([low, high], -1), 0)


def zone_choices(own: AnyReport, donor: AnyReport, mode: PatchMode, named_by: PatchZones = "donor") -> list[int]:
    """The zones that a patch of this donor is drawn from; none where the pair is not to be mixed.

    In mode ``probability`` the donor's map decides where a patch lies, so what the donor's report names decides here.
    """
    if mode == "random":
        return list(range(len(own.layout))) if own.located and donor.located else []
    return compatible_zones(own, donor, named_by if mode == "position" else "donor")


def propose(
    rng: np.random.Generator,
    reports: Sequence[AnyReport],
    boxes: np.ndarray,
    mode: PatchMode = "position",
    p: float = 0.5,
    named_by: PatchZones = "donor",
) -> Proposal:
    """Draws partners and patch zones for a batch (Eq. 4; paper: 6).

    Args:
        rng: source of chance.
        reports: B reports, of the views as they are (mirrored pictures with flipped reports).
        boxes: ``[B, 6, 4]`` px, the zone boxes as they lie in each view.
        mode: ``position`` (a zone that a report names, sides compatible), ``probability`` (the zone follows from the
            teacher's map) or ``random`` (any zone, whatever the reports say: plain CutMix).
        p: probability of a sample to be offered a patch.
        named_by: whose report must name the zone in mode ``position``; see :func:`compatible_zones`.

    Raises:
        ValueError: if the mode or the rule is unknown.

    >>> import numpy as np
    >>> from semimedref_core import Grid, Report, propose
    >>> left, right = Report.of([0, 0, 1, 0, 0, 0]), Report.of([0, 0, 0, 0, 0, 1])
    >>> boxes = np.stack([Grid((0.0, 0.4, 0.6, 1.0)).boxes(64, 64)] * 2)
    >>> propose(np.random.default_rng(3), [left, left], boxes, p=1).zones.tolist()  # 2 is lower left
    [2, 2]
    >>> propose(np.random.default_rng(3), [left, right], boxes, p=1).zones.tolist()  # opposite sides: no patch
    [-1, -1]
    """
    if mode not in PATCH_MODES:
        raise ValueError(f"unknown patch mode {mode!r}; choose one of {', '.join(PATCH_MODES)}")
    batch = len(reports)
    partner = rng.permutation(batch)
    shared = common_boxes(boxes[partner], boxes)
    offered = rng.random(batch) < p
    picks, centres = rng.random(batch), rng.random((batch, 2)).astype(np.float32)
    zones = np.full(batch, -1)
    for i, j in enumerate(partner):
        choice = [zone for zone in zone_choices(reports[i], reports[j], mode, named_by) if shared[i, zone, 2]]
        if offered[i] and choice and i != j:
            zones[i] = choice[int(picks[i] * len(choice))]
    return Proposal(partner, centres, shared, zones)


def mixed_reports(own: AnyReport, mix_text: MixText = "rewrite", mix_count: MixCount = "zones") -> list[AnyReport]:
    """The reports a sample can end with (Eq. 8; paper: 8): its own, then its own and a lesion in each zone.

    Args:
        own: the receiver's report; if it does not say where, nothing is mixed, and all are its own.
        mix_text: ``keep``: all are its own, an ablation: the text does not tell what was pasted.
        mix_count: the number of infected areas that the mixed report gives. ``zones``: so many zones are named, as in
            the release's texts; the word then counts something else than in a text of LViT. ``none``: no number.
            ``one_more`` is wrong where the pasted lesion touches one that is there, hides one, or comes in several
            pieces: in half of the mixes or more.

    >>> from semimedref_core import Report, mixed_reports
    >>> own = Report.of([0, 0, 1, 0, 0, 0])
    >>> print(mixed_reports(own)[6])  # a lesion in the sixth zone
    bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.
    >>> print(mixed_reports(own, mix_count="none")[6])
    bilateral pulmonary infection, lower left lung and lower right lung.
    """
    if mix_text == "keep" or not own.located:
        return [own] * (1 + len(own.layout))
    one_zone = np.eye(len(own.layout), dtype=int)
    mixed = [own.merge(own.naming(zone)) for zone in one_zone]
    if mix_count == "zones":
        mixed = [report.counting_zones() for report in mixed]
    elif mix_count == "none":
        mixed = [report.without_count() for report in mixed]
    return [own, *mixed]


def patch_boxes(
    probs: Tensor,
    partner: Tensor,
    centres: Tensor,
    boxes: Tensor,
    zones: Tensor,
    block: int,
    mode: str,
    confident: float,
) -> tuple[Tensor, Tensor]:
    """The patches m in pixels (Eq. 4; paper: 6): squares of side ``block``, cut to the zone box around their centre.

    In mode ``probability`` the centre is a pixel drawn evenly from the donor's confident foreground
    (``p_j >= confident``), and the zone is the one whose box holds it.

    Args:
        probs: ``[B, 1, H, W]`` teacher probabilities; the rest as in :class:`Proposal`, as tensors.
        block: side in px.
        mode: one of :data:`PATCH_MODES`.
        confident: smallest probability of confident foreground.

    Returns:
        Boxes ``[B, 4]`` int64, empty where there is no patch, and their zones ``[B]``, -1 where there is none.
    """
    rows = torch.arange(len(zones), device=zones.device)
    if mode == "probability":
        width = probs.shape[3]
        sure = (probs[partner] >= confident).flatten(1)  # [B, HW]
        # The k-th sure pixel, k drawn evenly: one cumulative sum, no synchronising torch.nonzero.
        nth = (centres[:, :1] * sure.sum(1, keepdim=True)).floor() + 1
        pixel = (sure.cumsum(1) < nth).sum(1).clamp(max=sure.shape[1] - 1)
        y, x = pixel // width, pixel % width
        inside = (y[:, None] >= boxes[..., 0]) & (y[:, None] < boxes[..., 2])
        inside &= (x[:, None] >= boxes[..., 1]) & (x[:, None] < boxes[..., 3])
        wanted = (zones >= 0) & sure.any(1) & inside.any(1)
        zones = torch.where(wanted, inside.int().argmax(1), -1)
        box = boxes[rows, zones.clamp(min=0)]
    else:
        box = boxes[rows, zones.clamp(min=0)]
        place = box[:, :2] + centres * (box[:, 2:] - box[:, :2])
        y, x = place.floor().long().unbind(1)
    low = torch.stack([y, x], 1) - block // 2
    low, high = torch.maximum(low, box[:, :2]), torch.minimum(low + block, box[:, 2:])
    patches = torch.cat([low, high], 1)
    return torch.where((zones >= 0)[:, None], patches, torch.zeros_like(patches)), zones


@record_function("mixing")
def t_patchmix(
    images: Tensor, probs: Tensor, text_choices: Tensor, proposal: dict[str, Tensor], block: int, mode: str, gate: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, pseudo-label and text of a batch, mixed together or left alone together (Eq. 5 to 8; paper: 7 to 8).

    Args:
        images: ``[B, C, H, W]`` strong views s.
        probs: ``[B, 1, H, W]`` teacher probabilities p on the weak views.
        text_choices: ``[B, 7, L]`` token ids of :func:`mixed_reports`.
        proposal: the fields of :class:`Proposal` as tensors.
        block: patch side in px.
        mode: one of :data:`PATCH_MODES`.
        gate: ``conf_th``, the smallest mean probability of the donor's lesion in the patch.

    Returns:
        Mixed images, mixed probabilities, token ids ``[B, L]``, accepted ``[B]`` bool.

    >>> import torch
    >>> from semimedref_core import Grid, t_patchmix
    >>> s, p = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8), torch.full((2, 1, 8, 8), 0.9)
    >>> texts = torch.arange(7).view(1, 7, 1).expand(2, 7, 1)  # the seven texts of a sample, of one token each
    >>> box = torch.from_numpy(Grid((0.0, 0.25, 0.5, 1.0)).boxes(8, 8)).expand(2, 6, 4)
    >>> proposal = {"partner": torch.tensor([1, 0]), "centres": torch.full((2, 2), 0.5), "boxes": box}
    >>> proposal["zones"] = torch.tensor([2, -1])  # the first sample gets a patch in its zone 2, the second none
    >>> mixed, target, told, accepted = t_patchmix(s, p, texts, proposal, block=2, mode="position", gate=0.5)
    >>> mixed.sum((1, 2, 3)).tolist(), told.flatten().tolist(), accepted.tolist()
    ([4.0, 64.0], [3, 0], [True, False])
    """
    boxes, zones = patch_boxes(probs, **proposal, block=block, mode=mode, confident=gate)
    mixed, target, accepted = patch_mix(images, probs, proposal["partner"], boxes, gate)  # Eq. 5, Eq. 6, Eq. 7
    choice = torch.where(accepted, zones + 1, 0)  # Eq. 8, written ahead; picked on the device
    rows = torch.arange(len(choice), device=choice.device)
    return mixed, target, text_choices[rows, choice], accepted


def mixed_codes(
    codes: Tensor, accepted: Tensor, probs: Tensor, proposal: dict[str, Tensor], block: int, mode: str, gate: float
) -> Tensor:
    """Zone codes ``[B]`` of the images after :func:`t_patchmix`: where it has accepted a patch, with the patch's zone.

    Args:
        codes: ``[B]`` zone codes of the receivers' reports.
        accepted: ``[B]`` bool, from :func:`t_patchmix`, whose arguments the others are.
    """
    _, zones = patch_boxes(probs, **proposal, block=block, mode=mode, confident=gate)
    return torch.where(accepted, codes | (1 << zones.clamp(min=0)), codes)
