"""One run's settings, all of them, as one flat record that is written beside its results.

Each setting is declared once, with its default, meaning and range; the command line's options come from here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from semimedref_core.data.views import STRONG_VIEWS, WEAK_VIEWS
from semimedref_core.devices import COMPILE, PRECISIONS
from semimedref_core.networks import NETWORKS
from semimedref_core.networks.text import REPORT_TEXTS
from semimedref_core.patchmix import MIX_TEXTS, PATCH_MODES
from semimedref_core.posaug import MODES as POSAUG_MODES
from semimedref_core.reports import STYLES

DATASETS = ("phantom", "phantom-ct", "qata", "mosmed")
TEACHER_VIEWS = ("same", "mirrored")
PSEUDO_LABELS = ("teacher", "reported")
UNFOUND = ("image", "zone")
POSITIVES = ("soft", "hard")
GRIDS = ("estimated", "qata", "thirds")
KINDS = {"int": int, "float": (int, float), "str": str}

_OTHER_METHODS = (
    "semi_medref_release (mixes as the released code), "
    "mean_teacher, fixmatch, unimatch, cutmix, flip_sync, resmatch, cps"
)


def _setting(default, meaning: str, choices=(), low=None, high=None, above=None):
    about = {"meaning": meaning, "choices": tuple(choices), "low": low, "high": high, "above": above}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class Config:
    """Settings of a run. The defaults are the compact preset: two CPU cores, a few minutes.

    Symbols in brackets are the paper's.

    Raises:
        ValueError: naming the setting, its value and what it may be.
    """

    dataset: str = _setting("phantom", "what to train on", DATASETS)
    data: str = _setting("", "folder of the real data (default: $SEMIMEDREF_DATA)")
    texts: str = _setting("lvit", "version of the real reports", STYLES)
    report_text: str = _setting("whole", "what networks read of a report, losses still know its zones", REPORT_TEXTS)
    label_ratio: float = _setting(0.05, "share of the training pairs whose masks are used", above=0, high=1)
    method: str = _setting("semi_medref", f"what a step does: supervised, semi_medref, or another: {_OTHER_METHODS}")
    network: str = _setting("compact", "network by name", NETWORKS)
    image_encoder: str = _setting(
        "", "pretrained encoder: a folder, or organisation/name@commit (default: from scratch)"
    )
    text_encoder: str = _setting("", "as image_encoder; a BERT with its tokenizer, then frozen (default: from scratch)")
    text_length: int = _setting(24, "tokens that a text may have; a longer one is an error, never cut", above=0)
    seed: int = _setting(0, "of all that is drawn by chance, save the labelled split, which is the release's", low=0)
    image_size: int = _setting(96, "side of the images in px", above=0)
    steps: int = _setting(600, "optimiser steps", above=0)
    batch_size: int = _setting(16, "labelled pairs a step, and as many unlabelled", above=0)
    lr: float = _setting(1e-3, "peak learning rate of AdamW; warm-up over a tenth of the steps, then cosine", above=0)
    weight_decay: float = _setting(0.05, "of AdamW", low=0)
    weak_view: str = _setting("strong", "how weak views move the picture", WEAK_VIEWS)
    strong_view: str = _setting("strong", "how strong views change the grey values", STRONG_VIEWS)
    burn_in: float = _setting(0.15, "share of the steps that trains on labelled pairs alone", low=0, high=1)
    ramp: float = _setting(0.2, "share of the steps in which the unsupervised weight then rises", low=0, high=1)
    unsupervised_weight: float = _setting(1.0, "its final value [w_u]", low=0)
    teacher_view: str = _setting(
        "mirrored", "of any method; same: the student's weak view; mirrored: its mirror image", TEACHER_VIEWS
    )
    pseudo_labels: str = _setting(
        "reported", "of any method; teacher: as it gives them; reported: in named zones", PSEUDO_LABELS
    )
    unfound: str = _setting(
        "zone", "what teaches nothing where a reported lesion is not found (semi_medref); images, or zones too", UNFOUND
    )
    confidence: float = _setting(
        0.95, "smallest max(p, 1 - p) of a pixel to learn from (fixmatch, unimatch)", low=0, high=1
    )
    ema_decay: float = _setting(0.99, "the teacher's decay until the end of burn-in", low=0, high=1)
    ema_decay_last: float = _setting(0.99, "the teacher's decay after its ramp", low=0, high=1)
    itcl_weight: float = _setting(0.2, "of ITCL on labelled pairs [w_l]", low=0)
    itcl_unlabelled_weight: float = _setting(0.5, "of ITCL on weak views, inside the unsupervised loss [w_c]", low=0)
    tau: float = _setting(0.07, "temperature of ITCL", above=0)
    positives: str = _setting("soft", "of ITCL; soft: shared zones; hard: the own pair alone", POSITIVES)
    posaug_p: float = _setting(0.1, "probability of a position phrase to be hit by PosAug", low=0, high=1)
    posaug_mode: str = _setting("mix", "what stands in its place", POSAUG_MODES)
    patch_mode: str = _setting("position", "where T-PatchMix looks for patches", PATCH_MODES)
    patch_p: float = _setting(1.0, "probability of a sample to be offered a patch", low=0, high=1)
    patch_size: float = _setting(0.5, "side of a patch as a share of the image side [block]", above=0, high=1)
    gate: float = _setting(0.3, "smallest mean teacher probability in an accepted patch [conf_th]", low=0, high=1)
    mix_text: str = _setting("rewrite", "the report of a mixed sample: rewritten or its own", MIX_TEXTS)
    grid: str = _setting("estimated", "zone grid; estimated reads it off the labelled pairs", GRIDS)
    eval_every: int = _setting(200, "steps between validations, and checkpoints; 0: at the end only", low=0)
    precision: str = _setting(
        "fp32", "of the networks; losses and weights stay fp32, fp16 needs a GPU", tuple(PRECISIONS)
    )
    compile: str = _setting("off", "torch.compile of the networks: slow to start, faster steps", COMPILE)
    patience: int = _setting(0, "validations without a better teacher before an early stop; 0: never", low=0)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, about = getattr(self, field.name), field.metadata
            if isinstance(value, bool) or not isinstance(value, KINDS[field.type]):
                raise ValueError(f"{field.name} must be of type {field.type}, got {value!r}")
            if about["choices"] and value not in about["choices"]:
                raise ValueError(f"{field.name}: unknown value {value!r}; choose one of {', '.join(about['choices'])}")
            bounds = [
                (about["low"], lambda v, b: v >= b, "at least"),
                (about["above"], lambda v, b: v > b, "above"),
                (about["high"], lambda v, b: v <= b, "at most"),
            ]
            for bound, holds, words in bounds:
                if bound is not None and not holds(value, bound):
                    raise ValueError(f"{field.name} must be {words} {bound}, got {value}")
        stride = NETWORKS[self.network].stride
        if self.image_size % stride:
            raise ValueError(f"image_size must be a multiple of {stride} for {self.network}, got {self.image_size}")

    @property
    def block(self) -> int:
        """Side of T-PatchMix's patches in px."""
        return max(1, round(self.patch_size * self.image_size))

    def to_dict(self) -> dict:
        """The settings as plain values, for JSON."""
        return dataclasses.asdict(self)
