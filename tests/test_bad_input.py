"""Files of a run that are damaged, foreign or far too large: one error of a few lines, and nothing of them is used.

``docs/bad_input.md`` lists what is refused, and by which test.
"""

import json
import re
import shutil
import struct
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

from semimedref_core.errors import FileError, SemiMedRefError
from semimedref_core.experiments.results import counts_of
from semimedref_core.runtime import checkpoints
from semimedref_core.runtime.atomic import read_json, read_metrics
from semimedref_core.runtime.checkpoints import CheckpointError, load_tensors, read_arrays, save_tensors, write_arrays

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
    command_line("compare", folder).one_error("compare", folder)


@pytest.mark.parametrize("case", ["nothing", "half a file", "a list", "null", "no text", "nested deeply"])
def test_a_run_is_not_resumed_by_a_broken_config(train, finished_run, tmp_path, case):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    put(folder / "config.json", FOREIGN[case])
    train(output=folder, resume=True).one_error("train", folder / "config.json", "delete the folder and train again")


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
    command_line("compare", folder).one_error("compare", folder / "metrics.jsonl", "line 1")
    copy = shutil.copytree(stopped_run, tmp_path / "copy")
    put(copy / "metrics.jsonl", "%%%\n")
    train(output=copy, resume=True).one_error("train", copy / "metrics.jsonl", "line 1")


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
    command_line("compare", tmp_path).one_error("compare", tmp_path / "runs.parquet", "get the file again")


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
    semimedref("evaluate", checkpoint=folder).one_error("evaluate", folder / "model.safetensors", "damaged checkpoint")


def test_a_network_larger_than_its_weights_is_refused_before_it_is_read(semimedref, finished_run, tmp_path):
    folder = shutil.copytree(finished_run / "student", tmp_path / "student")
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(10**12)
    semimedref("evaluate", checkpoint=folder).one_error("evaluate", "has 1000000000000 bytes, but the network has only")


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
    train(output=run, resume=True).one_error("train", path, "damaged checkpoint")


@pytest.mark.parametrize("key, value", [
    ("optimizer.exp_avg.no.such.weight", torch.zeros(1)), ("optimizer.exp_avg.head.0.bias", torch.zeros(1)),
    ("optimizer.__class__.head.0.bias", torch.zeros(128)),
])  # fmt: skip
def test_a_checkpoint_with_another_optimiser_is_not_resumed(train, stopped_run, tmp_path, key, value):
    run = shutil.copytree(stopped_run, tmp_path / "run")
    path = run / "checkpoint.safetensors"
    tensors, metadata = load_tensors(path)
    save_tensors(path, {**tensors, key: value}, **metadata)
    train(output=run, resume=True).one_error("train", path, "fits no weight")


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


def test_every_error_is_one_that_a_program_can_catch():
    for kind in (FileError, CheckpointError):
        assert issubclass(kind, SemiMedRefError)


def test_the_page_on_bad_input_names_tests_that_are_there():
    here = Path(__file__).parent
    named = set(re.findall(r"`(test_\w+|\w+\.py)`", (here.parent / "docs/bad_input.md").read_text(encoding="utf-8")))
    assert len(named) > 15 and [name for name in named if not (here / name).with_suffix(".py").is_file()] == []
