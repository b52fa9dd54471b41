"""What reaches the terminal: a closed or full output, and text from elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semimedref_core.errors import printable

linux = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


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
    command_line("compare", tmp_path / "a\x1b[2Jb").one_error("compare", "a\\x1b[2Jb")
    run(0.5, variant="bold \x1b[1m"), run(0.6)
    shown = command_line("compare", *run.folders)
    assert shown.status == 0 and "\x1b" not in shown.text and "bold \\x1b[1m" in shown.text
    root = qata_folder()
    (root / "train" / "images" / "Covid_0.PNG\x1b[2J").write_bytes(b"")
    (root / "train" / "images" / "covid_0.png\x1b[2J").write_bytes(b"")
    told = semimedref("doctor", data=root)
    assert "\x1b" not in told.text + told.errors
