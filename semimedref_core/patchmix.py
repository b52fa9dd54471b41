"""T-PatchMix: image, pseudo-label and referring text of a patch are mixed together.

For sample i with partner j: *propose* a patch; *gate* it by the teacher's mean probability of the partner's lesion in
the patch; *apply* it to image, target and text together, or to none of them. The invariant: for every sample, the image
shows what the mask marks and what the text says, also if the gate refuses.

A patch always lies inside one zone box. So we know the zone that a pasted lesion adds to the report before the gate
decides. The CPU prepares both texts, and the accepted flag selects one on the device, without a host sync.
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
    """Donors, zones and places of the patches for B samples, in a layout of n zones (six for the lungs).

    Attributes:
        partner: ``[B]`` int64, the donor j of each sample i.
        centres: ``[B, 2]`` float32 in 0 to 1: the place of the patch's centre in its zone box (modes ``position`` and
            ``random``). Mode ``probability`` uses the first number to select a confident pixel.
        boxes: ``[B, n, 4]`` int64, (y0, x0, y1, x1) px, ends exclusive; zone k is bit k of the codes. Where a patch of
            each zone may lie: the intersection of the zone's boxes in the donor's view and in the receiver's view. So a
            pasted lesion stays in its zone, and the text names that zone, even if the two views are shifted. (0, 0, 0,
            0) if the two boxes do not overlap.
        zones: ``[B]`` int64, the zone of the patch; -1 if no patch is proposed.
    """

    partner: np.ndarray
    centres: np.ndarray
    boxes: np.ndarray
    zones: np.ndarray


def compatible_zones(own: AnyReport, donor: AnyReport, named_by: PatchZones = "donor") -> list[int]:
    """The zones in which the donor may give a patch. There are none if the two reports name opposite sides, or if one
    of them has no positions.

    The release reads only the first phrase of each report (Ledger 2).

    Args:
        own, donor: the reports of receiver and donor.
        named_by: whose report must name a zone. ``receiver`` is the paper's rule: the patch lies in a zone that the
            receiver's report already names. The donor may name no zone. ``donor`` is ours: the text may get a new zone,
            so a report of the left side can become bilateral. The receiver may name no zone. ``both`` requires both
            reports to name it.

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
    """The intersections of boxes ``[..., 4]`` (top, left, bottom, right; px), pair by pair; (0, 0, 0, 0) if a pair does
    not overlap."""
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    return np.where((low < high).all(-1, keepdims=True), np.concatenate([low, high], -1), 0)


def zone_choices(own: AnyReport, donor: AnyReport, mode: PatchMode, named_by: PatchZones = "donor") -> list[int]:
    """The zones from which a patch of this donor is drawn; none if the pair is not mixed.

    In mode ``probability`` the donor's map decides where a patch lies. So the zones of the donor's report count here.
    """
    if mode == "random":
        return list(range(len(own.layout))) if own.located and donor.located else []
    return compatible_zones(own, donor, named_by if mode == "position" else "donor")


