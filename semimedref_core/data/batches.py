"""From pairs to the batch of a step: its pairs, views and texts, and the plan of T-PatchMix.

All random numbers of a batch are drawn here, on the CPU. They depend only on (seed, step, process). So a resumed run
draws the same numbers as an uninterrupted one, and the device never waits for the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from semimedref_core import patchmix, posaug, views
from semimedref_core.anatomy import Grid
from semimedref_core.batch import Batch, Labelled, Unlabelled, each_tensor
from semimedref_core.config import Config
from semimedref_core.data.chance import source
from semimedref_core.data.pairs import Pairs
from semimedref_core.data.resident import Stack, moved
from semimedref_core.missing_positions import draw_changed, text_at_hand, texts_at_hand
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts
from semimedref_core.positions import AnyReport, Positions

ISPG_REMOVAL_RATE = 0.5  # the release, from its description

PlanMixing = Callable[
    [np.random.Generator, list[AnyReport], np.ndarray, Config, Texts | ReadTexts], tuple[Tensor | None, object]
]
"""Draws ahead how a method mixes B samples and their texts. Arguments: random generator, reports of the views, zone
boxes ``[B, 6, 4]`` in the views (px), settings, and tokenizer. Result: ``text_choices`` and ``proposal`` (a dataclass
of arrays, or ``None``) of :class:`semimedref_core.batch.Unlabelled`. The random numbers of the plan are the last ones
of a batch, so a plan changes nothing else in it."""


def plan_mixing(
    rng: np.random.Generator, reports: list[AnyReport], boxes: np.ndarray, config: Config, texts: Texts | ReadTexts
) -> tuple[Tensor, patchmix.Proposal]:
    """The plan of T-PatchMix: the proposal, and ``[B, 7, L]`` token ids of the own text and of six texts with a pasted
    zone, all after PosAug.

    With ISPG, the positions of some samples are removed from all seven texts.
    """
    hits = [posaug.draw_hits(rng, config.posaug_p, config.posaug_mode, report.layout.vague) for report in reports]
    proposal = patchmix.propose(rng, reports, boxes, config.patch_mode, config.patch_p, config.patch_zones)
    choices = []
    for report, hit, bare in zip(reports, hits, draw_changed(rng, len(reports), _removal_rate(config)), strict=True):
        mixed = patchmix.mixed_reports(report, config.mix_text, config.mix_count)
        choices += [text_at_hand(choice, "removed") if bare else posaug.apply_hits(choice, hit) for choice in mixed]
    # All at once, because a frozen text encoder reads new texts together.
    return texts(choices).unflatten(0, (len(reports), -1)), proposal


def no_mixing(
    rng: np.random.Generator, reports: list[AnyReport], boxes: np.ndarray, config: Config, texts: Texts | ReadTexts
) -> tuple[None, None]:
    """The plan of methods that mix nothing and read each pair's own text."""
    return None, None


def _removal_rate(config: Config) -> float:
    """The share of the student's reports whose positions are removed in training."""
    return ISPG_REMOVAL_RATE if config.ispg == "on" else 0.0


