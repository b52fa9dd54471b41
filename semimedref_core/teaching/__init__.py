"""Teaching aids of the notebooks: sources of functions, exercises with hints, a stand-in teacher, kept runs."""

from semimedref_core._lazy import by_module, exports

_MODULES = {
    "sources": "source_of",
    "answers": "check",
    "stand_in": "stand_in_teacher",
    "kept": "kept_comparison",
}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))
