"""All settings of a run, in one flat record that is saved beside the results.

This file alone defines what each setting means and which values it may have. The defaults are the preset ``compact`` of
``presets.toml``, which also gives the source of each value. The command line makes its options from this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from dataclasses import dataclass
from typing import Literal, get_args

from semimedref_core.errors import ConfigError
from semimedref_core.presets import preset

Dataset = Literal["phantom", "phantom-ct", "qata", "mosmed", "folder"]
Texts = Literal["lvit", "release"]
TextSides = Literal["image", "patient"]
ReportText = Literal["whole", "no_count", "none"]
ReportsAtHand = Literal["full", "removed", "masked", "fuzzy", "wrong-side", "none"]
Method = Literal[
    "supervised", "semi_medref", "semi_medref_release",
    "mean_teacher", "fixmatch", "unimatch", "unimatch_text", "cutmix", "flip_sync", "resmatch", "cps",
    "lvit", "bcp", "ad_mt",
]  # fmt: skip
STRIDE = {"compact": 16, "lite": 32, "guide_decoder": 32, "mmi_unet": 32}
""" Network -> px; the sides of its images must be multiples of this number."""
Network = Literal[tuple(STRIDE)]
WeakView = Literal["release", "strong"]
StrongView = Literal["release", "strong", "clamped"]
Axes = Literal["upright", "transposed"]
MaskLoss = Literal["dice_ce", "dice"]
ChooseBy = Literal["teacher", "student"]
TeacherView = Literal["same", "mirrored"]
PseudoLabels = Literal["teacher", "reported"]
Unfound = Literal["image", "zone"]
Positives = Literal["soft", "hard"]
PosAugMode = Literal["mask", "fuzz", "mix"]
PatchMode = Literal["position", "probability", "random"]
PatchZones = Literal["receiver", "donor", "both"]
MixText = Literal["rewrite", "keep"]
MixCount = Literal["one_more", "zones", "none"]
GridName = Literal["estimated", "qata", "thirds"]
Precision = Literal["fp32", "bf16", "fp16"]
Switch = Literal["off", "on"]
Compile = Literal["off", "on", "graph"]
Device = Literal["auto", "cpu", "cuda"]
Tracker = Literal["tensorboard", "wandb", "trackio"]

POSITIONS = ("lung", "quadrants", "sides", "none")
""" The built-in layouts of positions; see :mod:`semimedref_core.positions`."""
STRICT = ("semi_medref_release", "unimatch_text")
""" Methods that need reports in the strict grammar, because they rewrite them."""
BRING_WEIGHTS = ("lite",)
""" Networks whose image encoder is always pretrained."""
ACTS_ON = {"mask_values": ("qata", "mosmed", "folder"), "positions": ("folder",), "text_sides": ("folder",)}
""" Setting -> the datasets on which it has an effect."""
GROUPS = ("what to run", "data", "network", "training", "views", "teacher", "T-PatchMix", "PosAug", "ITCL", "machine")
_KINDS = {"int": int, "float": (int, float), "str": str}


def _setting(group: str, meaning: str, *, low=None, high=None, above=None):
    return dataclasses.field(metadata={"group": group, "meaning": meaning, "low": low, "high": high, "above": above})


def _defaults_of(name: str):
    """Gives the fields of a class the values of a preset as defaults."""

    def decorate(cls):
        values = preset(name)
        for field in cls.__annotations__:
            getattr(cls, field).default = values[field]
        return cls

    return decorate


@dataclass(frozen=True)
@_defaults_of("compact")
class Config:
    """Settings of a run. The defaults are the preset ``compact``: two CPU cores, a few minutes.

    The paper's symbols are in brackets.

    Raises:
        ConfigError: names the setting, its value and the allowed values.

    >>> from semimedref_core import Config
    >>> config = Config(dataset="qata", label_ratio=0.01)
    >>> config.method, config.image_size
    ('semi_medref', 96)
    """

    method: Method = _setting("what to run", "what a training step does")
    dataset: Dataset = _setting("what to run", "what to train on")
    label_ratio: float = _setting("what to run", "share of the training pairs whose masks are used", above=0, high=1)
    network: Network = _setting("what to run", "which network to train")
    image_size: int = _setting("what to run", "height and width of the images, px", above=0, high=4096)
    steps: int = _setting("what to run", "number of optimiser steps", above=0, high=10**6)
    batch_size: int = _setting(
        "what to run", "labelled pairs in a step, and as many unlabelled ones", above=0, high=1024
    )
    seed: int = _setting(
        "what to run",
        "seed of weights, order and augmentations; the labelled pairs do not depend on it",
        low=0,
        high=2**32 - 1,
    )

    data: str = _setting(
        "data", "folder of the real data or of your own data; by default the environment variable SEMIMEDREF_DATA"
    )
    texts: Texts = _setting("data", "version of the real reports")
    mask_values: str = _setting(
        "data",
        "values that mean lesion in real masks, such as 85,255 or #ff0000; 170=0 names a class that is no lesion; by "
        "default masks have one class",
    )
    positions: str = _setting(
        "data",
        "only for dataset folder: the zones that texts may name: lung, quadrants, sides, none, or the path of a .csv "
        "table of words and boxes",
    )
    text_sides: TextSides = _setting(
        "data", "only for dataset folder: 'left' in a text means the left half of the image, or the patient's left"
    )
    report_text: ReportText = _setting(
        "data",
        "what the network reads of a report: all of it, all except the number of areas, or (none) a sentence that "
        "names all zones",
    )
    text_length: int = _setting(
        "data", "largest number of tokens of a text; a longer text is an error", above=0, high=512
    )
    grid: GridName = _setting("data", "where the zones lie; 'estimated' measures it on the labelled masks")

    image_encoder: str = _setting(
        "network", "pretrained image encoder: a folder or organisation/name@commit; if empty, it trains from scratch"
    )
    text_encoder: str = _setting(
        "network", "pretrained BERT with its tokenizer, kept frozen: a folder or organisation/name@commit"
    )
    ispg: Switch = _setting(
        "network",
        "for reports without positions: the network predicts six zones from the image and reads them as one more text "
        "token; needs the network compact or lite and the method semi_medref",
    )

    lr: float = _setting(
        "training",
        "highest learning rate of AdamW: it rises over the first tenth of the steps, then falls as a cosine to 0",
        above=0,
    )
    encoder_lr: float = _setting(
        "training", "learning rate of a pretrained image encoder, as a share of lr; other encoders ignore it", low=0
    )
    weight_decay: float = _setting("training", "weight decay of AdamW", low=0)
    burn_in: float = _setting("training", "share of the steps that train on labelled pairs only", low=0, high=1)
    ramp: float = _setting(
        "training", "share of the steps after burn-in in which the unlabelled loss grows to its weight", low=0, high=1
    )
    unsupervised_weight: float = _setting("training", "weight of the unlabelled loss after the ramp [w_u]", low=0)
    mask_loss: MaskLoss = _setting(
        "training", "only for semi_medref_release: Dice with cross-entropy, or Dice alone as in the released code"
    )
    confidence: float = _setting(
        "training",
        "fixmatch, unimatch and ad_mt learn from pixels where max(p, 1 - p) is at least this; 0.5 selects all",
        low=0,
        high=1,
    )
    eval_every: int = _setting(
        "training", "steps between two validations; each saves a checkpoint; 0: only at the end", low=0
    )
    patience: int = _setting(
        "training",
        "stop after this many validations without a better teacher, and keep the best one; 0: train all steps. "
        "With patience, half of the validation pairs choose, and scores are reported on the other half",
        low=0,
    )
    choose_by: ChooseBy = _setting(
        "training",
        "the score that patience uses: the teacher's Dice per image; or, as in the released code, the student's "
        "micro Dice after a fifth of the steps, with gains of at least 0.001",
    )

    axes: Axes = _setting("views", "upright pictures, or pictures on their side as the released code reads them")
    weak_view: WeakView = _setting("views", "how much weak views move the picture")
    strong_view: StrongView = _setting(
        "views",
        "how much strong views change the grey values; 'clamped' clips them to 0 to 1, as the released code does",
    )

    ema_decay: float = _setting("teacher", "decay of the teacher's average during burn-in", low=0, high=1)
    ema_decay_last: float = _setting("teacher", "decay of the teacher's average after the ramp", low=0, high=1)
    teacher_view: TeacherView = _setting(
        "teacher", "ours: the teacher sees the student's weak view, or its mirror image with the sides swapped"
    )
    pseudo_labels: PseudoLabels = _setting(
        "teacher", "ours: pseudo-labels as the teacher gives them, or only inside the zones that the report names"
    )
    unfound: Unfound = _setting(
        "teacher",
        "ours: if the teacher finds no lesion, leave out the image; 'zone' also leaves out each named zone without one "
        "(no effect with pseudo_labels = teacher)",
    )

    patch_mode: PatchMode = _setting("T-PatchMix", "how the place of a patch is chosen")
    patch_zones: PatchZones = _setting("T-PatchMix", "in mode position: whose report must name the zone of a patch")
    patch_p: float = _setting("T-PatchMix", "probability that a sample is offered a patch", low=0, high=1)
    patch_size: float = _setting("T-PatchMix", "side of a patch as a share of the image side [block]", above=0, high=1)
    gate: float = _setting(
        "T-PatchMix", "smallest mean teacher probability inside an accepted patch [conf_th]", low=0, high=1
    )
    mix_text: MixText = _setting("T-PatchMix", "rewrite the report of a mixed sample, or keep it as it was")
    mix_count: MixCount = _setting(
        "T-PatchMix", "number of lesions in a rewritten report: one more, the number of named zones, or no number"
    )

    posaug_p: float = _setting("PosAug", "probability that a position phrase is hidden", low=0, high=1)
    posaug_mode: PosAugMode = _setting("PosAug", "what replaces a hidden phrase")

    itcl_weight: float = _setting("ITCL", "weight of ITCL on labelled pairs [w_l]", low=0)
    itcl_unlabelled_weight: float = _setting(
        "ITCL", "weight of ITCL on unlabelled weak views, inside the unlabelled loss [w_c]", low=0
    )
    tau: float = _setting("ITCL", "temperature [tau]", above=0)
    positives: Positives = _setting(
        "ITCL", "soft: pairs that share zones are partly positives; hard: only the image and text of one pair are"
    )

    precision: Precision = _setting(
        "machine", "number format of the networks; losses and weights stay fp32; fp16 needs a GPU"
    )
    compile: Compile = _setting(
        "machine",
        "on: torch.compile the networks, with a slow start and faster steps; graph: run each step on a GPU as one "
        "CUDA graph, which saves the time of launches",
    )

    def __post_init__(self):
        for name in FIELDS:
            require_valid(name, getattr(self, name))
        mask_values(self.mask_values)
        stride = STRIDE[self.network]
        if self.image_size % stride:
            raise ConfigError(f"image_size must be a multiple of {stride} for {self.network}, got {self.image_size}")
        if self.ispg == "on" and not (self.network in ("compact", "lite") and self.method == "semi_medref"):
            raise ConfigError(
                f"ispg 'on' needs network compact or lite and method semi_medref, got {self.network} and "
                f"{self.method}; set ispg to off"
            )

        if self.batch_size == 1 and self.method.startswith("semi_medref"):
            raise ConfigError(f"batch_size must be at least 2 for {self.method}: one pair has no partner to mix with")
        if self.positions not in POSITIONS and not self.positions.endswith(".csv"):
            hint = did_you_mean(self.positions, POSITIONS)
            raise ConfigError(
                f"positions must be one of {', '.join(POSITIONS)}, or a table whose name ends with .csv, got "
                f"{self.positions!r}{hint}"
            )
        require_effect(self.dataset, **{name: getattr(self, name) for name in ACTS_ON})
        if self.dataset == "folder":
            _refuse_with_free_texts(self)

    @property
    def block(self) -> int:
        """Side of T-PatchMix's patches in px."""
        return max(1, round(self.patch_size * self.image_size))

    def to_dict(self) -> dict:
        """The settings as plain values, for JSON."""
        return dataclasses.asdict(self)


