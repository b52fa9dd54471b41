"""The page on getting the data: what it tells people to type makes a dataset that the doctor approves of."""

import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from semimedref_core.data.real.doctor import examine
from semimedref_core.data.real.qata import load_qata

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def block(language: str, word: str) -> str:
    [found] = [text for kind, text in BLOCKS if kind == language and word in text]
    return found


def bash(script: str, **variables) -> None:
    subprocess.run(
        ["bash", "-euc", script], env={**os.environ, **{k: str(v) for k, v in variables.items()}}, check=True
    )


@pytest.fixture
def downloads(qata_folder, tmp_path):
    """What Kaggle, LViT and SGSeg give, in small: train and validation in one folder and one table."""
    made = qata_folder("release")
    kaggle, sgseg, lvit = tmp_path / "Kaggle's v2", tmp_path / "SGSeg", tmp_path / "LViT"
    for source, target in (("train", "Train Set"), ("valid", "Train Set"), ("test", "Test Set")):
        for ours, theirs in (("images", "Images"), ("masks", "Ground-truths")):
            (kaggle / target / theirs).mkdir(parents=True, exist_ok=True)
            for path in (made / source / ours).iterdir():
                (kaggle / target / theirs / path.name).write_bytes(path.read_bytes())
    lvit.mkdir()
    tables = {split: pd.read_excel(made / f"{split}_text.xlsx") for split in ("Train", "Val", "Test")}
    both = pd.concat([tables["Val"], tables["Train"]]).sample(frac=1, random_state=0)
    both.to_excel(lvit / "Train_Val_text.xlsx", index=False)
    tables["Test"].to_excel(lvit / "Test_text.xlsx", index=False)
    for split in ("Train", "Val"):
        tables[split][["Image"]].to_excel(lvit / f"{split}_ID.xlsx", index=False)
    (sgseg / "data/QaTa/images").mkdir(parents=True)
    (sgseg / "data/QaTa/prompts").mkdir()
    for split in ("train", "valid", "test"):
        (made / split).rename(sgseg / "data/QaTa/images" / split)
    (made / "annotation.json").rename(sgseg / "data/QaTa/prompts/annotation.json")
    return kaggle, lvit, sgseg, tables


def test_links_to_kaggles_folders_and_lvits_tables_make_a_whole_dataset(downloads, tmp_path, monkeypatch):
    kaggle, lvit, _, tables = downloads
    bash(block("bash", "KAGGLE"), KAGGLE=kaggle, DATA=tmp_path / "data")
    monkeypatch.chdir(lvit)
    exec(block("python", "_ID.xlsx"), {})
    for split in ("Train", "Val", "Test"):
        (lvit / f"{split}_text.xlsx").rename(tmp_path / "data/QaTa" / f"{split}_text.xlsx")
    diagnosis = examine(tmp_path / "data")
    assert diagnosis.ok, diagnosis.render()
    assert [split.texts["lvit"].listed for split in diagnosis.splits] == [8, 2, 2]
    assert load_qata(tmp_path / "data", "train", 16).names == tuple(tables["Train"]["Image"])


def test_links_to_sgsegs_folders_make_a_whole_dataset(downloads, tmp_path):
    bash(block("bash", "SGSEG"), SGSEG=downloads[2], DATA=tmp_path / "data")
    diagnosis = examine(tmp_path / "data")
    assert diagnosis.ok, diagnosis.render()
    assert [list(split.texts) for split in diagnosis.splits] == [["release"]] * 3


def test_every_layout_and_column_of_the_code_is_on_the_page():
    from semimedref_core.data.datasets import SOURCES
    from semimedref_core.data.real.report_tables import TEXT_COLUMNS

    for source in SOURCES.values():
        assert all(layout in PAGE for layout in source.folders) and all(f"{name}/" in PAGE for name in source.holders)
        assert all(str(count) in PAGE for count in source.sizes.values()) or source.key == "mosmed"
        assert source.stand_in in PAGE
    assert all(column in PAGE.lower() for column in TEXT_COLUMNS)
