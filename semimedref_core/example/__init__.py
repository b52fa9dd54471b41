"""A trained network and three pictures of the package, so that the first prediction needs nothing else.

All pictures are phantom pictures: they are drawn, show no patient, and may be shared. ``model/README.md`` is the
network's card. ``python -m semimedref_core.tools.make_example`` makes everything in this folder again.
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
