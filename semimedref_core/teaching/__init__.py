"""What notebooks teach with: the source of a function where it is explained, and exercises that answer."""

from semimedref_core._lazy import by_module, exports

_MODULES = {"sources": "source_of", "answers": "check"}
__getattr__, __dir__, __all__ = exports(__name__, by_module(_MODULES))
