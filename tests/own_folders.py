"""Made-up folders of one's own: chest pictures with free sentences, and coloured pictures with words of quadrants. A
module beside the tests, not a test; ``python tests/own_folders.py chest FOLDER`` writes one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SENTENCES = (
    "Patchy opacity in the {side} {height} zone.",
    "1 infected area, {height} {side} lung",
    "Consolidation of the {height} lobe of the {side} lung!",
    "{side} {height} lobe haze",
)


def table_of(folder):
    return pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)


def change(folder, row, **cells):
    """Writes other cells into a line of the table."""
    table = table_of(folder)
    for name, value in cells.items():
        table.loc[row, name] = value
    table.to_csv(folder / "metadata.csv", index=False)


def chest(folder: Path, count: int = 12, size: int = 64, masks: int | None = None, **columns) -> Path:
    """Grey pictures with a bright spot that a free sentence tells of; the first ``masks`` have a mask (default all)."""
    masks, rng, rows = count if masks is None else masks, np.random.default_rng(0), []
    for k in range(count):
        side, height = ("left", "right")[k % 2], ("upper", "middle", "lower")[k // 2 % 3]
        centre = (1 + ("upper", "middle", "lower").index(height) * 2) / 6, 0.25 + 0.5 * (side == "right")
        image, mask = _spot(rng, size, centre, 80, 200)
        text = SENTENCES[k % 4].format(side=side, height=height)
        rows.append(_written(folder, f"{k:03}", image, mask if k < masks else None, text))
    return _table(folder, rows, columns)


def skin(folder: Path, count: int = 12, size: int = 64, **columns) -> Path:
    """Pink pictures with a brown spot in a quadrant. Pictures are a little wider than high."""
    rng, rows = np.random.default_rng(1), []
    for k in range(count):
        row, column = k % 2, k // 2 % 2
        _, mask = _spot(rng, (size, size + 16), (0.25 + 0.5 * row, 0.25 + 0.5 * column), 0, 1)
        colours = np.where(mask[..., None] > 0, [110, 60, 40], [230, 180, 170]) + rng.normal(0, 6, (*mask.shape, 3))
        text = f"Brown spot in the {('upper', 'lower')[row]} {('left', 'right')[column]} corner"
        rows.append(_written(folder, f"{k:03}", np.clip(colours, 0, 255).astype(np.uint8), mask, text))
    return _table(folder, rows, columns)


def _spot(rng, size, centre, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = (size, size) if isinstance(size, int) else size
    y, x = np.mgrid[:height, :width]
    mask = ((y / height - centre[0]) ** 2 + (x / width - centre[1]) ** 2 < 0.1**2).astype(np.uint8) * 255
    noise = rng.normal(0, 8, (height, width))
    return np.clip(np.where(mask > 0, high, low) + noise, 0, 255).astype(np.uint8), mask


def _written(folder: Path, name: str, image: np.ndarray, mask: np.ndarray | None, text: str) -> dict:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"images/{name}.png")
    if mask is not None:
        Image.fromarray(mask).save(folder / f"images/{name}_mask.png")
    masked = "" if mask is None else f"images/{name}_mask.png"
    return {"file_name": f"images/{name}.png", "mask_file_name": masked, "text": text}


def _table(folder: Path, rows: list[dict], columns: dict) -> Path:
    table = pd.DataFrame(rows)
    for name, values in columns.items():
        table[name] = values
    table.to_csv(folder / "metadata.csv", index=False)
    return folder


def as_jsonl(folder: Path) -> None:
    """The folder's table as ``metadata.jsonl`` in place of the CSV."""
    rows = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False).to_dict("records")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "metadata.csv").unlink()


def as_parquet(folder: Path) -> None:
    """The folder's table as ``metadata.parquet`` in place of the CSV."""
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    table.to_parquet(folder / "metadata.parquet", index=False)
    (folder / "metadata.csv").unlink()


def as_xlsx(folder: Path) -> None:
    """The folder's table as ``metadata.xlsx`` in place of the CSV."""
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    table.to_excel(folder / "metadata.xlsx", index=False)
    (folder / "metadata.csv").unlink()


if __name__ == "__main__":
    import sys

    {"chest": chest, "skin": skin}[sys.argv[1]](Path(sys.argv[2]))