class Batches:
    """The batches of a run, by step number.

    Args:
        labelled: pairs with masks.
        unlabelled: pairs whose masks are not used, or ``None``.
        config: the run's settings.
        texts: tokenizes reports, or gives the output of a frozen text encoder for them.
        grid: the zone grid of the lungs, or another layout of zones.
        device: the device of the batches.
        rank, world: index of this process and number of processes; each process draws its own part.
        plan: the plan of the method (:class:`semimedref_core.methods.Method`).
        resident: whether all pictures, masks and regions are stored on the device, where each step picks its own. If
            not, each step copies its own to the device. The batches are the same.

    >>> from semimedref_core import Batches, Config, Grid, build_texts, load_training
    >>> config = Config(image_size=32, batch_size=4)
    >>> pairs = load_training("phantom", config.label_ratio, config.image_size)
    >>> batches = Batches(pairs.labelled, pairs.unlabelled, config, build_texts(), Grid((0.1, 0.4, 0.6, 0.9)))
    >>> batch = batches(0)
    >>> batch.labelled.masks.shape, batch.unlabelled.text_choices.shape
    (torch.Size([4, 1, 32, 32]), torch.Size([4, 7, 24]))
    """

    def __init__(
        self,
        labelled: Pairs,
        unlabelled: Pairs | None,
        config: Config,
        texts: Texts | ReadTexts,
        grid: Grid | Positions,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        plan: PlanMixing = plan_mixing,
        resident: bool = False,
    ):
        self.labelled, self.unlabelled = labelled, unlabelled
        self.config, self.texts, self.device = config, texts, torch.device(device)
        self.grid = grid
        self.rank, self.world, self.plan = rank, world, plan
        place = self.device if resident else None
        self._images, self._masks = Stack(labelled.images, place), Stack(labelled.masks, place)
        if unlabelled is not None:
            self._unlabelled_images = Stack(unlabelled.images, place)
            self._regions, self._region_of = self._stack_of_regions(unlabelled.reports, place)

    @record_function("batch")
    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device."""
        config = self.config
        rng = source("batch", config.seed, step, self.rank)
        numbers, geometry, reports = self._weak(self.labelled, step, rng, "labelled")
        # A separate source, so that ISPG does not change other random numbers.
        bare = source("labelled reports without positions", config.seed, step, self.rank)
        labelled = Labelled(
            channels_first(self._images[numbers]),
            channels_first(self._masks[numbers]),
            torch.from_numpy(geometry.affine),
            self.texts(texts_at_hand(reports, "removed", _removal_rate(config), bare)),
            torch.tensor([report.code for report in reports]),
        )
        if self.unlabelled is None:
            return _to(Batch(labelled, None), self.device)
        numbers, geometry, reports = self._weak(self.unlabelled, step, rng, "unlabelled")
        size = config.image_size, config.image_size
        boxes = geometry.zone_boxes(self.grid.boxes(*size), *size, self.grid.swapped)
        photometry = views.draw_photometry(rng, len(numbers), config.strong_view)
        text_choices, proposal = self.plan(rng, reports, boxes, config, self.texts)
        unlabelled = Unlabelled(
            images=channels_first(self._unlabelled_images[numbers]),
            affine=torch.from_numpy(geometry.affine),
            input_ids=self.texts([report.render() for report in reports]),
            codes=torch.tensor([report.code for report in reports]),
            photometry=_tensors(photometry),
            text_choices=text_choices,
            proposal=_tensors(proposal),
            mirrored_ids=self._mirrored(reports),
            regions=channels_first(self._regions[[self._region_of[number] for number in numbers]]),
            zone_boxes=torch.from_numpy(boxes),
            mirrors=torch.tensor([report.mirrors for report in reports]),
        )
        return _to(Batch(labelled, unlabelled), self.device)

    def _weak(
        self, pairs: Pairs, step: int, rng: np.random.Generator, stream: str
    ) -> tuple[list[int], views.Geometry, list[AnyReport]]:
        """The numbers of the step's pairs, the placements of their weak views, and their reports. The report of a
        mirrored view is flipped. A view is not mirrored if the report of its mirror image has no true text."""
        batch = self.config.batch_size
        first = (step * self.world + self.rank) * batch
        numbers = _shuffled(len(pairs), first, batch, self.config.seed, stream)
        reports = [pairs.reports[number] for number in numbers]
        geometry = views.draw_geometry(rng, batch, self.config.weak_view)
        geometry = geometry.upright_where(np.array([not report.mirrors for report in reports]))
        reports = [report.flip() if flip else report for report, flip in zip(reports, geometry.mirrored, strict=True)]
        return numbers, geometry, reports

    def _mirrored(self, reports: list[AnyReport]) -> Tensor | None:
        """The texts of the mirror images, if a teacher reads them (:mod:`semimedref_core.methods.reported_places`)."""
        if self.config.teacher_view != "mirrored" and self.config.method != "flip_sync":
            return None
        return self.texts([(report.flip() if report.mirrors else report).render() for report in reports])

    def _stack_of_regions(self, reports: Sequence[AnyReport], place: torch.device | None) -> tuple[Stack, list[int]]:
        """The distinct regions of these reports, and for each report the number of its region."""
        distinct, found = {}, []
        for report in reports:
            zones = report.zones if report.located else None
            number, _ = distinct.setdefault(zones, (len(distinct), report))
            found.append(number)
        return Stack(np.stack([self._region(report) for _, report in distinct.values()]), place), found

    def _region(self, report: AnyReport) -> np.ndarray:
        """The region where a lesion may lie according to a report, ``[H, W]`` uint8; everywhere if the report has no
        positions."""
        size = self.config.image_size, self.config.image_size
        return self.grid.region(report.zones, *size) if report.located else np.ones(size, np.uint8)


def made_ahead(batches: Batches, steps: range) -> Iterator[Batch]:
    """Yields ``batches(step)`` for consecutive steps. While one batch is used, a thread makes the next.

    A batch depends only on its step, so the order of threads does not matter. On a GPU, the copies of the thread are
    queued behind the running step, so no step reads a batch before it is complete.
    """

    def make(step: int) -> Batch:
        # A new thread uses the first GPU, which may not be ours.
        with torch.cuda.device(batches.device) if batches.device.type == "cuda" else nullcontext():
            return batches(step)

    with ThreadPoolExecutor(1, "batches") as pool:
        coming = None
        for step in steps:
            batch = (coming or pool.submit(make, step)).result()
            coming = pool.submit(make, step + 1) if step + 1 in steps else None
            yield batch


def _shuffled(count: int, first: int, batch: int, seed: int, stream: str) -> list[int]:
    """Positions ``first`` to ``first + batch`` of an endless sequence of shuffled epochs over ``count`` items."""
    epochs = {
        epoch: source(f"order of {stream} pairs", seed, epoch).permutation(count)
        for epoch in range(first // count, (first + batch - 1) // count + 1)
    }
    return [int(epochs[position // count][position % count]) for position in range(first, first + batch)]


def channels_first(pictures: np.ndarray | Tensor) -> Tensor:
    """Pictures or masks ``[B, H, W]`` as ``[B, 1, H, W]``, and colour pictures ``[B, H, W, 3]`` as ``[B, 3, H, W]``."""
    pictures = torch.as_tensor(pictures)
    return pictures[:, None] if pictures.ndim == 3 else pictures.permute(0, 3, 1, 2)


def _tensors(record) -> dict[str, Tensor] | None:
    if record is None:
        return None
    return {field.name: torch.as_tensor(getattr(record, field.name)) for field in dataclasses.fields(record)}


def _to(batch: Batch, device: torch.device) -> Batch:
    """Moves a batch to the device. The output of a frozen text encoder and resident pictures are there already."""
    return each_tensor(batch, lambda value: moved(value, device))
