"""Datasets, the phantom, splits and batches."""

from semimedref_core._lazy import by_module, exports

_MODULES = {
    "pairs": "DataError Pairs",
    "datasets": "SOURCES Training data_folder load_split load_training",
    "splits": "PUBLISHED labelled_indices digest",
    "batches": "Batches",
    "real.qata": "find_qata load_qata",
    "real.mosmed": "find_mosmed load_mosmed",
    "real.agreement": "Lesions agreement",
}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))
