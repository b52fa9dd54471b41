"""Small made-up QaTa folders in each layout, sound and faulty, as fixtures for all tests."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semimedref_core.reports import Report

COUNTS = {"train": 8, "valid": 2, "test": 2}
LVIT_NAMES = {"train": "Train", "valid": "Val", "test": "Test"}


@pytest.fixture
def write_pair():
    """``write_pair(rng, zones, image_path, mask_path)`` draws one pair of 64 x 64 pixels."""

    def write(rng, zones, image_path: Path, mask_path: Path) -> None:
        image, mask = _picture(rng, zones)
        write_png(image_path, image)
        write_png(mask_path, mask)

    return write


@pytest.fixture
def qata_folder(tmp_path, write_pair):
    """``make(layout="release", texts=("lvit", "release"))`` writes a small QaTa folder and returns its path.

    Layouts: ``release``, ``lvit``, ``languide``. It holds 8 + 2 + 2 pairs of 64 x 64 pixels, the same in every layout,
    one ellipse for each zone that the report names. Train images 1 and 2 show the left side only and the right side
    only, image 3 is spelt differently in list and folder, image 4 is a lateral view.
    """

    def make(layout: str = "release", texts: tuple[str, ...] = ("lvit", "release")) -> Path:
        root = tmp_path / layout / "QaTa"
        rng = np.random.default_rng(0)
        codes = [1, 6, 24, 9, 48, *rng.integers(1, 64, sum(COUNTS.values()) - 5)]
        stems = [
            "covid_0",
            "covid_1",
            "covid_2",
            "sub-S3_ses-E7_vp-AP",
            "sub-s4_vp-ll",
            *map("covid_{}".format, range(5, 12)),
        ]
        tables, start = {}, 0
        for split, count in COUNTS.items():
            folders = {
                "release": (f"{split}/images", f"{split}/masks"),
                "lvit": (f"{LVIT_NAMES[split]}_Folder/img", f"{LVIT_NAMES[split]}_Folder/labelcol"),
                "languide": ("Images", "GTs"),
            }[layout]
            tables[split] = []
            for stem, code in zip(stems[start : start + count], codes[start : start + count], strict=True):
                zones = [int(code) >> k & 1 for k in range(6)]
                write_pair(rng, zones, root / folders[0] / f"{stem}.png", root / folders[1] / f"mask_{stem}.png")
                tables[split].append((f"mask_{stem.lower()}.png", zones))
            start += count
        if "lvit" in texts:
            _write_lvit(root, layout, tables)
        if "release" in texts:
            _write_annotation(root, tables)
        return root

    return make


@pytest.fixture
def faulty_qata(qata_folder):
    """A folder whose train split holds one fault of each kind, and for each fault what a message about it must hold."""
    root = qata_folder()
    images, masks = root / "train" / "images", root / "train" / "masks"
    (images / "covid_0.png").unlink()
    (masks / "mask_covid_1.png").unlink()
    write_png(masks / "mask_covid_2.png", np.zeros((32, 48), np.uint8))
    cut = images / "sub-s4_vp-ll.png"
    cut.write_bytes(cut.read_bytes()[:200])
    data = bytearray((images / "covid_5.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (images / "covid_5.png").write_bytes(data)
    write_png(masks / "mask_covid_6.png", np.eye(64, dtype=np.uint8))
    with edited_table(root / "Train_text.xlsx") as table:
        table.loc[3, "Description"] = "the lungs are clear"
        table.loc[7, "Description"] = None
        table.loc[8] = table.loc[5]
    return root, {
        "image missing": "covid_0.png",
        "mask missing": "mask_covid_1.png",
        "mask of another size": "mask_covid_2.png",
        "unparsable report": "the lungs are clear",
        "truncated image": "sub-s4_vp-ll.png",
        "image with a flipped byte": "covid_5.png: corrupt",
        "mask of 0 and 1": "mask_covid_6.png",
        "blank report": "mask_covid_7.png",
        "listed twice": "covid_5.png: listed 2 times",
    }


class edited_table:
    """``with edited_table(path) as table: ...`` changes an xlsx report table in place."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> pd.DataFrame:
        self.table = pd.read_excel(self.path)
        return self.table

    def __exit__(self, *error):
        self.table.to_excel(self.path, index=False)


def write_png(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _picture(rng, zones) -> tuple[np.ndarray, np.ndarray]:
    """A noisy 64 x 64 image and its mask: one ellipse well inside each named cell of the 2 x 3 grid."""
    y, x = np.mgrid[:64, :64]
    mask = np.zeros((64, 64), bool)
    for k in np.flatnonzero(zones):
        side, height = divmod(int(k), 3)
        a, b = rng.uniform(4, 10), rng.uniform(4, 8)
        mask |= ((x - 16 - 32 * side) / a) ** 2 + ((y - 10.5 - 21 * height) / b) ** 2 < 1
    image = rng.normal(90, 15, mask.shape) + 60 * mask
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def _write_lvit(root: Path, layout: str, tables) -> None:
    """The xlsx tables of LViT, or the csv tables of LanGuideMedSeg (train and valid in one, with a UTF-8 BOM)."""
    rows = {
        split: [(name, Report.of(zones, sum(zones)).render()) for name, zones in listed]
        for split, listed in tables.items()
    }
    if layout == "languide":
        (root / "prompt").mkdir()
        for split, listed in {"train": rows["train"] + rows["valid"], "test": rows["test"]}.items():
            table = pd.DataFrame(listed, columns=["Image", "Description"])
            table.to_csv(root / "prompt" / f"{split}.csv", index=False, encoding="utf-8-sig")
        return
    for split, listed in rows.items():
        folder = root / f"{LVIT_NAMES[split]}_Folder" if layout == "lvit" else root
        table = pd.DataFrame(listed, columns=["Image", "Description"])
        table.to_excel(folder / f"{LVIT_NAMES[split]}_text.xlsx", index=False)


def _write_annotation(root: Path, tables) -> None:
    annotation = {
        split: [
            {"image_path": name, "caption": Report.of(zones, style="release").render(), "pseudo_label": zones}
            for name, zones in listed
        ]
        for split, listed in tables.items()
    }
    (root / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
