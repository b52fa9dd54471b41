"""Every notebook: source and executed pair in step, run from top to bottom by papermill, its numbers asserted."""

import base64
import io
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

from semimedref_core.experiments import papermill_run
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.tools import notebook_checks

NOTEBOOKS = notebooks_folder()
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
TRAINING = "07_train"  # takes minutes; test_07_train has its only full run
LIGHT = ("00_start_here", "08_results")  # run by nbval, which is stricter
PICTURES = {"step.png": "06_teacher_student"}  # of 00, and who draws them
STEPPED = [source for source in SOURCES if source.stem not in (TRAINING, *LIGHT)]
REAL_SIZE = {"03_posaug": 64, "04_t_patchmix": 64}  # as 06 has it, so that real pictures are decoded once for all three

each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@each_notebook
def test_the_notebook_has_the_common_style(source):
    assert notebook_checks.style_problems(source) == []


@each_notebook
def test_the_executed_notebook_is_of_this_source_and_holds_outputs(source):
    assert notebook_checks.pair_problems(source) == []


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_that_pages_show_is_the_one_of_the_committed_notebook(picture):
    """If this fails: save the picture that the executed notebook shows as the one in ``notebooks/pictures``."""
    executed = nbformat.read(NOTEBOOKS / f"{PICTURES[picture]}.ipynb", as_version=4)
    outputs = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    drawn = [pixels(io.BytesIO(base64.b64decode(data["image/png"]))) for data in outputs if "image/png" in data]
    assert any(np.array_equal(pixels(NOTEBOOKS / "pictures" / picture), each) for each in drawn)


def pixels(png):
    return np.asarray(Image.open(png).convert("RGB"))


def test_a_kept_picture_has_its_pixels_in_fewer_bytes():
    opaque, seen_through = np.full((40, 40, 4), 255, np.uint8), np.full((40, 40, 4), 90, np.uint8)
    opaque[5:30, 5:30, 0] = 7
    for shown in (opaque, seen_through):
        file = io.BytesIO()
        Image.fromarray(shown).save(file, "PNG", compress_level=0)
        kept = papermill_run.packed(base64.b64encode(file.getvalue()).decode())
        back = Image.open(io.BytesIO(base64.b64decode(kept)))
        assert np.array_equal(np.asarray(back.convert("RGBA")), shown) and len(kept) < len(file.getvalue())


@pytest.mark.parametrize("source", STEPPED, ids=lambda path: path.stem)
def test_running_the_notebook_prints_what_the_committed_one_shows(source, tmp_path):
    executed, committed = papermill_run.run_notebook(source.stem, tmp_path, {}), source.with_suffix(".ipynb")
    assert notebook_checks.output_problems(*(nbformat.read(path, as_version=4) for path in (executed, committed))) == []


@pytest.mark.parametrize(
    "source", [source for source in STEPPED if "dataset = " in source.read_text()], ids=lambda path: path.stem
)
def test_the_notebook_runs_on_real_qata(source, tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_DATA", str(real_data.resolve()))
    parameters = {"dataset": "qata", **({"image_size": REAL_SIZE[source.stem]} if source.stem in REAL_SIZE else {})}
    executed = nbformat.read(papermill_run.run_notebook(source.stem, tmp_path, parameters), as_version=4)
    assert notebook_checks.output_problems(executed, nbformat.v4.new_notebook(cells=executed.cells)) == []


@pytest.mark.parametrize("name", LIGHT)
def test_a_reader_can_check_a_light_notebook_with_nbval(name):
    """``pytest --nbval``, strict: stored outputs letter by letter, in a run of its own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "-p",
        "no:cacheprovider",
        f"{NOTEBOOKS / name}.ipynb",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=NOTEBOOKS.parent)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout) and "failed" not in done.stdout


def test_a_misspelt_parameter_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(papermill_run.NotebookError, match="unknown parameters label_ration; it has .*label_ratio"):
        papermill_run.run_notebook("07_train", tmp_path / "run", {"label_ration": 0.01})
    assert not (tmp_path / "run").exists()
