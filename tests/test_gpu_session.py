"""The session that measures training on a GPU, as far as a CPU can take it."""

import json
import sys

import jupytext
import pytest

from semimedref_core.experiments import notebooks_folder
from semimedref_core.tools import gpu_session
from semimedref_core.tools.gpu_session import CASES, PARTS, RECORD, RUNS, command, main

pytestmark = pytest.mark.usefixtures("small_phantom", "one_thread")


def test_what_is_measured_is_written_at_once_and_what_fails_hides_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu_session.CASES, "lite", CASES["compact"])
    measured = gpu_session.step_seconds

    def failing(prepared, config, count):
        if config.compile == "off":
            raise RuntimeError("out of memory\nand more")
        return measured(prepared, config, count)

    monkeypatch.setattr(gpu_session, "step_seconds", failing)
    assert main([str(tmp_path), "--dry", "--part", "lite"]) == 0
    found = json.loads((tmp_path / RECORD).read_text())
    off, graph = found["steps"]
    assert (off["case"], off["way"], off["failed"]) == ("lite", "off", "RuntimeError: out of memory")
    assert graph["way"] == "graph" and graph["milliseconds"] > 0 and graph["config"]["compile"] == "graph"
    assert found["device"] is None and found["runs"] == {}


def test_a_run_that_was_stopped_is_in_the_record_as_far_as_it_came(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_session.RUNS, "lite", CASES["compact"])
    main([str(tmp_path), "--dry", "--part", "train lite"])
    done = gpu_session.record(tmp_path)["runs"]["lite"]
    assert [line["step"] for line in done["lines"]] == [2, 2, 4, 4] and done["results"]["step"] == 4
    (tmp_path / "run-lite" / "results.json").unlink()
    stopped = gpu_session.record(tmp_path)["runs"]["lite"]
    assert stopped["lines"] == done["lines"] and stopped["results"] is None


def test_notebook_10_shows_what_a_session_has_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu_session.RUNS, "lite", CASES["compact"])
    for part in ("compact", "train lite"):
        main([str(tmp_path), "--dry", "--part", part])
    record = gpu_session.record(tmp_path)
    for row in record["steps"]:
        row["peak_megabytes"] = 485.0  # which a CPU does not tell
    (tmp_path / RECORD).write_text(json.dumps({**record, "device": "A GPU"}))
    capsys.readouterr()
    cells = [cell.source for cell in jupytext.read(notebooks_folder() / "10_gpu_training.py").cells]
    names = {}
    for begins in ("kept = ", "import json", "about = ", "def rows_of"):
        [cell] = [cell for cell in cells if cell.startswith(begins)]
        exec(cell, names)
        names["kept"] = str(tmp_path / RECORD)
    told = capsys.readouterr().out
    assert "measured on A GPU" in told and "not measured" not in told
    assert "485.0" in told and "student forward" in told and "'dice_image'" in told


def test_all_parts_fit_into_eight_minutes_together_and_can_be_run(tmp_path):
    assert sum(seconds for _, seconds, _ in PARTS) <= gpu_session.BUDGET
    whats = [what for _, _, what in PARTS]
    assert whats == ["tests", *CASES, *(f"train {name}" for name in RUNS)]
    for what in whats:
        assert command(what, tmp_path, False)[0] == sys.executable
    sizes = {(case.network, case.image_size, case.batch_size) for case in CASES.values()}
    assert {("compact", 64, 8), ("lite", 96, 8)} < sizes  # whose steps have a goal: 6 and 12 ms
    assert command("lite", tmp_path, True)[-1] == "--dry"


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_session.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--dry"):
        main([str(tmp_path)])