def _refuse_with_free_texts(config: Config) -> None:
    """Refuses settings that need the strict grammar of reports.

    Raises:
        ConfigError: names the setting.
    """
    for name, strict, instead in (
        ("method", STRICT, "semi_medref or unimatch"),
        ("report_text", ("no_count",), "whole"),
        ("ispg", ("on",), "off"),
        ("axes", ("transposed",), "upright"),
    ):
        if (value := getattr(config, name)) in strict:
            raise ConfigError(
                f"{name} {value!r} needs reports in the grammar of QaTa-COV19, but the dataset folder has free "
                f"texts; choose {instead}"
            )


_TYPES = typing.get_type_hints(Config)
FIELDS = {field.name: field for field in dataclasses.fields(Config)}
"""The settings by name. Their metadata hold ``group``, ``meaning`` and the range."""


def require_valid(name: str, value) -> None:
    """Checks the type and the range of one setting.

    Raises:
        ConfigError: names the setting, its value and the allowed values.
    """
    field = FIELDS[name]
    kind, choices, about = kind_of(field), choices_of(field), field.metadata
    if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
        raise ConfigError(f"{name} must be of type {kind}, got {value!r:.200}")
    if choices and value not in choices:
        hint = did_you_mean(value, choices)
        raise ConfigError(f"{name}: unknown value {value!r:.200}; choose one of {', '.join(choices)}{hint}")
    if not isinstance(value, str) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value}")
    bounds = [
        (about["low"], lambda v, b: v >= b, "at least"),
        (about["above"], lambda v, b: v > b, "above"),
        (about["high"], lambda v, b: v <= b, "at most"),
    ]
    for bound, holds, words in bounds:
        if bound is not None and not holds(value, bound):
            raise ConfigError(f"{name} must be {words} {bound}, got {value!r:.200}")


