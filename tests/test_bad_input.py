"""Files and folders that are damaged, foreign, full or gone: one error of a few lines, nothing half-written is used.

``docs/bad_input.md`` lists what is refused, and by which test.
"""

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from semimedref_core.data.real.qata import load_qata
from semimedref_core.errors import FileError, SemiMedRefError, printable
from semimedref_core.experiments.results import counts_of
from semimedref_core.runtime import checkpoints
from semimedref_core.runtime.atomic import atomic, own_folder, read_json, read_metrics, write_json
from semimedref_core.runtime.checkpoints import CheckpointError, load_tensors, read_arrays, save_tensors, write_arrays
from semimedref_core.runtime.run_state import MetricsLog, RunState

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


def one_error(outcome, command, *parts) -> None:
    """The command ended with a few lines that name these parts, without a traceback."""
    assert outcome.status == 1 and outcome.errors.startswith(f"semimedref {command}: "), outcome.errors
    assert len(outcome.errors) < 1500 and "Traceback" not in outcome.errors
    for part in parts:
        assert str(part) in outcome.errors, outcome.errors


# JSON that a run has written

FOREIGN = {
    "nothing": "", "half a file": '{"seconds": 1', "a list": "[1, 2]", "null": "null", "a text": '"x"',
    "no text": b"\xff\xfe\x00",
    "nested deeply": "[" * 100_000, "nested objects": '{"a":' * 50_000, "a long number": "9" * 5000,
    "another's keys": '{"loss": 1}', "wrong kinds": '{"seconds": [], "device": 3, "student": 4, "teacher": null}',
    "scores in words": '{"seconds": 1, "device": "cpu", "student": {"dice_image": "good"}, "teacher": {}}',
}  # fmt: skip


