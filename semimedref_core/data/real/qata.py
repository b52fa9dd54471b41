"""QaTa-COV19 from a folder, in whichever of its layouts and with whichever of its texts it comes.

======== ============================================== ==========================================
layout   image and mask folders                         where it is from
======== ============================================== ==========================================
release  ``{train,valid,test}/{images,masks}``          SGSeg and the Semi-MedRef release
lvit     ``{Train,Val,Test}_Folder/{img,labelcol}``     LViT
languide ``Images/``, ``GTs/`` for all splits           LanGuideMedSeg
======== ============================================== ==========================================

Reports are looked for in all their usual places, whatever the layout.
"""

from __future__ import annotations

from semimedref_core.data.real.sources import ALL, FIRST_FOUR, LAST, LVIT_NAMES, SPLITS, Source

_PROMPTS = {"train": ("train.csv", FIRST_FOUR), "valid": ("train.csv", LAST), "test": ("test.csv", ALL)}

QATA_COV19 = Source(
    key="qata",
    title="QaTa-COV19",
    holders=("QaTa",),
    folders={
        "release": {split: ((f"{split}/images",), (f"{split}/masks",)) for split in SPLITS},
        "lvit": {split: ((f"{name}_Folder/img",), (f"{name}_Folder/labelcol",)) for split, name in LVIT_NAMES.items()},
        "languide": {split: (("Images",), ("GTs",)) for split in SPLITS},
    },
    tables={
        split: (
            ("lvit", f"{name}_text.xlsx", ALL),
            ("lvit", f"{name}_Folder/{name}_text.xlsx", ALL),
            ("lvit", f"prompt/{_PROMPTS[split][0]}", _PROMPTS[split][1]),
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
