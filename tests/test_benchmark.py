"""The benchmark of the kernels: its forms, its rows, its record; times are only looked at where they are made up."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from semimedref_kernels.benchmark import baselines, read, roofline, session, table
from semimedref_kernels.benchmark.__main__ import default_output, main
from semimedref_kernels.benchmark.cases import OURS, cases, loss_case, patch_mix_case, work
from semimedref_kernels.benchmark.measure import PARTS, check, rows
from semimedref_kernels.benchmark.record import Row, matrix_ceiling, write
from semimedref_kernels.benchmark.timing import CudaTimer, Run, Timer, Times
from semimedref_kernels.patch_mix import plain_patch_mix

CPU = torch.device("cpu")
CEILINGS = {"copy": 1e9, "matrix": {"fp32": 1e10}}
SAVED = Path(__file__).parent.parent / "kernels" / "results"


def brief() -> Timer:
    return Timer(seconds=0, least=1)


@pytest.fixture
def small_patch_mix():
    return patch_mix_case(4, 12, 5, "fp32", CPU)


@pytest.fixture
def small_loss():
    return loss_case(12, 8, "fp32", CPU)


def test_every_form_agrees_with_float64_in_both_types(small_patch_mix, small_loss):
    """Those that only a GPU is given run here too."""
    for dtype in ("fp32", "bf16"):
        mixing, loss = patch_mix_case(4, 12, 5, dtype, CPU), loss_case(12, 8, dtype, CPU)
        mixing.inputs[3][0] = torch.tensor([0, 0, 12, 12])  # then the plain form's window is the image, as on a GPU
        mixing = replace(mixing, forms=mixing.forms | {"plain form": plain_patch_mix})
        few = {"row chunks": lambda *inputs: baselines.loss_chunks(*inputs, chunk=36)}  # 3 rows at a time
        few["gradients at once"] = lambda *inputs: baselines.loss_at_once(*inputs, chunk=36)
        loss = replace(loss, forms=loss.forms | few)
        for case in (mixing, loss):
            errors, failures = check(case, brief())
            assert failures == {} and set(errors) == set(case.forms)
            for error in errors.values():
                assert error[0] <= case.limits[0] and error[1] <= case.limits[1]
    accepted = small_patch_mix.forms[OURS](*small_patch_mix.inputs)[2]
    assert 0 < accepted.sum() < len(accepted)


def test_the_reference_in_chunks_is_the_dense_loss(small_loss):
    """Eq. 11 in float64: whole, and three rows at a time."""
    u, v, codes, tau = small_loss.inputs
    u, v = u.double().requires_grad_(), v.double().requires_grad_()
    bits = (codes[:, None] >> torch.arange(6)) & 1
    both, either = (bits[:, None] & bits).sum(2), (bits[:, None] | bits).sum(2)
    p = (both / either).double().fill_diagonal_(1)
    z = torch.nn.functional.normalize(u, dim=1) @ torch.nn.functional.normalize(v, dim=1).T / tau
    dense = sum(-(q * x.log_softmax(1)).sum(1).div(q.sum(1)).mean() / 2 for q, x in ((p, z), (p.T, z.T)))
    (chunks,) = baselines.loss_chunks(u, v, codes, tau, chunk=36)
    torch.testing.assert_close(chunks, dense, rtol=1e-6, atol=0)  # P is float32 in `both / either`
    for mine, reference in zip(
        torch.autograd.grad(chunks, (u, v)), torch.autograd.grad(dense, (u, v)), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-8)


def test_baselines_compile_without_a_break(small_patch_mix, small_loss):
    for case, form in ((small_patch_mix, baselines.patch_mix_where), (small_loss, baselines.loss_dense)):
        compiled = torch.compile(form, dynamic=False, fullgraph=True, backend="aot_eager")
        errors, failures = check(replace(case, forms={OURS: compiled}), brief())
        assert failures == {} and max(errors[OURS]) < 1e-4


def test_a_wrong_form_is_marked_its_times_shown_and_the_command_fails(small_patch_mix, monkeypatch, capsys):
    def wrong_gradient(images, probs, *rest):
        mixed, target, accepted = small_patch_mix.forms["where"](images, probs, *rest)
        return mixed + (images - images.detach()) * 0.01, target, accepted

    def never_mixed(images, probs, partner, *rest):
        return images * 1, probs * 1, torch.zeros(len(images), dtype=torch.bool)

    def infinite(images, probs, *rest):
        return images / 0, probs * 1, small_patch_mix.forms["where"](images, probs, *rest)[2]

    forms = {OURS: small_patch_mix.forms[OURS], "where": wrong_gradient}
    case = replace(small_patch_mix, forms=forms | {"loop, masks": never_mixed, "loop, slices": infinite})
    found = rows(case, brief(), CEILINGS)
    assert [(row.form, row.part) for row in found] == [(form, part) for form in case.forms for part in PARTS]
    assert [row.status for row in found] == ["ok"] * 4 + ["wrong"] * 8
    assert all(row.ms["median"] > 0 and row.ratio > 0 for row in found)
    assert found[4].error == pytest.approx(0.01, rel=0.5) and found[6].error is None
    module = sys.modules["semimedref_kernels.benchmark.__main__"]
    monkeypatch.setattr(module, "cases", lambda *_: [case])
    monkeypatch.setattr(module, "measured_ceilings", lambda _: CEILINGS)
    assert main(["--quick"]) == 1
    printed = capsys.readouterr()
    assert "WRONG: at most 5e-07 is correct" in printed.out and printed.err.count("WRONG") == 8


def test_want_of_memory_is_a_result(small_loss):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    class OnBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            return u.sum()

        @staticmethod
        def backward(ctx, _):
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Full(Timer):
        def free_bytes(self):
            return 2e9

    class PeakTooHigh(Timer):
        def peak_bytes(self, run):
            return too_large() if "too_large" in str(run.fn.__closure__) or run.prepare else 7

    forms = {OURS: small_loss.forms[OURS], "dense": too_large, "row chunks": lambda u, *_: (OnBackward.apply(u),)}
    forms["dense, compiled"] = small_loss.forms["dense"]
    case = replace(small_loss, forms=forms, needs={"dense, compiled": 3 * 10**9})
    found = rows(case, Full(seconds=0, least=1), CEILINGS)
    assert [row.status for row in found] == ["ok"] * 3 + ["out of memory"] * 6 + [
        "skipped: needs at least 3 GB, 2 GB are free"
    ] * 3
    assert all((row.ms is None) == (row.status != "ok") and row.bytes > 0 for row in found)
    # Where it fits while it is checked, but not while its peak is looked at.
    found = rows(replace(small_loss, forms={OURS: forms[OURS]}), PeakTooHigh(seconds=0, least=1), CEILINGS)
    assert [(row.part, row.status, row.peak_bytes) for row in found] == [
        ("forward", "ok", 7),
        ("backward", "out of memory", None),
        ("both", "ok", 7),
    ]


def test_bytes_and_operations_counted_by_hand():
    # One sample, 2 x 2 px, 3 channels and a map: 16 numbers read, 16 written; 8 + 32 + 1 bytes of partner, box, flag.
    mixing = work("patch_mix", {"B": 1, "C": 3, "side": 2, "box": 1}, 4)
    assert mixing == {"forward": (169, 17), "backward": (169, 16), "both": (338, 33)}
    # Two pairs of width 3 in two bytes: 12 numbers read; 2 codes, 1 loss. 4 logits of 3 products and 3 sums.
    loss = work("loss", {"N": 2, "D": 3}, 2)
    assert loss == {"forward": (24 + 20, 24), "backward": (48 + 20, 48), "both": (112, 72)}


def test_shares_and_ratios_are_those_of_their_times(small_loss):
    found = rows(small_loss, brief(), CEILINGS)
    first, ours = next(row for row in found if row.form == "dense"), found[0]
    assert ours.form == OURS and ours.ratio == 1
    assert first.ratio == pytest.approx(first.ms["median"] / ours.ms["median"], rel=1e-3)
    assert first.share == pytest.approx(first.operations / (first.ms["median"] / 1e3) / 1e10, rel=1e-3)
    assert matrix_ceiling({"matrix": {"fp32": 5, "tf32": 24, "bf16": 70}}, "fp32") == 8
    assert matrix_ceiling({"matrix": {"fp32": 9, "tf32": 24, "bf16": 70}}, "bf16") == 70


def test_what_cannot_become_a_graph_says_so_and_shares_are_of_the_graph(small_loss):
    class Capturing(Timer):
        def captured(self, run):
            if run.prepare:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
            return run

    forms = {name: small_loss.forms[name] for name in (OURS, "dense")}
    found = rows(replace(small_loss, forms=forms), Capturing(seconds=0, least=1), CEILINGS)
    for row in found:
        if row.part == "backward":
            assert row.graph_note == "RuntimeError: operation not permitted when stream is capturing"
            assert row.graph_ms is None and row.graph_ratio is None and row.ratio > 0
        else:
            assert row.share == pytest.approx(row.operations / (row.graph_ms["median"] / 1e3) / 1e10, rel=1e-3)
            assert row.graph_ratio > 0 and row.graph_note is None


def test_percentiles_and_turns():
    times = Times.of([float(x) for x in range(100, -1, -1)])
    assert [times.median, times.p20, times.p80, times.runs] == pytest.approx([50, 20, 80, 101])
    log = []
    runs = {name: Run(lambda state, name=name: log.append((name, state)), lambda: "made") for name in "ab"}
    found = Timer(seconds=60, most=3).in_turn(runs)
    # Twice in a row: only the second is timed, so it does not matter which candidate came before.
    assert log == [("a", "made"), ("a", "made"), ("b", "made"), ("b", "made")] * 5
    assert [found[name].runs for name in "ab"] == [3, 3]
    assert Timer().in_turn({}) == {}


def test_a_gpu_is_driven_in_the_right_order(monkeypatch):
    """A GPU's calls written down: flushed and waited for before a run, not waited for before a graph."""
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return 1.5

    class Graph:
        def replay(self):
            log.append("replay")

        def pool(self):
            return "pool of the first"

    class Flush:
        def sum(self):
            log.append("flush")

    pools = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool=None: nullcontext(pools.append(pool)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("synchronize"))
    timer = CudaTimer.__new__(CudaTimer)
    timer.device, timer.flush = CPU, Flush()
    run = Run(lambda state: log.append(("run", state)), lambda: log.append("prepare") or 7)
    assert timer.once(run) == 1.5
    assert log == ["prepare", "flush", "synchronize", "record", ("run", 7), "record", "wait"]
    log.clear()
    graph = timer.captured(run)
    assert log == ["prepare", ("run", 7)] and pools == [None, "pool of the first"]
    log.clear()
    timer.once(graph)
    assert log == ["replay", "flush", "record", "replay", "record", "wait"]
    log.clear()
    timer.once(timer.captured(Run(lambda _: None)))
    assert log == ["flush", "record", "replay", "record", "wait"]


