"""MosMedData+ (slices of lung CT) from a folder in any of its layouts.

======== ============================================== ==========================================
layout   image and mask folders                         tables of reports, csv or xlsx
======== ============================================== ==========================================
flat     ``frames/`` or ``Images/``, ``masks/`` or      ``prompt/train.csv`` and so on, or those
         ``GTs/`` for all splits                        of LViT
lvit     ``{Train,Val,Test}_Folder/{img,labelcol}``     ``{Train,Val,Test}_text.xlsx``
======== ============================================== ==========================================

Masks have the name of their image. The data contain slices without a lesion; an empty prediction for such a slice
scores 1. Tables may have a column ``pseudo_label`` with the zones as ``[0, 1, 0, 0, 1, 0]``. It is compared with the
text; training uses the text.

The splits divide slices, and a CT study has many slices (Ledger 12). ``Morozov_study_0255_11.png`` is slice 11 of the
study ``Morozov_study_0255``. Names such as ``bjorke_40.png`` do not name a study.
"""

from __future__ import annotations

from itertools import product

from semimedref_core.data.real.report_tables import ALL
from semimedref_core.data.real.sources import LVIT_NAMES, SPLITS, Source, lvit_folders

_LISTS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}


def _tables(split: str) -> tuple[tuple[str, str, tuple[int, int]], ...]:
    name = LVIT_NAMES[split]
    places = (f"{name}_text", f"{name}_Folder/{name}_text", *map("prompt/{}".format, _LISTS[split]), *_LISTS[split])
    return tuple(("lvit", place + ending, ALL) for place, ending in product(places, (".xlsx", ".csv")))


MOSMED_PLUS = Source(
    key="mosmed",
    title="MosMedData+",
    holders=("MosMedData+", "MosMedDataPlus", "MosMed"),
    folders={
        "flat": {split: (("frames", "Images"), ("masks", "GTs")) for split in SPLITS},
        "lvit": {split: lvit_folders(name) for split, name in LVIT_NAMES.items()},
    },
    tables={split: _tables(split) for split in SPLITS},
    marked_masks=False,
    sizes={"train": 2183, "valid": 273, "test": 273},
    patient=r"(.*\d)_\d+(?:\.\w+)?$",
    left_is_left_half=False,
    stand_in="phantom-ct",
)

find_mosmed, load_mosmed = MOSMED_PLUS.find, MOSMED_PLUS.load
