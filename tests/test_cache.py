"""Decoded pictures that are kept on disk are those that decoding gives, whatever happens to files or cache."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real import cache, files
from semimedref_core.data.real.qata import load_qata

PROGRAM = """
import sys
import numpy as np
from semimedref_core.data.real.qata import load_qata

for _ in range(6):
    for size in (16, 24):
        pairs = load_qata(sys.argv[1], "train", size)
        np.savez(f"{sys.argv[2]}-{size}.npz", images=pairs.images, masks=pairs.masks)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache of one test."""
    monkeypatch.setenv("SEMIMEDREF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The files that were read from disk, by name, since the list was last cleared."""
    names = []
    for name in ("read_grey", "read_mask"):
        read = getattr(files, name)
        monkeypatch.setattr(
            files, name, lambda path, *values, read=read: names.append(path.name) or read(path, *values)
        )
    return names


def same(a, b) -> bool:
    masks = (a.masks is None and b.masks is None) or np.array_equal(a.masks, b.masks)
    return np.array_equal(a.images, b.images) and masks and a.names == b.names and a.reports == b.reports


@pytest.mark.parametrize("masks", [True, False])
def test_pictures_are_decoded_once_and_are_the_same_ever_after(qata_folder, folder, decoded, monkeypatch, masks):
    root = qata_folder()
    first = load_qata(root, "train", 32, masks=masks)
    assert len(decoded) == 8 * (1 + masks)
    decoded.clear()
    assert same(load_qata(root, "train", 32, masks=masks), first) and decoded == []
    monkeypatch.setenv("SEMIMEDREF_CACHE", "")
    assert same(load_qata(root, "train", 32, masks=masks), first) and len(decoded) == 8 * (1 + masks)


def test_each_pair_is_kept_for_itself(qata_folder, folder, decoded):
    """Another share of the same pairs, in another order, decodes only what is new."""
    root = qata_folder()
    load_qata(root, "train", 32, indices=[5, 1])
    decoded.clear()
    pairs = load_qata(root, "train", 32, indices=[0, 1, 5])
    assert decoded == ["covid_0.png", "mask_covid_0.png"]
    assert same(pairs, load_qata(root, "train", 32).subset([0, 1, 5]))


def test_another_size_is_another_picture_and_images_are_kept_with_masks_or_without(qata_folder, folder, decoded):
    root = qata_folder()
    load_qata(root, "train", 32)
    for size, masks, files_read in ((16, True, 16), (32, False, 0), (16, False, 0), (24, False, 8), (24, True, 16)):
        decoded.clear()
        assert load_qata(root, "train", size, masks=masks).images.shape == (8, size, size)
        assert len(decoded) == files_read


@pytest.mark.parametrize("what", ["image", "mask"])
@pytest.mark.parametrize("keep_time", [False, True])
def test_a_changed_file_is_noticed(qata_folder, folder, decoded, what, keep_time):
    """Also where the new file has the size and the time of the old one, as a copy with ``cp -p`` has."""
    root = qata_folder()
    before = load_qata(root, "train", 64)
    path = root / "train" / ("images/covid_1.png" if what == "image" else "masks/mask_covid_1.png")
    stat = path.stat()
    picture = np.asarray(Image.open(path))[::-1]
    path.unlink()
    Image.fromarray(picture).save(path)
    if keep_time:
        with open(path, "ab") as file:
            file.write(bytes(max(0, stat.st_size - path.stat().st_size)))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    decoded.clear()
    after = load_qata(root, "train", 64)
    assert sorted(decoded) == ["covid_1.png", "mask_covid_1.png"]
    changed, kept = (after.images, before.masks) if what == "image" else (after.masks, before.images)
    old = before.images if what == "image" else before.masks
    assert np.array_equal(changed[1], old[1][::-1]) and np.array_equal(changed[2:], old[2:])
    assert np.array_equal(kept, before.masks if what == "image" else before.images)


def test_a_fault_that_comes_later_is_told_all_the_same(qata_folder, folder):
    root = qata_folder()
    load_qata(root, "train", 32)
    (root / "train/masks/mask_covid_1.png").unlink()
    with pytest.raises(DataError, match=r"mask_covid_1.png: listed but missing"):
        load_qata(root, "train", 32)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip_a_pixel(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 12] ^= 1
    path.write_bytes(data)


def damage_the_header(path):
    data = bytearray(path.read_bytes())
    data[20:40] = b"?" * 20
    path.write_bytes(data)


def not_ours(path):
    Image.fromarray(np.zeros((7, 7), np.uint8)).save(path)


@pytest.mark.parametrize("damage", [cut, empty, flip_a_pixel, damage_the_header, not_ours])
def test_a_damaged_cache_is_not_believed_but_made_anew(qata_folder, folder, decoded, damage):
    root = qata_folder()
    first = load_qata(root, "train", 32)
    paths = sorted(folder.rglob("*.png"))
    assert len(paths) == 16
    damage(paths[5])
    decoded.clear()
    assert same(load_qata(root, "train", 32), first)
    assert len(decoded) == 2, "the damaged picture and its mask, or image"
    decoded.clear()
    assert same(load_qata(root, "train", 32), first) and decoded == []


def test_what_a_killed_process_left_is_not_read(qata_folder, folder, decoded):
    root = qata_folder()
    first = load_qata(root, "train", 32)
    for path in list(folder.rglob("*.png")):
        path.rename(path.with_name(f".{path.stem}-x.partial"))
    decoded.clear()
    assert same(load_qata(root, "train", 32), first) and len(decoded) == 16


def test_a_cache_that_cannot_be_written_is_told_and_done_without(qata_folder, tmp_path, monkeypatch, decoded):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("SEMIMEDREF_CACHE", str(blocked / "cache"))
    with pytest.warns(UserWarning, match=r"cannot be stored.*set SEMIMEDREF_CACHE"):
        pairs = load_qata(qata_folder(), "train", 32)
    assert len(pairs) == 8


def test_without_a_cache_folder_nothing_is_written(qata_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_CACHE", "")
    monkeypatch.setattr(cache.Path, "home", lambda: tmp_path / "home")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_qata(qata_folder(), "train", 32)
    assert not (tmp_path / "home").exists()
    monkeypatch.delenv("SEMIMEDREF_CACHE")
    assert cache.cache_folder() == tmp_path / "home/.cache/semimedref"


def test_two_processes_at_once_get_the_pictures_and_leave_a_whole_cache(qata_folder, folder, tmp_path, decoded):
    root = qata_folder()
    running = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, root, tmp_path / name], stderr=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for process in running:
        assert process.wait(timeout=120) == 0, process.stderr.read()
    decoded.clear()
    for size in (16, 24):
        pairs = load_qata(root, "train", size)
        assert decoded == []
        for name in ("one", "two"):
            with np.load(tmp_path / f"{name}-{size}.npz") as theirs:
                assert np.array_equal(theirs["images"], pairs.images)
                assert np.array_equal(theirs["masks"], pairs.masks)
    assert {path.suffix for path in folder.rglob("*.*")} == {".png"}