def test_a_gpu_s_buffer_is_at_least_its_cache(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch, "zeros", lambda size, **_: 4 * size)
    for cache, size in ((50 * 2**20, 2**28), (2**29, 2**29)):
        properties = SimpleNamespace(L2_cache_size=cache)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert CudaTimer().flush == size


@pytest.fixture
def gpu_record():
    """A made-up record with all that a GPU's may hold."""
    mixing = {"B": 8, "C": 3, "side": 224, "box": 74}
    found, times = [], {"median": 2.0, "p20": 1.5, "p80": 2.5, "runs": 9}
    for op, sizes, forms in (
        ("patch_mix", mixing, (OURS, "plain form", "where", "where, compiled")),
        ("loss", {"N": 1024, "D": 256}, (OURS, "dense", "dense, compiled", "row chunks")),
        ("loss", {"N": 65536, "D": 256}, (OURS, "dense", "row chunks")),
    ):
        for dtype in ("fp32", "bf16"):
            for k, form in enumerate(forms, 1):
                for part, (moved, done) in work(op, sizes, 4).items():
                    row = Row(op, sizes, dtype, form, part, "ok", 1e-6, 1e-5, bytes=moved, operations=done)
                    row.ms = {**times, "median": 2.0 * k}
                    row.graph_ms, row.peak_bytes, row.share = {**times, "median": 1.0 * k}, 5 * 10**6, 0.5 / k
                    row.ratio = row.graph_ratio = float(k)
                    found.append(row)
    for row in found[-6:-3]:
        row.status, row.ms, row.graph_ms, row.error, row.ratio = "out of memory", None, None, None, None
    found[3].graph_ms, found[3].graph_note = None, "RuntimeError: not permitted"
    found[4].status, found[4].error, found[5].ratio = "wrong", None, 0.5
    device = {"name": "A GPU", "capability": "9.0", "memory_bytes": 1, "l2_bytes": 1, "threads": 4, "load": 0.5}
    versions = {"torch": "2.13", "triton": "3.7", "cuda": "13.0", "driver": "580.1", "hip": None}
    ceilings = {"copy": 2.5e12, "matrix": {"fp32": 5e13, "tf32": 4e14, "bf16": 7e14}}
    record = {"format": 1, "kind": "gpu", "note": "", "date": "2026-01-02", "device": device, "versions": versions}
    return record | {"ceilings": ceilings, "rows": [vars(row) for row in found]}