def put(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("name", ["results.json", "config.json"])
@pytest.mark.parametrize("case", FOREIGN)
def test_compare_names_the_file_of_a_run_that_it_cannot_read(run, command_line, case, name):
    folder = run(0.5)
    put(folder / name, FOREIGN[case])
    one_error(command_line("compare", folder), "compare", folder)


@pytest.mark.parametrize("case", ["nothing", "half a file", "a list", "null", "no text", "nested deeply"])
def test_a_run_is_not_resumed_by_a_broken_config(train, finished_run, tmp_path, case):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    put(folder / "config.json", FOREIGN[case])
    one_error(train(output=folder, resume=True), "train", folder / "config.json", "delete the folder and train again")


LINES = {
    "garbage": "%%%\n", "a list": "[]\n", "a number": "5\n", "no step": '{"loss": 1}\n',
    "a step in words": '{"step": "x"}\n',
    "a true step": '{"step": true}\n', "half a step": '{"step": 1.5}\n', "nested deeply": "[" * 50_000 + "\n",
    "half a line in the middle": '{"step": 1, "lo\n{"step": 2}\n', "no text": b"\xff\xfe\n",
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_a_log_that_is_none_is_named_by_file_and_line(train, finished_run, tmp_path, case):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    put(folder / "metrics.jsonl", LINES[case])
    with pytest.raises(
        FileError, match=f"metrics.jsonl: {'is not the log' if case == 'no text' else 'line 1 is not a log'}"
    ):
        read_metrics(folder / "metrics.jsonl")


def test_a_foreign_log_stops_compare_and_resume(train, run, stopped_run, command_line, tmp_path):
    folder = run(0.5)
    put(folder / "metrics.jsonl", "%%%\n")
    one_error(command_line("compare", folder), "compare", folder / "metrics.jsonl", "line 1")
    copy = shutil.copytree(stopped_run, tmp_path / "copy")
    put(copy / "metrics.jsonl", "%%%\n")
    one_error(train(output=copy, resume=True), "train", copy / "metrics.jsonl", "line 1")


def test_a_file_far_too_large_to_be_settings_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        file.truncate(10**12)  # takes no room on the disk
    with pytest.raises(FileError, match="config.json: has 1000000000000 bytes"):
        read_json(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_comes_back_as_names_with_values_or_is_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    try:
        assert repr(read_json(path)) == repr(json.loads(json.dumps(value)))
    except FileError as error:
        assert not isinstance(value, dict) and str(path) in str(error)


# Arrays and tables that runs leave


def arrays(folder: Path, **changed) -> Path:
    path = folder / "valid.npz"
    counts = np.array([[5, 6, 7], [1, 2, 3]])
    np.savez_compressed(path, **{"student": counts, "teacher": counts, **changed})
    return path


def untrue(path: Path) -> None:
    """An array that says it has 10^15 numbers, of which it holds none."""
    with zipfile.ZipFile(path, "w") as file, file.open("teacher.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})


BROKEN_ARRAYS = {
    "no archive": lambda path: put(path, "x"), "nothing": lambda path: put(path, ""),
    "half": lambda path: put(path, arrays(path.parent).read_bytes()[:150]),
    "objects": lambda path: arrays(path.parent, teacher=np.array([{}], dtype=object)),
    "texts": lambda path: arrays(path.parent, teacher=np.array([["a", "b", "c"]])),
    "two columns": lambda path: arrays(path.parent, teacher=np.zeros((3, 2))),
    "one number": lambda path: arrays(path.parent, teacher=np.array(3)),
    "another's names": lambda path: np.savez(path, x=np.zeros(3)),
    "a size that is not true": untrue,
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_ARRAYS)
def test_arrays_that_are_no_counts_are_refused(tmp_path, case):
    BROKEN_ARRAYS[case](tmp_path / "valid.npz")
    with pytest.raises(CheckpointError, match="valid.npz: "):
        counts_of(tmp_path, "teacher")


def test_arrays_that_unpack_to_gigabytes_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGEST_ARRAYS", 10_000)
    with zipfile.ZipFile(tmp_path / "valid.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("teacher.npy", bytes(100_000))
    with pytest.raises(CheckpointError, match="unpacked it has more than 10000 bytes"):
        counts_of(tmp_path, "teacher")


def test_what_was_written_is_read(tmp_path):
    found = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.zeros((0, 3)),
        "c": np.array(2.5),
        "d": np.ones((2, 2), order="F"),
    }
    write_arrays(tmp_path / "x.npz", found)
    again = read_arrays(tmp_path / "x.npz")
    assert set(again) == set(found) and all(np.array_equal(again[name], found[name]) for name in found)


@pytest.mark.parametrize("write", [
    lambda path: put(path, "PAR1 no table"), lambda path: pd.DataFrame({"x": [1]}).to_parquet(path),
], ids=["no table", "another's table"])  # fmt: skip
def test_kept_runs_that_are_none_are_named(tmp_path, command_line, write):
    write(tmp_path / "runs.parquet")
    np.savez(tmp_path / "counts.npz")
    one_error(command_line("compare", tmp_path), "compare", tmp_path / "runs.parquet", "get the file again")


# Networks and checkpoints of somebody else


def header(about: dict, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(about).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


HEADERS = {
    "a header of 2^63 bytes": header({}, length=2**63), "a header longer than the file": header({}, length=10**6),
    "a header that is a list": struct.pack("<Q", 2) + b"[]", "no header": b"\0" * 8,
    "10^15 numbers in 4 bytes": header({"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4]}}, bytes(4)),
    "offsets outside": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [100, 104]}}, bytes(4)),
    "offsets backwards": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    "two tensors in one place": header(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, bytes(4)
    ),
    "an unknown type": header({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "a negative shape": header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
    "a pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_a_network_whose_header_is_not_true_is_refused(semimedref, finished_run, tmp_path, case):
    folder = shutil.copytree(finished_run / "student", tmp_path / "student")
    put(folder / "model.safetensors", HEADERS[case])
    one_error(semimedref("evaluate", checkpoint=folder), "evaluate", folder / "model.safetensors", "damaged checkpoint")


def test_a_network_larger_than_its_weights_is_refused_before_it_is_read(semimedref, finished_run, tmp_path):
    folder = shutil.copytree(finished_run / "student", tmp_path / "student")
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(10**12)
    one_error(
        semimedref("evaluate", checkpoint=folder), "evaluate", "has 1000000000000 bytes, but the network has only"
    )


STATES = {
    "no state": None, "a list": [], "a step in words": {"step": "x"}, "a negative step": {"step": -3},
    "a true step": {"step": True}, "scores in a list": {"scores": [1]}, "a best in words": {"best": "1"},
    "data as a number": {"data": 5},
    "losses in words": {"since_log": [{"loss": "x"}]}, "losses in a list": {"since_log": [[1]]},
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_a_checkpoint_with_another_state_is_not_resumed(train, stopped_run, tmp_path, case):
    run = shutil.copytree(stopped_run, tmp_path / "run")
    path, change = run / "checkpoint.safetensors", STATES[case]
    tensors, metadata = load_tensors(path)
    state = {**metadata["state"], **change} if isinstance(change, dict) else change
    save_tensors(path, tensors, **{**metadata, "state": state})
    one_error(train(output=run, resume=True), "train", path, "damaged checkpoint")


@pytest.mark.parametrize("key, value", [
    ("optimizer.exp_avg.no.such.weight", torch.zeros(1)), ("optimizer.exp_avg.head.0.bias", torch.zeros(1)),
    ("optimizer.__class__.head.0.bias", torch.zeros(128)),
])  # fmt: skip
def test_a_checkpoint_with_another_optimiser_is_not_resumed(train, stopped_run, tmp_path, key, value):
    run = shutil.copytree(stopped_run, tmp_path / "run")
    path = run / "checkpoint.safetensors"
    tensors, metadata = load_tensors(path)
    save_tensors(path, {**tensors, key: value}, **metadata)
    one_error(train(output=run, resume=True), "train", path, "fits no weight")


def test_what_a_checkpoint_says_of_a_state_sets_nothing_but_the_state(stopped_run, tmp_path):
    """Other names would be attributes of the program's own object."""
    _, metadata = load_tensors(stopped_run / "checkpoint.safetensors")
    state = {**metadata["state"], "save": 1, "__class__": 2, "student": 3}
    found = sys.modules["semimedref_core.runtime.run_state"]._checked({"state": state}, tmp_path)
    assert set(found) == set(metadata["state"])


@settings(max_examples=60)
@given(st.data())
def test_a_network_with_changed_bytes_is_refused_or_still_a_network(tmp_path_factory, tiny, data):
    """No byte makes anything but a :class:`CheckpointError`."""
    folder, original = tiny
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, min(400, len(changed) - 1)))] = data.draw(st.integers(0, 255))
    put(folder / "x.safetensors", bytes(changed)[: data.draw(st.integers(0, len(changed)))])
    try:
        load_tensors(folder / "x.safetensors", 10**6)
    except CheckpointError as error:
        assert str(folder / "x.safetensors") in str(error)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_file({"a.weight": torch.zeros(3, 4), "b": torch.ones(2)}, folder / "a.safetensors", {"state": '{"step": 1}'})
    return folder, (folder / "a.safetensors").read_bytes()


# A disk without room, a folder without rights, a folder that goes away


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
    one_error(
        outcome_after_progress(outcome), "train", "No space left on device", "give the same command with --resume"
    )
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
    one_error(
        outcome_after_progress(train(output=folder)), "train", f"{folder}: is gone, although the run was going on"
    )
    assert not folder.exists()


def test_a_folder_without_rights_is_named(train, tmp_path, monkeypatch):
    """The rights are refused here by hand, since root has them everywhere."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    outcome = train(output=tmp_path / "run")
    monkeypatch.undo()
    one_error(outcome, "train", tmp_path)


def test_a_file_where_a_run_wants_its_folder_is_named(train, tmp_path):
    (tmp_path / "file").write_text("")
    one_error(train(output=tmp_path / "file/run"), "train", tmp_path / "file")


# Who reads the output


def command(*arguments, **streams) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "semimedref_core", *map(str, arguments)]
    return subprocess.run(program, capture_output=not streams, text=True, timeout=120, **streams)


@linux
def test_output_that_nobody_reads_or_takes_ends_in_order(tmp_path):
    """As in ``semimedref cache | true`` and ``semimedref cache > /dev/full``."""
    read, write = os.pipe()
    os.close(read)
    with (
        open(tmp_path / "errors", "w") as errors,
        os.fdopen(write, "w") as closed,
        open("/dev/full", "w") as full_device,
    ):
        assert command("cache", stdout=closed, stderr=errors).returncode == 141
        assert command("cache", stdout=full_device, stderr=errors).returncode == 1
    told = (tmp_path / "errors").read_text()
    assert told == "semimedref cache: the output cannot be written (No space left on device)\n"


# Text from elsewhere, on the terminal


def test_what_would_change_a_terminal_is_written_out():
    assert printable("a\x1b[2J\x07\u202eb\ud800\nü ± 5 %") == "a\\x1b[2J\\x07\\u202eb\\ud800\nü ± 5 %"


@given(st.text(st.characters()))
def test_any_text_is_shown_with_printable_letters_alone(text):
    shown = printable(text)
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    shown.encode()
    assert shown == text or not text.replace("\n", "").isprintable()


def test_names_of_files_and_runs_reach_the_terminal_as_text(command_line, semimedref, run, qata_folder, tmp_path):
    one_error(command_line("compare", tmp_path / "a\x1b[2Jb"), "compare", "a\\x1b[2Jb")
    run(0.5, variant="bold \x1b[1m"), run(0.6)
    shown = command_line("compare", *run.folders)
    assert shown.status == 0 and "\x1b" not in shown.text and "bold \\x1b[1m" in shown.text
    root = qata_folder()
    (root / "train" / "images" / "Covid_0.PNG\x1b[2J").write_bytes(b"")
    (root / "train" / "images" / "covid_0.png\x1b[2J").write_bytes(b"")
    told = semimedref("doctor", data=root)
    assert "\x1b" not in told.text + told.errors


def test_every_error_is_one_that_a_program_can_catch():
    for kind in (FileError, CheckpointError):
        assert issubclass(kind, SemiMedRefError)


# Who may read what is written


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


def test_the_page_on_bad_input_names_tests_that_are_there():
    here = Path(__file__).parent
    named = set(re.findall(r"`(test_\w+|\w+\.py)`", (here.parent / "docs/bad_input.md").read_text(encoding="utf-8")))
    assert len(named) > 15 and [name for name in named if not (here / name).with_suffix(".py").is_file()] == []
