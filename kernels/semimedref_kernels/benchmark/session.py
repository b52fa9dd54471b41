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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from semimedref_kernels.benchmark.record import read, table, write
from semimedref_kernels.benchmark.timing import CudaTimer, Run, Timer

BUDGET = 480  # seconds
# Name, largest number of seconds, and content. The last phase runs the tests of the repository, if they are available.
PHASES = (
    ("correct", 60, ("session", "{dir}", "--phase", "correct")),
    ("patch_mix", 110, ("--only", "patch_mix", "--output", "{dir}/patch_mix.json")),
    ("choices", 100, ("session", "{dir}", "--phase", "choices")),
    ("loss", 200, ("--only", "loss", "--output", "{dir}/loss.json")),
    ("tests", 90, ("pytest",)),
)
TESTS = ("test_patch_mix_triton.py", "test_soft_contrastive.py")


def command(what: tuple[str, ...], folder: Path, dry: bool) -> list[str]:
    filled = [word.format(dir=folder) for word in what]
    if filled == ["pytest"]:
        tests = Path(__file__).parents[3] / "tests"
        return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *(str(tests / name) for name in TESTS)]
    if filled[0] == "session":
        return [sys.executable, "-m", "semimedref_kernels.benchmark.session", *filled[1:], *(["--dry"] if dry else [])]
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


def embeddings(n: int, m: int, D: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(n + m)
    u, v = (torch.randn(size, D, generator=random).to(device, dtype) for size in (n, m))
    codes, codes_v = (torch.randint(0, 64, (size,), generator=random).to(device) for size in (n, m))
    return u, v, codes, codes_v


def choices(folder: Path, device: torch.device, dry: bool) -> None:
    """Times other tiles than the shipped ones, each launch from a CUDA graph, to choose tiles for a next version."""
    import triton

    timer = Timer(seconds=0, least=1) if dry else CudaTimer(seconds=0.1)
    for name, launch, moved, done in candidates(device, dry):
        try:
            run = Run(lambda _, launch=launch: launch.run())
            timer.once(run)
            median = timer.time(timer.captured(run) or run).median
        except (
            RuntimeError,
            triton.errors.TritonError,
        ) as error:  # a tile that does not compile or fit does not stop the others
            tell(folder, "choices", what=name, failed=f"{type(error).__name__}: {str(error)[:160]}")
            continue
        rates = {"TB_per_s": moved / median / 1e9, "TFLOP_per_s": done / median / 1e9}
        tell(folder, "choices", what=name, ms=median, **rates)


def candidates(device: torch.device, dry: bool) -> Iterator[tuple[str, object, int, int]]:
    """Name, launch, bytes and operations."""
    from semimedref_kernels import patch_mix_triton, soft_contrastive_triton
    from semimedref_kernels.benchmark.cases import patch_mix_case

    B, side = (2, 32) if dry else (32, 224)
    for dtype in ("fp32", "bf16"):
        images, probs, partner, boxes, threshold = patch_mix_case(B, side, side // 3, dtype, device).inputs
        moved = 2 * (images.nbytes + probs.nbytes)
        forward, outputs = patch_mix_triton.mix_launch(images, probs, partner, boxes, threshold)
        forward.run()
        backward, _ = patch_mix_triton.returned_launch(images, probs, partner, boxes, outputs[2])
        planes = side * side
        for block in (2048, 4096, 8192):
            for warps in (4, 8):
                for which, launch in (("forward", forward), ("backward", backward)):
                    grid = (B * -(-planes // block), launch.grid[1])
                    constants, options = launch.constants | {"BLOCK": block}, {"num_warps": warps}
                    name = f"patch_mix {which} {dtype} BLOCK={block} warps={warps}"
                    yield name, replace(launch, grid=grid, constants=constants, options=options), moved, 0
    for dtype in (torch.bfloat16, torch.float32):
        n, D = (128, 32) if dry else ((16384, 256) if dtype == torch.bfloat16 else (8192, 256))
        u, v, codes, codes_v = embeddings(n, n, D, dtype, device)
        large = soft_contrastive_triton.Large(
            u, v, codes, codes_v, 0.07, True, 0, False, soft_contrastive_triton.exact()
        )  # fmt: skip
        kept = torch.empty(soft_contrastive_triton.kept_size(n, n, D), device=device)
        launches, _ = large.forward(kept)
        for launch in launches:
            launch.run()
            yield f"{launch.kernel.__name__} {dtype} as shipped", launch, 0, 0
        found = {launch.kernel.__name__: launch for launch in launches}
        rows = slice(0, min(n, 4096))
        found["pushes"], _ = large.push(kept, rows, rows, u.new_empty(rows.stop**2))
        for name in ("sums_of_exp", "pushes"):
            size = n if name == "sums_of_exp" else rows.stop
            for tile, warps, stages in (
                ((64, 128), 8, 3), ((128, 128), 8, 3), ((128, 128), 8, 4), ((128, 128), 4, 3), ((128, 256), 8, 3),
                ((256, 128), 8, 3),
            ):  # fmt: skip
                launch, (down, across) = found[name], tile
                args = dict(launch.args)
                if name == "sums_of_exp":  # smaller tiles have more parts
                    args["row_parts"] = args["column_parts"] = torch.empty(n * -(-n // 64), device=device)
                constants = launch.constants | {"ROWS": down, "COLS": across}
                options = {"num_warps": warps, "num_stages": stages}
                grid = (-(-size // down) * -(-size // across),)
                what = f"{name} {dtype} {down}x{across} warps={warps} stages={stages}"
                changed = replace(launch, grid=grid, args=args, constants=constants, options=options)
                yield what, changed, 0, 2 * size * size * D


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m semimedref_kernels.benchmark.session", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of records, lines and logs; created if missing")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all phases")
    parser.add_argument("--dry", action="store_true", help="a small test on a CPU")
    parser.add_argument("--phase", choices=["correct", "choices"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.dry and not torch.cuda.is_available():
        raise SystemExit("no GPU found; use --dry for a small test on a CPU")
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.phase:
        {"correct": correct, "choices": choices}[args.phase](
            args.folder, torch.device("cpu" if args.dry else "cuda"), args.dry
        )  # fmt: skip
        return 0
    ended = run_phases(args.folder, args.budget, args.dry)
    record = joined(args.folder)
    if record:
        write(record, args.folder / "record.json")
        print(table(record))
    return int(any(how != "done" for how in ended.values()))


if __name__ == "__main__":
    raise SystemExit(main())
