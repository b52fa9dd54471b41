"""The table of methods: the step of each method, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from semimedref_core.batch import Batch
from semimedref_core.config import Config, did_you_mean
from semimedref_core.data.batches import PlanMixing, no_mixing, plan_mixing
from semimedref_core.errors import ConfigError
from semimedref_core.methods import ad_mt, baselines, bcp, boxes, lvit, release, reported_places, resmatch
from semimedref_core.networks import Twins, build_pretrained
from semimedref_core.semi_medref import semi_medref
from semimedref_core.teacher import Teacher


@dataclass(frozen=True)
class Method:
    """What training needs of a method.

    Attributes:
        step: student, teacher, batch, w_u and settings -> the terms of the loss; ``loss`` is the whole loss. It reads
            no value of a tensor, so a CUDA graph can record it.
        unlabelled: whether it uses unlabelled pairs.
        build: builds the network from its name and its pretrained encoders.
        plan: draws the mixing of unlabelled samples and their texts; by default there is neither.
        teacher: makes the teacher of a student.
    """

    step: Callable[[nn.Module, Teacher, Batch, float | Tensor, Config], dict[str, Tensor]]
    unlabelled: bool = True
    build: Callable[..., nn.Module] = build_pretrained
    plan: PlanMixing = no_mixing
    teacher: Callable[[nn.Module], Teacher] = Teacher


def _baseline(unlabelled_loss: Callable, **about) -> Method:
    return Method(partial(baselines.semi_supervised, unlabelled_loss), **about)


METHODS = {
    "supervised": Method(baselines.supervised, unlabelled=False),
    # The paper's step. Settings switch our additions on (preset `compact`) or off (preset `paper`).
    "semi_medref": Method(
        partial(semi_medref, label=reported_places.label, weigh=reported_places.weigh), plan=plan_mixing
    ),
    "semi_medref_release": Method(release.step, plan=release.plan_mixing),
    "mean_teacher": _baseline(baselines.mean_teacher),
    "fixmatch": _baseline(baselines.fixmatch),
    "unimatch": _baseline(baselines.unimatch, plan=boxes.unimatch),
    "unimatch_text": _baseline(baselines.unimatch, plan=boxes.with_text),
    "cutmix": _baseline(baselines.cutmix, plan=boxes.half),
    "flip_sync": _baseline(baselines.flip_sync),
    "resmatch": _baseline(resmatch.resmatch, plan=resmatch.plan),
    "cps": Method(baselines.cps, build=Twins),
    "lvit": _baseline(lvit.lvit),
    "bcp": _baseline(bcp.bcp, plan=boxes.square),
    "ad_mt": _baseline(ad_mt.ad_mt, plan=boxes.half, teacher=ad_mt.AlternateTeachers),
}


def method_named(name: str) -> Method:
    """The method of this name.

    Raises:
        ConfigError: if there is no such method; lists all methods.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    return METHODS[name]