def require_effect(dataset: Dataset, **given) -> None:
    """Checks that settings of :data:`ACTS_ON` have an effect on a dataset, or are left at their defaults.

    Raises:
        ConfigError: names the setting, its value and the datasets on which it has an effect.
    """
    for name, value in given.items():
        if value != FIELDS[name].default and dataset not in ACTS_ON[name]:
            raise ConfigError(
                f"{name} {value!r:.80} has no effect on the dataset {dataset}, only on {', '.join(ACTS_ON[name])}; "
                "leave it out"
            )


def choices_of(field: dataclasses.Field) -> tuple[str, ...]:
    """The values that a setting may have; empty if it has no fixed choices."""
    return get_args(_TYPES[field.name])


def kind_of(field: dataclasses.Field) -> str:
    """``int``, ``float`` or ``str``."""
    return "str" if choices_of(field) else _TYPES[field.name].__name__


def did_you_mean(value, known) -> str:
    """`` (did you mean ...?)`` for a name that is close to a known one in any letter case, otherwise an empty text."""
    names = {str(name).lower(): name for name in known}
    close = difflib.get_close_matches(str(value).lower(), names, 1)
    return f" (did you mean {names[close[0]]}?)" if close else ""


MaskValue = int | tuple[int, int, int]
"""A grey value as the file holds it, or a colour (red, green, blue)."""


