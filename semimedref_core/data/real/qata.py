"""QaTa-COV19 from a folder in any of its layouts, with any of its text versions.

======== ================================================= ==========================================
layout   image and mask folders                            source
======== ================================================= ==========================================
release  ``{train,valid,test}/{images,masks}``             SGSeg and the Semi-MedRef release
lvit     ``{Train,Val,Test}_Folder/{img,labelcol}``        LViT
kaggle   ``{Train,Test} Set/{Images,Ground-truths}``, or   Kaggle; GuideDecoder and MMI-UNet
         ``{Train,Test}/{Images,GTs}``
languide ``Images/``, ``GTs/`` or ``masks/`` for all       LanGuideMedSeg; ProLearn
         splits
======== ================================================= ==========================================

Reports are searched in all their usual places, in every layout.
"""

from __future__ import annotations

from semimedref_core.data.real.report_tables import ALL, FIRST_FOUR, LAST
from semimedref_core.data.real.sources import LVIT_NAMES, SPLITS, Source, lvit_folders

_PROMPTS = {"train": ("train.csv", FIRST_FOUR), "valid": ("train.csv", LAST), "test": ("test.csv", ALL)}
_KAGGLE = {"train": "Train", "valid": "Train", "test": "Test"}  # the tables define the valid split inside Train


def _in(holders: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{holder}/{name}" for holder in holders for name in names)


QATA_COV19 = Source(
    key="qata",
    title="QaTa-COV19",
    holders=("QaTa", "QaTa-COV19", "QaTa-Covid19", "QaTa-COV19-v2", "QaTa_COV19", "Covid19"),
    folders={
        "release": {split: ((f"{split}/images",), (f"{split}/masks",)) for split in SPLITS},
        "lvit": {split: lvit_folders(name) for split, name in LVIT_NAMES.items()},
        "kaggle": {
            split: (_in((f"{name} Set", name), ("Images",)), _in((f"{name} Set", name), ("Ground-truths", "GTs")))
            for split, name in _KAGGLE.items()
        },
        "languide": {split: (("Images",), ("GTs", "Ground-truths", "masks")) for split in SPLITS},
    },
    tables={
        split: (
            ("lvit", f"{name}_text.xlsx", ALL),
            ("lvit", f"{name}_Folder/{name}_text.xlsx", ALL),
            ("lvit", f"prompt/{_PROMPTS[split][0]}", _PROMPTS[split][1]),
            ("lvit", "split.json", ALL),
            ("release", "annotation.json", ALL),
        )
        for split, name in LVIT_NAMES.items()
    },
    marked_masks=True,
    sizes={"train": 5716, "valid": 1429, "test": 2113},
    patient=r"(sub-[^_]+)",
    left_is_left_half=True,
    stand_in="phantom",
)

find_qata, load_qata = QATA_COV19.find, QATA_COV19.load
