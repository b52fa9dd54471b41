"""Semi-MedRef, step by step: semi-supervised medical referring image segmentation.

Users and notebooks import what they need from here: ``from semimedref_core import Report, PosAug, Config, train``. A
name is loaded at its first use, so ``import semimedref_core`` does not wait for torch.
"""

from semimedref_core._lazy import exports

__version__ = "0.1.0"

_PLACES = {
    # settings
    "Config": "config",
    "preset": "presets",
    "SemiMedRefError": "errors",
    "versions": "runtime.environment",
    # data
    "Pairs": "data.pairs",
    "load_split": "data.datasets",
    "load_training": "data.datasets",
    "Batches": "data.batches",
    # reports and where their zones lie
    "Report": "reports",
    "FreeReport": "free_reports",
    "Grid": "anatomy",
    "estimate_grid": "anatomy",
    # the method
    "PosAug": "posaug",
    "propose": "patchmix",
    "mixed_reports": "patchmix",
    "t_patchmix": "patchmix",
    "ITCL": "itcl",
    "Teacher": "teacher",
    "dice_ce": "losses",
    # networks
    "build_network": "networks",
    "Prediction": "networks.compact",
    "build_texts": "networks",
    "told_in_training": "networks.vocabulary",
    "save_pretrained": "runtime.checkpoints",
    "from_pretrained": "runtime.checkpoints",
    "load_texts": "runtime.checkpoints",
    # training
    "train": "training",
    "SemiMedRef": "inference",
    "evaluate": "evaluation",
    "predict": "evaluation",
    "scores": "evaluation",
}
__getattr__, __dir__, __all__ = exports(__name__, _PLACES)