def mask_values(text: str) -> dict[MaskValue, bool]:
    """The values that the setting ``mask_values`` lists, with whether they mean lesion; an empty setting lists none.

    Args:
        text: whole numbers from 1 to 65535 and colours ``#rrggbb``, separated by commas. ``=0`` after a value says that
            it means no lesion.

    Raises:
        ConfigError: names the part that is no value, or says that no value means lesion.

    >>> from semimedref_core.config import mask_values
    >>> mask_values("85, 255=0"), mask_values("#ff0000"), mask_values("")
    ({85: True, 255: False}, {(255, 0, 0): True}, {})
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    listed = {_mask_value(part.removesuffix("=0")): not part.endswith("=0") for part in parts}
    if listed and not any(listed.values()):
        raise ConfigError(f"mask_values: {text!r} names no lesion value; list one without =0 too")
    return listed


def _mask_value(part: str) -> MaskValue:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", part):
        return int(part[1:3], 16), int(part[3:5], 16), int(part[5:7], 16)
    if re.fullmatch(r"[0-9]{1,5}", part) and 1 <= int(part) <= 65535:
        return int(part)
    raise ConfigError(
        f"mask_values: {part!r} is no mask value; give whole numbers from 1 to 65535 or colours such as #ff0000, "
        "separated by commas"
    )
