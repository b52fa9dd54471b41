"""Files that come with the package: the notebooks, their plans and the kept results."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def notebooks_folder() -> Path:
    """The folder of the notebooks, their plans and kept results: in the checkout, or where pip installed them."""
    checkout = Path(__file__).parents[2] / "notebooks"
    if (checkout / "07_train.py").is_file():
        return checkout
    return Path(sysconfig.get_path("data")) / "share" / "semimedref" / "notebooks"