def test_the_table_tells_all_that_happened(gpu_record):
    text = table(gpu_record)
    assert "A GPU (CPU threads 4, load 0.5, compute capability 9.0), 2026-01-02" in text
    assert "triton 3.7, cuda 13.0, driver 580.1" in text and "hip" not in text
    assert "copy 2,500 GB/s" in text and "tf32 400,000 GFLOP/s" in text
    assert text.count("patch_mix fp32, B=8 C=3, 224 px, box 74 px\n") == 1 and "loss bf16, N=65536 D=256" in text
    lines = text.splitlines()
    assert sum(line.endswith("out of memory") for line in lines) == 3
    assert any("no graph: RuntimeError: not permitted" in line for line in lines)
    assert any("not finite  WRONG: at most 1e-05 is correct" in line for line in lines)
    assert "1 of 66 rows have a ratio below 1." in text
    compiled = next(line for line in lines if line.startswith("  where, compiled  both"))
    assert compiled.split() == "where, compiled both 8 1.5 to 2.5 4 4 4 5 12.5% 1.0e-06".split()


def test_the_roofline_shows_each_timed_row_below_the_measured_ceilings(gpu_record):
    figure = roofline(gpu_record)
    assert [ax.get_title() for ax in figure.axes] == [
        "forward, fp32",
        "backward, fp32",
        "forward, bf16",
        "backward, bf16",
    ]
    shown = {"fp32": 4 + 4 + 3, "bf16": 4 + 4 + 2}
    for ax in figure.axes:
        dtype = ax.get_title().split()[-1]
        drawn = [line for line in ax.lines if line.get_linestyle() == "None"]
        assert len(drawn) == shown[dtype]
        (roof,) = (line for line in ax.lines if line.get_color() == "black" and line not in drawn)
        assert roof.get_ydata().max() == pytest.approx(matrix_ceiling(gpu_record["ceilings"], dtype))
        assert roof.get_ydata()[0] / roof.get_xdata()[0] == pytest.approx(2.5e12)
    ours = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(line.get_ydata()[0]) for line in ours] == [
        row["operations"] / 1e-3
        for row in gpu_record["rows"]
        if (row["form"], row["part"], row["dtype"]) == (OURS, "forward", "fp32")
    ]
    figure.canvas.draw()


