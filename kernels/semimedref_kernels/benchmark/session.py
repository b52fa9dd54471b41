"""All measurements that need a GPU, in one run of about eight minutes.

``python -m semimedref_kernels.benchmark.session DIR``. Each phase is a separate process with its own time limit. The
most important phases run first. A phase that ends early, hangs or crashes does not affect the others, and the benchmark
keeps its measured cases even then. ``--dry`` does the same on a CPU, with the kernels in Triton's interpreter, small
sizes and few runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from semimedref_kernels.benchmark.record import read, table, write
from semimedref_kernels.benchmark.tune import embeddings

BUDGET = 480  # seconds
# Name, largest number of seconds, and content. The last phase runs the tests of the repository, if they are available.
PHASES = (
    ("correct", 60, ("correct", "{dir}")),
    ("patch_mix", 110, ("--only", "patch_mix", "--output", "{dir}/patch_mix.json")),
    ("tune", 100, ("tune", "--folder", "{dir}")),
    ("loss", 200, ("--only", "loss", "--output", "{dir}/loss.json")),
    ("tests", 90, ("pytest",)),
)
TESTS = ("test_patch_mix_triton.py", "test_soft_contrastive.py")


def command(what: tuple[str, ...], folder: Path, dry: bool) -> list[str]:
    filled = [word.format(dir=folder) for word in what]
    if filled == ["pytest"]:
        tests = Path(__file__).parents[3] / "tests"
        return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *(str(tests / name) for name in TESTS)]
    own = {"correct": ["session", "--phase", "correct"], "tune": ["tune"]}.get(filled[0])
    if own:
        module = f"semimedref_kernels.benchmark.{own[0]}"
        return [sys.executable, "-m", module, *own[1:], *filled[1:], *(["--dry"] if dry else [])]
    return [sys.executable, "-m", "semimedref_kernels.benchmark", *filled, *(["--quick"] if dry else [])]


def run_phases(
    folder: Path, budget: float, dry: bool, phases: tuple = PHASES, command: Callable[..., list[str]] = command
) -> dict[str, str]:
    """Runs the phases one after the other; returns name -> outcome. ``command`` makes the command from the third entry
    of a phase."""
    start, ended = time.monotonic(), {}
    for name, most, what in phases:
        left = budget - (time.monotonic() - start)
        if left < 5:
            ended[name] = "no time left"
            continue
        environment = os.environ | ({"TRITON_INTERPRET": "1"} if dry else {})
        with (folder / f"{name}.log").open("w") as log:
            try:
                done = subprocess.run(
                    command(what, folder, dry), stdout=log, stderr=log, timeout=min(most, left), env=environment
                )
                ended[name] = "done" if done.returncode == 0 else f"exit status {done.returncode}"
            except subprocess.TimeoutExpired:
                ended[name] = "stopped: out of time"
        print(f"{time.monotonic() - start:5.0f} s  {name}: {ended[name]}", flush=True)
    return ended


def joined(folder: Path) -> dict | None:
    """The record of the benchmark from its two parts, or from the only existing part."""
    parts = [read(folder / f"{name}.json") for name in ("patch_mix", "loss") if (folder / f"{name}.json").exists()]
    if not parts:
        return None
    return {**parts[0], "rows": [row for part in parts for row in part["rows"]]}


def tell(folder: Path, phase: str, **found: object) -> None:
    """Writes a line to the phase's file at once."""
    with (folder / f"{phase}.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(found, flush=True)


def correct(folder: Path, device: torch.device, dry: bool) -> None:
    """Checks odd sizes against float64, and that two runs give the same bits."""
    from semimedref_kernels import soft_contrastive_plain, soft_contrastive_triton

    sizes = (
        (1, 1, 256, 0.07, "float32"), (33, 60, 768, 0.07, "bfloat16"), (65, 65, 48, 0.01, "float32"),
        (1000, 1537, 256, 0.07, "float32"), (1000, 1537, 256, 0.07, "bfloat16"), (2050, 4097, 768, 0.02, "bfloat16"),
        (5000, 4099, 96, 0.07, "float32"), (9000, 9000, 256, 0.07, "bfloat16"),
    )  # fmt: skip
    for n, m, D, tau, dtype in sizes[: 3 if dry else None]:
        u, v, codes, codes_v = embeddings(n, m, D, getattr(torch, dtype), device)
        one = torch.ones((), device=device)

        def both_ways(form, u: Tensor, v: Tensor, about: tuple = (codes, codes_v, tau, True), one: Tensor = one):
            loss, kept = form.forward(u, v, *about)
            return loss, *form.backward(one.to(loss.dtype), u, v, *about, kept)

        first, second = (both_ways(soft_contrastive_triton, u, v) for _ in range(2))
        exact = both_ways(soft_contrastive_plain, u.double(), v.double())
        errors = [
            ((x.double() - y).norm() / y.norm().clamp(min=1e-9)).item() for x, y in zip(first, exact, strict=True)
        ]
        same = all(map(torch.equal, first, second))
        tell(folder, "correct", size=(n, m, D), tau=tau, dtype=dtype, errors=errors, same_bits=same)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m semimedref_kernels.benchmark.session", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of records, lines and logs; created if missing")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all phases")
    parser.add_argument("--dry", action="store_true", help="a small test on a CPU")
    parser.add_argument("--phase", choices=["correct"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.dry and not torch.cuda.is_available():
        raise SystemExit("no GPU found; use --dry for a small test on a CPU")
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.phase:
        correct(args.folder, torch.device("cpu" if args.dry else "cuda"), args.dry)
        return 0
    ended = run_phases(args.folder, args.budget, args.dry)
    record = joined(args.folder)
    if record:
        write(record, args.folder / "record.json")
        print(table(record))
    return int(any(how != "done" for how in ended.values()))


if __name__ == "__main__":
    raise SystemExit(main())
