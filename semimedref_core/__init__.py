"""Semi-MedRef, step by step: semi-supervised medical referring image segmentation."""

import platform
from importlib.metadata import version

__version__ = "0.1.0"


def versions(*packages: str) -> str:
    """The versions that a result was made with: this project, Python, torch, and further packages by name."""
    found = [f"{name} {version(name)}" for name in ("torch", *packages)]
    return f"semimedref {__version__}, Python {platform.python_version()}, {', '.join(found)}"
