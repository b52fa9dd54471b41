"""Moving pictures of the phantom for talks and pages: ``python -m semimedref_core.teaching.moving_pictures``.

``mixing.gif`` shows how a patch is proposed, gated and pasted, and how the text is rewritten. ``posaug.gif`` shows the
student's text of one report, draw by draw. ``teacher.gif`` shows the teacher's predictions during training; it takes a
few minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from semimedref_core.config import Config
from semimedref_core.data.batches import made_ahead
from semimedref_core.data.datasets import load_training
from semimedref_core.evaluation import evaluate, predict
from semimedref_core.figures.moving import mixing_frames, save, teacher_frame
from semimedref_core.figures.posaug import text_rows
from semimedref_core.networks import build_texts
from semimedref_core.preparing import prepare, zone_grid
from semimedref_core.step import training_step
from semimedref_core.teaching.stand_in import stand_in_teacher
from semimedref_core.widgets.mixing import mix_pair
from semimedref_core.widgets.posaug import answer

SIZE, BLOCK, GATE = 96, 32, 0.3
REPORT = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
DRAWS = range(8)
TRAINING = Config(image_size=64, steps=240, batch_size=8, label_ratio=0.05, seed=0)
MOMENTS = (0, 20, 40, 60, 90, 120, 180, 240)
SHOWN = (0, 1, 2)  # pairs of the valid split


def mixing() -> list[Figure]:
    """The first two pairs with few zones whose patch passes the gate and adds a zone to the text."""
    pairs = load_training("phantom", 0.05, SIZE, unlabelled=False)
    grid, valid = zone_grid(Config(image_size=SIZE), pairs), pairs.valid.subset(range(40))
    boxes = grid.boxes(SIZE, SIZE)
    masks = torch.from_numpy(valid.masks)[:, None].float()
    probs = stand_in_teacher(masks, np.random.default_rng(0))[:, 0].numpy()
    false = ((probs >= 0.5) & (valid.masks == 0)).mean((1, 2))  # a false prediction would need its own explanation
    few = [k for k, report in enumerate(valid.reports) if sum(report.zones) <= 2 and false[k] < 0.005]
    for i, j in permutations(few, 2):
        images, reports = valid.images[[i, j]], (valid.reports[i], valid.reports[j])
        for zone in np.flatnonzero(np.array(reports[1].zones) > np.array(reports[0].zones)):
            got = mix_pair(images, probs[[i, j]], reports, boxes, int(zone), (0.5, 0.5), BLOCK, "position", GATE)
            if not got.refused:
                told, means = (*reports, got.report), (got.mean, GATE)
                return mixing_frames(images, probs[j], got.image, got.target, boxes[zone], got.patch, told, means)
    raise AssertionError("the phantom has such pairs")


def posaug() -> Iterator[Figure]:
    """One report, and the student's text in each of a few draws."""
    texts = build_texts()
    for seed in DRAWS:
        got = answer(REPORT, 0.5, "mix", seed, texts)
        yield text_rows([("report", got.before), (f"draw {seed + 1}", got.after)], [got.zones, got.zones])


def teacher(moments: tuple[int, ...] = MOMENTS) -> Iterator[Figure]:
    """The teacher's predictions on three pictures of the valid split, at these steps of a training."""
    ready = prepare(TRAINING, "cpu")
    valid, network = ready.pairs.valid, ready.state.networks["teacher"]
    three = valid.subset(SHOWN)
    with closing(made_ahead(ready.batches, range(moments[-1]))) as batches:
        for moment in moments:
            while ready.state.step < moment:
                training_step(ready.state, next(batches), TRAINING, ready.accelerator, ready.learn)
            probs = torch.cat(list(predict(network, three, ready.texts)))[:, 0].numpy()
            dice = evaluate(network, valid, ready.texts)["dice_image"]
            caption = f"Step {moment}: the teacher's Dice is {100 * dice:.0f} % on {len(valid)} pictures."
            yield teacher_frame(three.images, three.masks, probs, caption)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("notebooks/pictures"))
    folder = parser.parse_args().folder
    save(folder / "mixing.gif", mixing(), [2, 2.5, 2.5, 2.5, 3.5])
    save(folder / "posaug.gif", posaug(), [1.2] * len(DRAWS))
    save(folder / "teacher.gif", teacher(), [0.9] * (len(MOMENTS) - 1) + [2.5], settings())


def settings() -> str:
    """The settings of ``teacher.gif`` as one line."""
    return json.dumps({"moments": MOMENTS, **asdict(TRAINING)}, sort_keys=True)


if __name__ == "__main__":
    main()
