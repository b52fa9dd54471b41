"""What notebooks teach with: a function's own source, exercises that answer, and a stand-in for a trained teacher."""

from semimedref_core._lazy import by_module, exports

_MODULES = {"sources": "source_of", "answers": "check", "stand_in": "stand_in_teacher"}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))
