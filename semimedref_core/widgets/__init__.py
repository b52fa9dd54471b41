"""Widgets for the notebooks: the reader moves a control, and image, mask and text change together."""

from semimedref_core._lazy import by_module, exports

_MODULES = {
    "base": "Explorer",
    "posaug": "StudentText posaug_explorer",
    "mixing": "PairMix mix_pair MixingExplorer",
    "contrast": "Contrast contrast_explorer",
    "replay": "training_replay",
    "prediction": "prediction_explorer",
}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))
