"""Tiles by device: built in without a table, chosen with one, measured by a command alone."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux alone")

from semimedref_kernels import aot, choices
from semimedref_kernels.benchmark import tune
from semimedref_kernels.benchmark.machine import environment
from semimedref_kernels.benchmark.session import command
from semimedref_kernels.benchmark.timing import Timer
from semimedref_kernels.choices import CANDIDATES, choice, in_use, path_of, read
from semimedref_kernels.soft_contrastive_triton import tile_sizes

GPU = torch.device("cuda", 0)
MIX, TILES = "mix_kernel 32 bit", "sums_of_exp 16 bit"
ON_GPU = SimpleNamespace(device=GPU, dtype=torch.float32)


@pytest.fixture
def a_gpu(tmp_path, monkeypatch):
    """Where the table of a GPU lies that is not there."""
    monkeypatch.setenv("SEMIMEDREF_KERNELS_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(choices, "_read", {})
    return path_of("NVIDIA H100 80GB HBM3")


def test_without_a_table_all_is_as_built_in(a_gpu):
    assert in_use(GPU) == in_use("cpu") == {} and choice("mix_kernel", ON_GPU) == {}
    images = torch.empty(2, 3, 64, 64, device="meta")
    forward, backward = aot.patch_mix_launches(images)
    assert {launch.constants["BLOCK"] for launch in (forward, backward)} == {4096}
    assert {launch.options["num_warps"] for launch in (forward, backward)} == {8}
    assert tile_sizes(torch.empty(2, 256, dtype=torch.bfloat16)) == {"ROWS": 128, "COLS": 128, "CHUNK": 64}


def test_a_table_is_taken_on_its_device_and_read_once(a_gpu):
    chosen = CANDIDATES[MIX][0]
    a_gpu.write_text(json.dumps({"chosen": {MIX: chosen}}))
    assert choice("mix_kernel", ON_GPU) == chosen and in_use(GPU) == {MIX: chosen}
    assert choice("returned_kernel", ON_GPU) == {}
    assert in_use("cpu") == {} and choice("mix_kernel", torch.empty(2)) == {}
    a_gpu.unlink()
    assert in_use(GPU) == {MIX: chosen}  # a run takes the same to its end
    table = {MIX: chosen, TILES: CANDIDATES[TILES][2]}
    forward, backward = aot.patch_mix_launches(torch.empty(2, 3, 64, 64, device="meta"), table)
    assert (forward.constants["BLOCK"], forward.options["num_warps"]) == tuple(chosen.values())
    assert forward.grid[0] == 2 * backward.grid[0] and backward.constants["BLOCK"] == 4096


def test_a_table_is_for_one_device_and_one_version_of_the_kernels(a_gpu, monkeypatch):
    assert a_gpu.name.startswith("nvidia-h100-80gb-hbm3-") and path_of("Another").name != a_gpu.name
    monkeypatch.setattr("triton.__version__", "0.0")
    assert path_of("NVIDIA H100 80GB HBM3") != a_gpu


def test_the_variable_set_to_nothing_makes_all_be_as_built_in(a_gpu, monkeypatch):
    a_gpu.write_text(json.dumps({"chosen": {MIX: CANDIDATES[MIX][0]}}))
    monkeypatch.setenv("SEMIMEDREF_KERNELS_CACHE", "")
    assert path_of("NVIDIA H100 80GB HBM3") is None and in_use(GPU) == {}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"chosen": 1}', json.dumps({"chosen": {MIX: {"BLOCK": 3}}}), '{"chosen": {"other": {}}}'],
)
def test_what_is_no_table_is_refused_by_name(a_gpu, text):
    a_gpu.write_text(text)
    with pytest.raises(ValueError, match=rf"{a_gpu.name}.*delete it, or make it anew"):
        in_use(GPU)


def test_every_candidate_changes_what_is_compiled():
    names = aot.candidate_configurations("tf32x3")
    assert len(names) >= sum(map(len, CANDIDATES.values()))


def row(ms, **chosen):
    return {"choice": chosen, "ms": ms}


def test_only_what_is_clearly_faster_is_chosen():
    assert tune.best([row(1.0), row(0.98, BLOCK=1), row(1.5, BLOCK=2)]) == {}
    assert tune.best([row(1.0), row(0.9, BLOCK=1), row(0.8, BLOCK=2)]) == {"BLOCK": 2}
    failed = {"choice": {"BLOCK": 3}, "failed": "OutOfResources"}
    assert tune.best([failed]) == {} and tune.best([row(1.0), failed]) == {}
    assert tune.best([failed, row(1.0, BLOCK=4)]) == {"BLOCK": 4}


def made_up(name, slow=()):
    """A job whose launches do nothing; choices with these warps compute something else or fail."""

    def make(table):
        chosen = table.get(name, {})
        if chosen in slow[:1]:
            raise RuntimeError("out of resources")
        return SimpleNamespace(run=lambda: None), [torch.full((2,), 1.0 + (chosen in slow[1:]))]

    return tune.Job(name, make)


def test_what_fails_or_computes_something_else_is_never_chosen_and_hides_no_other():
    few = CANDIDATES[MIX]
    rows = tune.measured(made_up(MIX, few[:2]), Timer(seconds=0, least=1))
    assert [each["choice"] for each in rows] == [{}, *few]
    assert [each.get("failed") for each in rows] == [
        None, "RuntimeError: out of resources", "other numbers than the built-in one", None
    ]  # fmt: skip
    assert rows[0]["ms"] > 0 and rows[3]["ms"] > 0


def test_what_is_stopped_keeps_the_choices_it_has(tmp_path, monkeypatch):
    path = tmp_path / "new" / "table.json"

    def stopped(device, dry):
        yield made_up(MIX)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "best", lambda rows: rows[1]["choice"])
    monkeypatch.setattr(tune, "jobs", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(path, torch.device("cpu"), dry=True)
    assert read(path) == {MIX: CANDIDATES[MIX][0]}
    monkeypatch.setattr(tune, "jobs", lambda device, dry: [made_up(TILES)])
    tune.tune(path, torch.device("cpu"), dry=True)
    assert read(path) == {MIX: CANDIDATES[MIX][0], TILES: CANDIDATES[TILES][0]}
    assert [file.name for file in path.parent.iterdir()] == ["table.json"]


def test_the_command_measures_every_kernel_that_has_a_choice(tmp_path):
    """With the kernels in Triton's interpreter, as the session's phase for it runs without a GPU."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(("tune", "--folder", "{dir}"), tmp_path, dry=True), env=one_thread, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.iterdir()
    measured = json.loads(path.read_text())["measured"]
    assert set(CANDIDATES) <= set(measured) and read(path) is not None
    assert {name for name, rows in measured.items() for each in rows if "failed" in each} == set()
    assert str(path) in done.stdout


def test_it_says_what_is_in_use_and_that_it_needs_a_gpu(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert environment(Timer())["choices"] == {}  # and so does a record of the benchmark
    assert tune.main(["--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CANDIDATES) and all(line.endswith("as built in") for line in lines)
    with pytest.raises(SystemExit, match="no GPU here; --dry"):
        tune.main([])


def test_a_program_that_reads_no_kernel_needs_no_triton():
    program = (
        "import sys; sys.modules['triton'] = None; from semimedref_kernels.choices import in_use; print(in_use('cpu'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{}"
