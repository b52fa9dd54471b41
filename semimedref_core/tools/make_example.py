"""Makes the network and the pictures of :mod:`semimedref_core.example`.

Run ``python -m semimedref_core.tools.make_example``. It takes about four minutes of one CPU core. The numbers on the
card come from that run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from semimedref_core.config import Config
from semimedref_core.data.datasets import load_split
from semimedref_core.example import FOLDER, MODEL, REPORTS
from semimedref_core.presets import preset
from semimedref_core.runtime.atomic import write_json
from semimedref_core.runtime.files import CONFIG
from semimedref_core.training import train

SETTINGS = preset("tutorial") | {"label_ratio": 0.15, "steps": 1000, "eval_every": 0}
SHOWN, SIZE = (11, 0, 3), 192  # validation pairs, px

CARD = """# A small network, trained on the phantom

- **What it does.** It outlines the lesions that a report names on a drawn chest picture. It shows how the software
  works.
- **It is not a medical device.** It has never seen a patient. Its answer to a real X-ray means nothing.
- **Network.** `{network}`, {parameters:,} weights, {image_size} px; the teacher of Semi-MedRef.
- **Trained on.** The phantom of this package: {labelled} drawn pairs with masks and {unlabelled} without,
  {steps} steps of {batch_size} and {batch_size} pairs, seed {seed}.
- **Measured.** On the phantom's {images} validation pairs: Dice {dice_image:.1f} % per image, {dice_micro:.1f} % micro.
  One seed.
- **Limits.** Reports must keep to the grammar of the data ("Unilateral pulmonary infection, one infected area, lower
  left lung."). "left" is the left half of the picture. It has seen no picture without infection, so it outlines
  something even where the report says that there is none.
- **Licence.** Apache-2.0, as the package. `python -m semimedref_core.tools.make_example` makes it again.
"""


def make(folder: Path = FOLDER, **settings) -> None:
    """Trains the network and draws the pictures.

    Args:
        folder: gets ``model/``, the pictures and their reports.
        settings: replace entries of :data:`SETTINGS`.
    """
    config = Config(**SETTINGS | settings)
    with tempfile.TemporaryDirectory() as run:
        results = train(config, run, device="cpu")
        folder.joinpath(MODEL.name).mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, "model.safetensors"):
            shutil.copyfile(Path(run) / "teacher" / name, folder / MODEL.name / name)
    scores = {name: 100 * value for name, value in results["teacher"].items()}
    card = CARD.format(**{**config.to_dict(), **results, **scores})
    (folder / MODEL.name / "README.md").write_text(card, encoding="utf-8")
    pairs, reports = load_split("phantom", "valid", SIZE), {}
    for number, index in enumerate(SHOWN, 1):
        name = f"phantom_{number}.png"
        Image.fromarray(pairs.images[index]).save(folder / name, optimize=True)
        reports[name] = pairs.reports[index].render()
    write_json(folder / REPORTS, reports)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n\n")[0]).parse_args()
    make()
    print(f"written  {FOLDER}")


if __name__ == "__main__":
    main()
