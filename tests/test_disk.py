"""A disk without room, a folder without rights, a folder that goes away; and who may read what is written."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semimedref_core.data.real.qata import load_qata
from semimedref_core.errors import FileError
from semimedref_core.runtime import checkpoints
from semimedref_core.runtime.atomic import atomic, own_folder, write_json
from semimedref_core.runtime.checkpoints import save_tensors, write_arrays
from semimedref_core.runtime.run_state import MetricsLog, RunState

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


def full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("owner, name", [
    (checkpoints, "save_file"), (np, "savez_compressed"), (os, "replace"), (os, "fsync"), (Path, "write_text"),
])  # fmt: skip
def test_a_full_disk_is_one_error_and_leaves_the_old_file(tmp_path, monkeypatch, owner, name):
    writers = {
        "a.json": lambda path: write_json(path, {"new": 1}),
        "a.npz": lambda path: write_arrays(path, {"new": np.zeros(3)}),
        "a.safetensors": lambda path: save_tensors(path, {"new": torch.zeros(3)}),
    }
    for path in map(tmp_path.joinpath, writers):
        path.write_text("old")
    monkeypatch.setattr(owner, name, full)
    told = []
    for path, write in writers.items():
        try:
            write(tmp_path / path)
        except FileError as error:
            told.append(str(error))
            assert f"{path}: cannot be written (No space left on device); free some space" in str(error)
            assert (tmp_path / path).read_bytes() == b"old"
    assert told and sorted(path.name for path in tmp_path.iterdir()) == sorted(writers)


@linux
def test_the_writer_of_networks_says_as_much(tmp_path):
    """safetensors has an error of its own for a disk without room."""
    with pytest.raises(FileError, match="cannot be written"), atomic(tmp_path / "x") as temporary:
        temporary.symlink_to("/dev/full")
        with open(temporary, "w") as file:
            file.write("x" * 10**5)


@pytest.mark.parametrize("place", ["save_file", "savez_compressed"])
def test_training_on_a_full_disk_says_how_to_go_on_and_does(train, finished_run, tmp_path, monkeypatch, place):
    owner = checkpoints if place == "save_file" else np
    write, calls = getattr(owner, place), []

    def at_last_full(*args, **kwargs):
        calls.append(1)
        return full() if len(calls) > (1 if place == "save_file" else 0) else write(*args, **kwargs)

    monkeypatch.setattr(owner, place, at_last_full)
    outcome = train(output=tmp_path / "run")
    outcome_after_progress(outcome).one_error("train", "No space left on device", "give the same command with --resume")
    monkeypatch.undo()
    assert train(output=tmp_path / "run", resume=True).status == 0
    for name in ("metrics.jsonl", "teacher/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished_run / name).read_bytes()


def outcome_after_progress(outcome):
    """Without the lines that tell how far the run has come."""
    return outcome._replace(errors=outcome.errors[max(0, outcome.errors.find("semimedref train: ")) :])


@linux
def test_a_log_line_that_does_not_fit_is_told(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.path.unlink()
    log.path.symlink_to("/dev/full")
    with pytest.raises(FileError, match="metrics.jsonl: cannot be written"):
        log.write({"step": 1})


@pytest.mark.parametrize("when", ["first checkpoint", "log line"])
def test_a_run_whose_folder_goes_away_says_so_and_makes_no_new_one(train, tmp_path, monkeypatch, when):
    folder = tmp_path / "run"
    owner, name = (RunState, "save") if when == "first checkpoint" else (MetricsLog, "write")
    do = getattr(owner, name)

    def and_away(self, *args):
        do(self, *args)
        if folder.exists():
            shutil.rmtree(folder)

    monkeypatch.setattr(owner, name, and_away)
    outcome_after_progress(train(output=folder)).one_error("train", f"{folder}: is gone, although the run was going on")
    assert not folder.exists()


def test_a_folder_without_rights_is_named(train, tmp_path, monkeypatch):
    """The rights are refused here by hand, since root has them everywhere."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    outcome = train(output=tmp_path / "run")
    monkeypatch.undo()
    outcome.one_error("train", tmp_path)


def test_a_file_where_a_run_wants_its_folder_is_named(train, tmp_path):
    (tmp_path / "file").write_text("")
    train(output=tmp_path / "file/run").one_error("train", tmp_path / "file")


@pytest.mark.skipif(os.name == "nt", reason="rights of another kind there")
def test_runs_and_decoded_pictures_are_for_their_owner_alone(train, qata_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0o022)
    try:
        outcome = train(output=tmp_path / "run", dataset="qata", data=qata_folder(), label_ratio=0.5)
        assert outcome.status == 0 and os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    for folder in (tmp_path / "run", tmp_path / "new/cache"):
        places = [folder, *folder.rglob("*")]
        assert len(places) > 10
        assert {oct(path.stat().st_mode & 0o077) for path in places} == {"0o0"}


@pytest.mark.skipif(os.name == "nt", reason="rights of another kind there")
def test_from_python_too_and_what_was_there_keeps_its_rights(tmp_path):
    before = os.umask(0o022)
    try:
        assert own_folder(tmp_path / "run").stat().st_mode & 0o777 == 0o700
        write_json(tmp_path / "run/a.json", {})
        assert (tmp_path / "run/a.json").stat().st_mode & 0o777 == 0o600
        (tmp_path / "README.md").write_text("old")
        with atomic(tmp_path / "README.md") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "README.md").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_the_cache_tells_its_place_and_size_and_is_cleared_without_touching_anything_else(
    semimedref, qata_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEMIMEDREF_CACHE", str(folder))
    assert semimedref("cache").text == f"{folder}: 0 decoded pictures kept, 0.0 MB\n"
    load_qata(qata_folder(), "train", 32)
    of_others = [folder / "notes.txt", folder / "32px/notes.png", next(folder.glob("32px/*")) / "x.png"]
    for path in of_others:
        path.write_text("mine")
    left = next(folder.glob("32px/*/*.png")).with_name(f".{'0' * 32}-x.partial")
    left.write_text("left by a kill")
    assert semimedref("cache").text.startswith(f"{folder}: 17 decoded pictures kept, 0.0 MB")
    cleared = semimedref("cache", clear=True)
    assert cleared.text.startswith(f"{folder}: 17 deleted")
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(of_others)
    monkeypatch.setenv("SEMIMEDREF_CACHE", "")
    assert "no decoded pictures are stored" in semimedref("cache").text
