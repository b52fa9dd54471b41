"""A trained network and three pictures that come with the package, so that the first prediction needs nothing else.

All of it is of the phantom: drawn, not taken from anybody, and free to give away. ``model/README.md`` is the network's
card; ``python -m semimedref_core.tools.make_example`` makes everything in this folder anew.
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model"
"""A folder for :func:`semimedref_core.from_pretrained`."""
REPORTS = "reports.json"


def pictures() -> dict[Path, str]:
    """The pictures, and the report of each.

    >>> from semimedref_core import example
    >>> [path.name for path in example.pictures()]
    ['phantom_1.png', 'phantom_2.png', 'phantom_3.png']
    """
    reports = json.loads((FOLDER / REPORTS).read_text(encoding="utf-8"))
    return {FOLDER / name: report for name, report in reports.items()}