def test_what_is_written_is_read_and_what_is_no_record_is_refused(gpu_record, tmp_path):
    path = tmp_path / "record.json"
    write(gpu_record, path)
    assert read(path) == gpu_record
    whole = json.loads(path.read_text())
    faults = {
        "not JSON": "{",
        "format 1": json.dumps([]),
        "of format 1": json.dumps({**whole, "format": 2}),
        "lacks ceilings": json.dumps({key: value for key, value in whole.items() if key != "ceilings"}),
        "row 1: .*'colour'": json.dumps({**whole, "rows": [{**whole["rows"][0], "colour": 1}]}),
        "row 2: .*'form'": json.dumps({**whole, "rows": [whole["rows"][0], {"op": "loss"}]}),
    }
    for message, text in faults.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=f"record.json.*{message}.*make it again"):
            read(path)


def test_the_command_writes_prints_and_draws(tmp_path, capsys):
    path, picture = tmp_path / "quick.json", tmp_path / "quick.png"
    assert main(["--quick", "--only", "patch_mix", "--output", str(path), "--figure", str(picture)]) == 0
    record, printed = read(path), capsys.readouterr()
    assert {row["op"] for row in record["rows"]} == {"patch_mix"} and picture.stat().st_size > 10_000
    assert printed.out.startswith(table(record)) and str(path) in printed.out and str(picture) in printed.out
    if not torch.cuda.is_available():
        assert record["kind"] == "cpu" and printed.out.startswith("no GPU: plain forms on the CPU\n")
        assert record["device"]["threads"] == torch.get_num_threads()
    with pytest.raises(SystemExit, match="folder does not exist"):
        main(["--output", str(tmp_path / "nowhere" / "x.json")])