def propose(
    rng: np.random.Generator,
    reports: Sequence[AnyReport],
    boxes: np.ndarray,
    mode: PatchMode = "position",
    p: float = 1.0,
    named_by: PatchZones = "donor",
) -> Proposal:
    """Draws partners and patch zones for a batch (Eq. 4; paper: 6).

    Args:
        rng: source of chance, a ``numpy.random.Generator``.
        reports: B reports of the views: mirrored pictures have flipped reports.
        boxes: ``[B, n, 4]`` int64, (y0, x0, y1, x1) px, ends exclusive: the zone boxes in each view; zone k is bit k of
            the codes.
        mode: ``position`` (a zone that a report names, with compatible sides), ``probability`` (the teacher's map
            decides the zone) or ``random`` (any zone, independent of the reports: plain CutMix).
        p: probability that a sample is offered a patch. One that is drawn as its own partner gets none, so the share
            of B samples is at most ``p (1 - 1 / B)``.
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
    _require_mode(mode)
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


def _require_mode(mode: str) -> None:
    if mode not in PATCH_MODES:
        raise ValueError(f"unknown patch mode {mode!r}; choose one of {', '.join(PATCH_MODES)}")


def mixed_reports(own: AnyReport, mix_text: MixText = "rewrite", mix_count: MixCount = "zones") -> list[AnyReport]:
    """The possible reports of a sample (Eq. 8; paper: 8): its own report, then for each zone the report with a lesion
    added there.

    Args:
        own: the receiver's report; if it has no positions, nothing is mixed, and all texts are its own.
        mix_text: ``keep`` is an ablation: all texts are its own, so the text does not name the pasted lesion.
        mix_count: the number of infected areas in the mixed report. ``zones``: the number of named zones, as in the
            release's texts; in LViT's texts the word counts lesions instead. ``none``: no number. ``one_more``: one
            more than before. It is wrong in half of the mixes or more: the pasted lesion may touch or hide another one,
            or have several pieces.

    Raises:
        ValueError: if ``mix_text`` or ``mix_count`` is unknown.

    >>> from semimedref_core import Report, mixed_reports
    >>> own = Report.of([0, 0, 1, 0, 0, 0])
    >>> print(mixed_reports(own)[6])  # a lesion in the sixth zone
    bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.
    >>> print(mixed_reports(own, mix_count="none")[6])
    bilateral pulmonary infection, lower left lung and lower right lung.
    """
    for what, name, known in (("mix_text", mix_text, get_args(MixText)), ("mix_count", mix_count, MIX_COUNTS)):
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; choose one of {', '.join(known)}")
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
    gate: float,
) -> tuple[Tensor, Tensor]:
    """The patches m in pixels (Eq. 4; paper: 6): squares of side ``block``, clipped to the zone box that holds their
    centre.

    In mode ``probability`` the centre is drawn uniformly from the donor's confident foreground (``p_j >= gate``),
    and the zone is the one whose box holds the centre.

    Args:
        probs: ``[B, 1, H, W]`` teacher probabilities; the other arguments are the fields of :class:`Proposal` as
            tensors.
        boxes: ``[B, n, 4]`` int64, (y0, x0, y1, x1) px, ends exclusive; zone k is bit k of the codes.
        block: side in px, an integer (:attr:`.config.Config.block`).
        mode: one of :data:`PATCH_MODES`.
        gate: smallest probability of confident foreground.

    Returns:
        Boxes ``[B, 4]`` int64 and their zones ``[B]``. A sample without a patch has an empty box and the zone -1.

    Raises:
        ValueError: if the mode is unknown.
    """
    _require_mode(mode)
    rows = torch.arange(len(zones), device=zones.device)
    if mode == "probability":
        width = probs.shape[3]
        sure = (probs[partner] >= gate).flatten(1)  # [B, HW]
        # Selects the k-th confident pixel, with uniform k. A cumulative sum avoids torch.nonzero, which makes the
        # host wait.
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
    """Mixes image, pseudo-label and text of each sample together, or leaves all three unchanged (Eq. 5 to 8; paper: 7
    to 8).

    Args:
        images: ``[B, C, H, W]`` strong views s.
        probs: ``[B, 1, H, W]`` teacher probabilities p on the weak views.
        text_choices: ``[B, 1 + n, L]`` token ids of :func:`mixed_reports`, for n zones.
        proposal: the fields of :class:`Proposal` as tensors.
        block: side of the patches in px, an integer (:attr:`.config.Config.block`).
        mode: one of :data:`PATCH_MODES`.
        gate: ``conf_th``, the smallest mean probability of the donor's lesion in the patch.

    Returns:
        Mixed images, mixed probabilities, token ids ``[B, L]``, accepted ``[B]`` bool. The mixed probabilities are not
        rounded; the paper's target is ``(p_mix >= 0.5).float()``.

    Raises:
        ValueError: if the mode is unknown, or ``text_choices`` has not one text more than there are zones.

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
    most = 1 + proposal["boxes"].shape[1]
    if text_choices.ndim < 3 or text_choices.shape[1] != most:
        raise ValueError(f"text_choices must be [B, {most}, L], one text more than zones, got {[*text_choices.shape]}")
    boxes, zones = patch_boxes(probs, **proposal, block=block, mode=mode, gate=gate)
    mixed, target, accepted = patch_mix(images, probs, proposal["partner"], boxes, gate)  # Eq. 5, Eq. 6, Eq. 7
    choice = torch.where(accepted, zones + 1, 0)  # Eq. 8: the texts are ready; the device selects one
    rows = torch.arange(len(choice), device=choice.device)
    return mixed, target, text_choices[rows, choice], accepted


def mixed_codes(
    codes: Tensor, accepted: Tensor, probs: Tensor, proposal: dict[str, Tensor], block: int, mode: str, gate: float
) -> Tensor:
    """Zone codes ``[B]`` of the images after :func:`t_patchmix`; accepted patches add their zone.

    Args:
        codes: ``[B]`` zone codes of the receivers' reports.
        accepted: ``[B]`` bool, from :func:`t_patchmix`; the other arguments are the same as there.
    """
    _, zones = patch_boxes(probs, **proposal, block=block, mode=mode, gate=gate)
    return torch.where(accepted, codes | (1 << zones.clamp(min=0)), codes)
