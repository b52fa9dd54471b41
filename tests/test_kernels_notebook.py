"""Notebook 09: what it counts with, what it says of measured times, and its exercises in Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn.functional import embedding

from semimedref_core.tools import Meter
from semimedref_kernels.benchmark import against_best, read

SAVED = Path(__file__).parent.parent / "kernels" / "results"


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is for Linux alone")
def test_what_the_notebook_runs_in_the_interpreter():
    """In a process of its own: Triton decides at import whether kernels are interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "interpreted_notebook.py"],
        env=os.environ | {"TRITON_INTERPRET": "1", "MPLBACKEND": "agg"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def counted(form):
    with Meter() as meter:
        form()
    return meter.operations, meter.read, meter.written


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_meter_counts_what_operations_read_and_write(device):
    x, few = torch.zeros(100, 8, device=device), torch.zeros(3, dtype=torch.int64, device=device)
    assert counted(lambda: 2 * x) == (1, x.nbytes, x.nbytes)
    assert counted(lambda: x.T[3:].unsqueeze(0)) == (0, 0, 0)  # views
    gathers = lambda: x[few], lambda: x.index_select(0, few), lambda: embedding(few, x), lambda: x.view(-1).take(few)
    for gather, returned in zip(gathers, (24, 24, 24, 3), strict=True):
        assert counted(gather) == (1, 4 * returned + few.nbytes, 4 * returned)
    assert counted(lambda: x.gather(0, few[:, None])) == (1, 4 * 3 + few.nbytes, 4 * 3)
    assert counted(lambda: x.copy_(x + 1))[1:] == (2 * x.nbytes, 2 * x.nbytes)  # what is overwritten is not read
    repeated = torch.zeros(8, device=device).expand(100, 8)
    assert counted(lambda: x + repeated) == (1, x.nbytes + 8 * 4, x.nbytes)


@pytest.mark.parametrize(
    ("fills", "read"),
    [
        (lambda x, row: x.zero_(), 0),
        (lambda x, row: x.fill_(1), 0),
        (lambda x, row: x.uniform_(), 0),
        (lambda x, row: torch.zeros_like(x), 0),
        (lambda x, row: torch.rand_like(x), 0),
        (lambda x, row: x.new_full(x.shape, 2), 0),
        (torch.Tensor.copy_, 8 * 4),  # of a float32 row into float64, repeated
        (lambda x, row: torch.add(row.expand(100, 8), 1, out=x), 8 * 4),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_meter_reads_nothing_of_memory_that_is_filled(device, fills, read):
    x, row = torch.zeros(100, 8, dtype=torch.float64, device=device), torch.zeros(8, device=device)
    with Meter() as meter:
        fills(x, row)
    assert (meter.read, meter.written) == (read, x.nbytes)


def test_the_meter_knows_the_most_memory_that_was_held_at_once():
    x = torch.zeros(1000)
    with Meter() as meter:
        y = 2 * x
        z = y + 1
        del y, z
        kept = x + 1
    assert kept is not x and (meter.peak, meter.held) == (2 * x.nbytes, x.nbytes)


def test_what_the_notebook_says_of_the_h100_is_what_its_record_holds():
    """Its words: always, mostly, never; here counted from the rows themselves."""
    rows = read(SAVED / "nvidia-h100-80gb-hbm3.json")["rows"]

    def won(op, part, clock, sizes=lambda sizes: True):
        times = {}
        for row in rows:
            if (row["op"], row["part"]) == (op, part) and sizes(row["sizes"]):
                case = times.setdefault((row["dtype"], *row["sizes"].values()), {})
                case[row["form"]] = row[clock]["median"]
        return [min(case, key=case.get) == "ours" for case in times.values()]

    assert all(won("patch_mix", "forward", "graph_ms"))
    for mostly_lost in (("forward", "ms"), ("backward", "graph_ms"), ("backward", "ms")):
        assert 0 < sum(won("patch_mix", *mostly_lost)) < 6
    few, many = (lambda sizes: sizes["N"] <= 64), (lambda sizes: sizes["N"] >= 1024)
    assert 0 < sum(won("loss", "both", "graph_ms", few)) < 8 and all(won("loss", "both", "ms", few))
    assert not any(won("loss", "both", "graph_ms", many) + won("loss", "both", "ms", many))


def test_each_case_is_compared_with_the_fastest_other_form():
    def row(form, part="both", ms=1.0, graph=None, status="ok", N=8):
        timed = {"ms": {"median": ms}, "graph_ms": graph and {"median": graph}}
        return {"op": "loss", "sizes": {"N": N}, "dtype": "fp32", "form": form, "part": part, "status": status, **timed}

    rows = [row("ours", ms=2.0, graph=1.0), row("dense", ms=3.0, graph=5.0), row("chunks", ms=1.0, graph=4.0)]
    rows += [
        row("wrong", ms=0.1, graph=0.1, status="wrong"),
        row("ours", "forward"),
        row("ours", N=9),
        row("dense", N=9),
    ]
    found = against_best({"rows": rows})
    assert [(case["sizes"]["N"], case["part"], case["alone"], case["launched"]) for case in found] == [
        (8, "both", 4.0, 0.5),
        (9, "both", None, 1.0),
    ]
