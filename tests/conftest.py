"""Shared by all tests: no network, two threads, real data if it is there, and small made-up QaTa folders."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image

from semimedref_core.data import phantom
from semimedref_core.reports import Report

settings.register_profile("semimedref", deadline=None, derandomize=True)
settings.load_profile("semimedref")

COUNTS = {"train": 8, "valid": 2, "test": 2}
LVIT_NAMES = {"train": "Train", "valid": "Val", "test": "Test"}
FEW_PAIRS = {"train": 24, "valid": 6, "test": 6}
SMALL_RUN = {
    "image_size": 32,
    "steps": 4,
    "batch_size": 2,
    "label_ratio": 0.25,
    "burn_in": 0.25,
    "eval_every": 2,
    "device": "cpu",
}


def pytest_sessionstart():
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Decoded pictures are kept in the tests' own folder, also by the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMIMEDREF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds the real QaTa/, if there is one."""
    folder = os.environ.get("SEMIMEDREF_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set SEMIMEDREF_DATA to run on real QaTa")
    return Path(folder)


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


class Outcome(NamedTuple):
    """What a command left on the terminal."""

    status: int
    text: str
    errors: str


@pytest.fixture(scope="module")
def one_thread():
    """For small networks: a second thread would mostly wait, and on a busy machine for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small_phantom():
    """The phantom has 24 + 6 + 6 pairs in this module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        for split, count in FEW_PAIRS.items():
            patch.setitem(phantom.COUNTS, split, count)
        yield


@pytest.fixture(scope="session")
def command_line():
    """``command_line("predict", "--image", path, ...)`` runs the command line in this process and returns its
    :class:`Outcome`. The phantom has 24 + 6 + 6 pairs meanwhile."""
    from semimedref_core.__main__ import main  # takes seconds that tests of data alone need not wait for

    def run(*arguments) -> Outcome:
        text, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for split, count in FEW_PAIRS.items():
                patch.setitem(phantom.COUNTS, split, count)
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
                try:
                    status = main([str(argument) for argument in arguments])
                except SystemExit as exit:  # argparse, after --help or a usage error
                    status = exit.code
        return Outcome(status, text.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def semimedref(command_line):
    """``semimedref("predict", image=path, ...)`` is :func:`command_line` with options; ``True`` makes a flag."""

    def run(command: str, **options) -> Outcome:
        arguments = [command]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
        return command_line(*arguments)

    return run


@pytest.fixture(scope="session")
def train(semimedref):
    """``train(output=folder, ...)`` runs the command ``train``: four steps at 32 px, other settings as given."""
    return lambda **options: semimedref("train", **{**SMALL_RUN, **options})


@pytest.fixture(scope="session")
def finished_run(train, tmp_path_factory) -> Path:
    """The folder of a finished small run, for reading only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    outcome = train(output=folder)
    assert outcome.status == 0, outcome.errors
    return folder


@pytest.fixture
def run(tmp_path):
    """``run(dice, seed=1, counts=..., ...)`` writes a finished run and returns its folder; ``run.folders`` has all.

    The teacher's metrics are all ``dice``, the student's 0.1 below; or both are those of ``counts`` ``[N, 3]``.
    """
    from semimedref_core.config import Config
    from semimedref_core.evaluation import scores

    def write(dice, counts=None, **settings):
        folder = tmp_path / "runs" / f"run{len(write.folders):02}"
        folder.mkdir(parents=True)
        metrics = ("dice_image", "miou_image", "dice_micro", "miou_micro")
        found = {"student": dict.fromkeys(metrics, dice - 0.1), "teacher": dict.fromkeys(metrics, dice)}
        if counts is not None:
            np.savez(folder / "valid.npz", student=counts, teacher=counts)
            found = dict.fromkeys(found, scores(counts))
        (folder / "config.json").write_text(json.dumps(Config(**settings).to_dict()))
        (folder / "results.json").write_text(json.dumps({"seconds": 60.0, **found}))
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 10, "valid": found}) + "\n")
        write.folders.append(folder)
        return folder

    write.folders = []
    return write


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


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """A test may draw; the next one starts without its figures."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
