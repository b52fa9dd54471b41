"""The mixing explorer: two samples and one patch. Image, target and text change together or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure

from semimedref_core import patchmix
from semimedref_core.config import MixCount, PatchZones
from semimedref_core.data.pairs import Pairs
from semimedref_core.figures.mixing import mixed_pair
from semimedref_core.reports import ZONES, Report
from semimedref_core.widgets.base import Explorer
from semimedref_core.widgets.patch_pad import STEPS, PatchPad


@dataclass(frozen=True)
class PairMix:
    """The result for one sample.

    Attributes:
        image, target: ``[H, W]`` after mixing; the target has probabilities.
        report: the report that the student reads.
        patch: (y0, x0, y1, x1) px; all 0 if none was proposed.
        mean: the teacher's mean probability of the donor's lesion in the patch; 0 for an empty patch.
        refused: the reason why nothing was mixed; empty if the patch was accepted.
    """

    image: np.ndarray
    target: np.ndarray
    report: Report
    patch: tuple[int, int, int, int]
    mean: float
    refused: str


def mix_pair(
    images: np.ndarray,
    probs: np.ndarray,
    reports: Sequence[Report],
    boxes: np.ndarray,
    zone: int,
    place: tuple[float, float],
    block: int,
    mode: str,
    gate: float,
    named_by: PatchZones = "donor",
    mix_count: MixCount = "zones",
) -> PairMix:
    """T-PatchMix of one pair, with the functions that mix a batch (Eq. 4 to 8; paper: 6 to 8).

    Args:
        images: ``[2, H, W]`` receiver and donor.
        probs: ``[2, H, W]`` the teacher's probabilities, 0 to 1.
        reports: the two reports.
        boxes: ``[6, 4]`` px, the zone boxes of both images, which are not augmented.
        zone: the zone of the patch; in mode ``probability`` the teacher's map decides.
        place: down and across, 0 to 1: the patch's centre in the zone's box; in mode ``probability`` the first number
            selects a confident pixel.
        block: side of the patch in px.
        mode: one of ``patchmix.PATCH_MODES``.
        gate: smallest mean probability of an accepted patch.
        named_by, mix_count: whose report must name the zone, and the number of lesions in the mixed report; see
            :func:`semimedref_core.patchmix.compatible_zones` and :func:`semimedref_core.patchmix.mixed_reports`.

    Raises:
        ValueError: if the mode is unknown.
    """
    if mode not in patchmix.PATCH_MODES:
        raise ValueError(f"unknown patch mode {mode!r}; choose one of {', '.join(patchmix.PATCH_MODES)}")
    own, donor = reports
    choices = patchmix.zone_choices(own, donor, mode, named_by)
    may = bool(choices) if mode == "probability" else zone in choices
    plan = {
        "partner": torch.tensor([1, 0]),
        "centres": torch.as_tensor(np.tile(place, (2, 1)), dtype=torch.float32).clamp(max=1 - 1e-6),  # drawn below 1
        "boxes": torch.as_tensor(np.stack([boxes, boxes])),
        "zones": torch.tensor([zone if may else -1, -1]),
    }
    s, p = (torch.as_tensor(a, dtype=torch.float32)[:, None] for a in (images, probs))
    patches, zones = patchmix.patch_boxes(p, **plan, block=block, mode=mode, gate=gate)
    y0, x0, y1, x1 = patches[0].tolist()
    inside = p[1, 0, y0:y1, x0:x1]
    mean = float(inside.mean()) if inside.numel() else 0.0
    # The index of each of the seven texts replaces its token ids.
    mixed, target, choice, accepted = patchmix.t_patchmix(
        s, p, torch.arange(7).repeat(2, 1)[..., None], plan, block, mode, gate
    )
    report = patchmix.mixed_reports(own, mix_count=mix_count)[int(choice[0])]
    landed = int(zones[0]), inside.numel(), mean
    refused = "" if accepted[0] else _why_not(own, donor, named_by, choices, zone, may) or _why_refused(*landed, gate)
    return PairMix(mixed[0, 0].numpy(), target[0, 0].numpy(), report, (y0, x0, y1, x1), mean, refused)


def _why_not(own: Report, donor: Report, named_by: PatchZones, choices: list[int], zone: int, may: bool) -> str:
    """The reason why no patch may be proposed; empty if one may."""
    if may:
        return ""
    if own.sides and donor.sides and not set(own.sides) & set(donor.sides):
        return "no compatible zone: the two reports name opposite sides"
    if not choices and named_by == "both":
        return "no compatible zone: no zone is named by both"
    asked = "one of the two reports" if named_by == "both" else f"the {named_by}'s report"
    return f"no compatible zone: {asked} {f'does not name {ZONES[zone]}' if choices else 'names none'}"


def _why_refused(landed: int, area: int, mean: float, gate: float) -> str:
    """The first reason why a proposed patch was refused."""
    if landed < 0:
        return f"no confident pixel: the teacher is nowhere in a zone of the donor as sure as {gate:.2f}"
    if area == 0:
        return "empty patch: no pixel of it lies in the zone's box"
    return f"mean probability {mean:.2f} below the gate {gate:.2f}"


def _how_to_move(mode: str, moves: bool, place: tuple[float, float]) -> str:
    """The note below the picture on which the reader drags the patch."""
    if mode == "probability":
        return "The teacher's map decides where the patch lies: 'down in the zone' picks one of its confident pixels."
    if not moves:
        return "No patch is proposed, so there is none to move."
    if {0, 1} & set(place):
        return "The centre of the patch is at the edge of the zone's box and stays in it. The patch is cut to the box."
    return "Drag the patch, or move it with the arrow keys. Its centre stays in the zone's box."


class MixingExplorer(Explorer):
    """Choose two samples, a way to propose, a zone, a place, a size and a gate; see the pair mixed or refused.

    The reader can also drag the patch on the receiver's picture. This moves the two controls of the place, and these
    controls move the patch.

    Args:
        pairs: N pairs.
        probs: ``[N, H, W]`` the teacher's probabilities on them.
        boxes: ``[6, 4]`` px, the zone boxes.
        start: first values of controls by name, if not the defaults.

    Attributes:
        pad: the picture on which the reader drags the patch.
    """

    def __init__(self, pairs: Pairs, probs: np.ndarray, boxes: np.ndarray, **start):
        self.pairs, self.probs, self.boxes = pairs, probs, boxes
        last, lazy = len(pairs) - 1, {"continuous_update": False}
        share = {"min": 0.0, "max": 1.0, "step": 0.05, **lazy}
        place = share | {"step": 1 / STEPS}
        controls = {
            "receiver": ipywidgets.IntSlider(0, 0, last, description="receiver i", **lazy),
            "donor": ipywidgets.IntSlider(1, 0, last, description="donor j", **lazy),
            "mode": ipywidgets.Dropdown(options=patchmix.PATCH_MODES, description="proposal"),
            "named_by": ipywidgets.Dropdown(options=patchmix.PATCH_ZONES, value="donor", description="zone named by"),
            "zone": ipywidgets.Dropdown(options=[(name, k) for k, name in enumerate(ZONES)], description="zone"),
            "down": ipywidgets.FloatSlider(0.5, description="down in the zone", **place),
            "across": ipywidgets.FloatSlider(0.5, description="across the zone", **place),
            "size": ipywidgets.FloatSlider(0.5, description="patch side / image side", **share | {"min": 0.05}),
            "gate": ipywidgets.FloatSlider(0.3, description="gate", **share),
        }
        for name, value in start.items():
            controls[name].value = value
        self.pad = PatchPad(boxes=boxes.tolist(), layout={"width": "280px", "margin": "2px 16px 2px 2px"})
        super().__init__(controls, self._mix, "receiver, donor and mixed sample, each with its report")
        self.pad.observe(self._dragged, "place")
        rows, *answer = self.children
        rows.layout.flex, rows.layout.align_content = "1 1 300px", "flex-start"
        self.children = [ipywidgets.HBox([self.pad, rows], layout={"flex_flow": "row wrap"}), *answer]

    def _dragged(self, change) -> None:
        with self.as_one():
            self.controls["down"].value, self.controls["across"].value = change["new"]

    def _mix(self, receiver, donor, mode, named_by, zone, down, across, size, gate) -> tuple[Figure, str]:
        """The figure, and the result in words.

        Raises:
            ValueError: if receiver and donor are the same sample.
        """
        if receiver == donor:
            raise ValueError(f"a sample is never its own donor: choose two samples, not {receiver} twice")
        pair, two = self.pairs.subset([receiver, donor]), [receiver, donor]
        block = max(1, round(size * pair.images.shape[1]))
        how = zone, (down, across), block, mode, gate, named_by
        mix = mix_pair(pair.images, self.probs[two], pair.reports, self.boxes, *how)
        moves = mode != "probability" and any(mix.patch)
        self.pad.show(
            pair.images[0], zone=zone, block=block, place=(down, across), patch=mix.patch, moves=moves,
            accepted=not mix.refused, note=_how_to_move(mode, moves, (down, across)),
            label=f"Receiver {receiver} with the boxes of the zones. The centre of the patch lies in {ZONES[zone]}, "
            f"{down:.0%} down and {across:.0%} across. The arrow keys move it.",
        )  # fmt: skip
        figure = mixed_pair(
            pair.images, self.probs[two], mix.image, mix.target, mix.patch, [*pair.reports, mix.report], not mix.refused
        )
        if mix.refused:
            return figure, f"refused: {mix.refused}. Image, target and text stay the receiver's own."
        return figure, f"accepted: mean probability {mix.mean:.2f}, gate {gate:.2f}. The text now reads: {mix.report}"
