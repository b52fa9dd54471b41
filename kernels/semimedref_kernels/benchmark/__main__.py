"""The benchmark's command line: ``python -m semimedref_kernels.benchmark --help``."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from semimedref_kernels.benchmark.cases import cases
from semimedref_kernels.benchmark.figure import roofline
from semimedref_kernels.benchmark.machine import environment, measured_ceilings
from semimedref_kernels.benchmark.measure import rows
from semimedref_kernels.benchmark.record import FORMAT, KINDS, case_name, read, table, write
from semimedref_kernels.benchmark.timing import CudaTimer, Timer

DESCRIPTION = """Checks the fused operations against float64, then times them against plain PyTorch: on the GPU if there
is one, else on the CPU. Exit status 1 if any form is wrong."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m semimedref_kernels.benchmark", description=DESCRIPTION)
    parser.add_argument(
        "--output", type=Path, help="the JSON file; by default kernels/results/DEVICE.json in a checkout"
    )
    parser.add_argument("--figure", type=Path, help="also draw the roofline, to this .png, .pdf or .svg")
    parser.add_argument("--only", choices=["patch_mix", "loss"], help="one operation")
    parser.add_argument("--quick", action="store_true", help="a few small sizes, measured briefly")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.figure and importlib.util.find_spec("matplotlib") is None:
        raise SystemExit(f"--figure {args.figure} needs matplotlib: pip install matplotlib")
    for path in (args.output, args.figure):
        if path and not path.absolute().parent.is_dir():
            raise SystemExit(f"{path}: its folder does not exist; make it first")
    for record in measured(args.only, args.quick):
        path = args.output or default_output(record, partial=args.quick or args.only is not None)
        if path:
            write(record, path)
    print(table(record))
    if path:
        read(path)
        print(f"\nwritten to {path}")
    else:
        print("\nnot written: only a part of the cases, or no checkout; name a file with --output")
    if args.figure:
        roofline(record).savefig(args.figure, dpi=150)
        print(f"roofline drawn to {args.figure}")
    wrong = [row for row in record["rows"] if row["status"] == "wrong"]
    for row in wrong:
        progress(f"WRONG: {row['form']}, {row['part']}, {case_name(row)}: error {row['error']}, limit {row['limit']}")
    return 1 if wrong else 0


def measured(only: str | None = None, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the record, in the form of :func:`semimedref_kernels.benchmark.read`, after each case, with the rows so
    far.

    All cases take minutes, mostly for torch.compile. If it ends early, the measured rows are kept.
    """
    kind = "gpu" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("highest")
    effort = {"seconds": 0.02, "least": 3} if quick else {}
    timer = CudaTimer(**effort) if kind == "gpu" else Timer(**effort)
    head = {"format": FORMAT, "kind": kind, "note": KINDS[kind], **environment(timer)}
    start = time.monotonic()
    progress(f"{head['device']['name']}: measuring what it can do")
    ceilings, found = measured_ceilings(timer), []
    for case in cases(timer.device, only, quick):
        name = case_name({"op": case.op, "sizes": case.sizes, "dtype": case.dtype})
        progress(f"{time.monotonic() - start:5.0f} s  {name}")
        found += [asdict(row) for row in rows(case, timer, ceilings)]
        yield {**head, "ceilings": ceilings, "rows": found}


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def default_output(record: dict[str, Any], partial: bool) -> Path | None:
    """The default file: beside the kernels in a checkout, with the device's name; None for a part of the cases, or if
    installed."""
    folder = Path(__file__).parents[2] / "results"
    if partial or not (folder.is_dir() and (folder.parents[1] / "pyproject.toml").is_file()):
        return None
    name = "cpu" if record["kind"] == "cpu" else re.sub(r"[^a-z0-9]+", "-", record["device"]["name"].lower()).strip("-")
    return folder / f"{name}.json"


if __name__ == "__main__":
    raise SystemExit(main())