def test_what_is_stopped_keeps_the_cases_it_has_measured(tmp_path, monkeypatch):
    def stopped(case, *rest):
        if case.sizes["N"] == 256:
            raise KeyboardInterrupt
        return rows(case, *rest)

    monkeypatch.setattr("semimedref_kernels.benchmark.__main__.rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        main(["--quick", "--only", "loss", "--output", str(tmp_path / "quick.json")])
    assert {row["sizes"]["N"] for row in read(tmp_path / "quick.json")["rows"]} == {32}


def test_where_a_record_goes_by_default(gpu_record):
    gpu_record["device"]["name"] = "NVIDIA H100 80GB HBM3"
    assert default_output(gpu_record, partial=False) == SAVED / "nvidia-h100-80gb-hbm3.json"
    assert default_output({**gpu_record, "kind": "cpu"}, partial=False) == SAVED / "cpu.json"
    assert default_output(gpu_record, partial=True) is None


def test_without_matplotlib_only_the_figure_is_missing(gpu_record, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "A GPU" in table(gpu_record)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        roofline(gpu_record)


def test_the_committed_record_holds_every_case_and_nothing_wrong():
    record = read(SAVED / "cpu.json")
    assert record["note"] == "no GPU: plain forms on the CPU" and (SAVED / "cpu.json").stat().st_size < 60_000
    assert {row["status"] for row in record["rows"]} == {"ok"}
    expected = [
        (case.op, case.sizes, case.dtype, form, part) for case in cases(CPU) for form in case.forms for part in PARTS
    ]
    assert [tuple(row[key] for key in ("op", "sizes", "dtype", "form", "part")) for row in record["rows"]] == expected
    assert roofline(record).axes and table(record)


def test_a_session_on_a_gpu_goes_on_when_a_phase_hangs_and_keeps_what_there_is(tmp_path, small_patch_mix):
    def command(what, folder, dry):
        return [sys.executable, "-c", what[0]]

    phases = (("hangs", 1, ("import time; print('begun', flush=True); time.sleep(60)",)), ("falls", 9, ("1 / 0",)))
    ended = session.run_phases(tmp_path, 60, False, (*phases, ("works", 9, ("print('all well')",))), command)
    assert ended == {"hangs": "stopped: out of time", "falls": "exit status 1", "works": "done"}
    assert [(tmp_path / f"{name}.log").read_text().split()[0] for name in ("hangs", "works")] == ["begun", "all"]
    assert session.run_phases(tmp_path, 0, False, phases) == {"hangs": "no time left", "falls": "no time left"}
    assert session.joined(tmp_path) is None
    record = read(SAVED / "cpu.json")
    write({**record, "rows": record["rows"][:2]}, tmp_path / "patch_mix.json")
    assert session.joined(tmp_path)["rows"] == record["rows"][:2]


def test_no_session_without_a_gpu(tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="--dry"):
            session.main([str(tmp_path)])
