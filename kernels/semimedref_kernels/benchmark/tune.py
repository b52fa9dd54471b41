"""Measures other tile sizes than the built-in ones on this GPU, and writes the faster ones to a table.

The command is ``python -m semimedref_kernels.benchmark.tune``. Programs that start afterwards use the table on this
device (:mod:`semimedref_kernels.choices`). The command takes a minute or two, mostly for the compiler. It writes the
result of each kernel at once, so you may stop it. ``--show`` prints the sizes in use. ``--dry`` is a small test on a
CPU, with the kernels in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from semimedref_kernels.benchmark.cases import DTYPES, patch_mix_case
from semimedref_kernels.benchmark.timing import CudaTimer, Run, Timer
from semimedref_kernels.choices import CANDIDATES, Choice, Table, in_use, name_of, path_of, read, version
from semimedref_kernels.launch import Launch

MARGIN = 0.97
"""A choice replaces the built-in size only if it takes at most this share of its time. The rest is noise."""
TOLERANCE = 1e-2  # for bfloat16 tiles, which add in another order


@dataclass(frozen=True)
class Job:
    """The measurement of one kernel.

    Attributes:
        name: the name of the kernel in a table.
        make: from a table to the launch and its results. It runs all launches before it too.
        moved, done: bytes and operations of the launch.
    """

    name: str
    make: Callable[[Table], tuple[Launch, list[Tensor]]]
    moved: int = 0
    done: int = 0


def jobs(device: torch.device, dry: bool) -> Iterator[Job]:
    """All kernels with candidates at a usual size, and the other forward launches of the loss of many pairs."""
    for dtype in DTYPES:
        yield from _of_patch_mix(device, dtype, *((2, 32) if dry else (32, 224)))
    for dtype in DTYPES.values():
        for n in (32, 64):
            yield from _of_small(embeddings(n, n, 64 if dry else 768, dtype, device))
        n, D = (128, 32) if dry else (16384 if dtype == torch.bfloat16 else 8192, 256)
        yield from _of_large(embeddings(n, n, D, dtype, device))


def _of_patch_mix(device: torch.device, dtype: str, batch: int, side: int) -> Iterator[Job]:
    from semimedref_kernels.patch_mix_triton import mix_launch, returned_launch

    images, probs, *about = patch_mix_case(batch, side, side // 3, dtype, device).inputs

    def forward(table: Table) -> tuple[Launch, list[Tensor]]:
        launch, found = mix_launch(images, probs, *about, table)
        launch.run()
        return launch, [*found]

    def backward(table: Table) -> tuple[Launch, list[Tensor]]:
        launch, found = returned_launch(images, probs, *about[:2], accepted, table)
        launch.run()
        return launch, [*found]

    moved = 2 * (images.nbytes + probs.nbytes)
    yield Job(name_of("mix_kernel", images.dtype), forward, moved)
    accepted = forward({})[1][2]
    yield Job(name_of("returned_kernel", images.dtype), backward, moved)


def _of_small(inputs: tuple[Tensor, ...]) -> Iterator[Job]:
    from semimedref_kernels import soft_contrastive_small as small
    from semimedref_kernels.soft_contrastive_plain import shares_of
    from semimedref_kernels.soft_contrastive_tiles import exact

    u, v, codes, codes_v = inputs
    n, one = len(u), torch.ones((), device=u.device)

    def make(kernel: str, table: Table) -> tuple[Launch, list[Tensor]]:
        grads = torch.empty_like(u), torch.empty_like(v)
        about = codes, codes_v, 0.07, True, 0, shares_of(n, n, False)
        launches, loss, kept = small.forward_launches(u, v, *about, exact(), table)
        launches.append(small.backward_launch(one, u, v, kept, True, *grads, exact(), table))
        return _run(launches)[kernel], [loss, *grads]

    kernels = ["small_products", "small_backward"]
    if u.dtype == torch.float32:  # it reads float32 for both input types
        kernels.append("small_forward")
    for kernel in kernels:
        yield Job(name_of(kernel, u.dtype, n), partial(make, kernel))


def _of_large(inputs: tuple[Tensor, ...]) -> Iterator[Job]:
    from semimedref_kernels.soft_contrastive_tiles import exact
    from semimedref_kernels.soft_contrastive_triton import Large, kept_size

    u = inputs[0]
    n, D = u.shape
    rows = slice(0, min(n, 4096))
    kept = torch.empty(kept_size(n, n, D), device=u.device)

    def of(table: Table) -> Large:
        return Large(*inputs, 0.07, True, 0, False, exact(), table)

    def sums(table: Table) -> tuple[Launch, list[Tensor]]:
        launches, _ = of(table).forward(torch.empty_like(kept))
        launch = _run([each for each in launches if each.kernel.__name__ in ("unit_kernel", "sums_of_exp")])[
            "sums_of_exp"
        ]
        return launch, [launch.args[name].view(-1, n).sum(0) for name in ("row_parts", "column_parts")]

    def push(table: Table) -> tuple[Launch, list[Tensor]]:
        large = of(table)
        launch, block = large.push(kept, rows, rows, u.new_empty(rows.stop**2))
        _run([*large.unit(), launch])
        return launch, [block]

    built_in = _run(of({}).forward(kept)[0])  # fills the tensor for backward
    for name, launch in built_in.items():
        if name != "sums_of_exp":
            yield Job(name_of(name, u.dtype), lambda _, launch=launch: (launch, []))
    yield Job(name_of("sums_of_exp", u.dtype), sums, done=2 * n * n * D)
    yield Job(name_of("pushes", u.dtype), push, done=2 * rows.stop**2 * D)


def _run(launches: list[Launch]) -> dict[str, Launch]:
    """Runs all launches in order; returns them by name."""
    for launch in launches:
        launch.run()
    return {launch.kernel.__name__: launch for launch in launches}


def embeddings(n: int, m: int, D: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Random u ``[n, D]`` and v ``[m, D]``, and codes of both."""
    random = torch.Generator().manual_seed(n + m)
    u, v = (torch.randn(size, D, generator=random).to(device, dtype) for size in (n, m))
    codes, codes_v = (torch.randint(0, 64, (size,), generator=random).to(device) for size in (n, m))
    return u, v, codes, codes_v


def measured(job: Job, timer: Timer, most: int | None = None) -> list[dict]:
    """Each choice of a job with its median time; the built-in one comes first.

    Args:
        job: the kernel.
        timer: measures all choices in turn.
        most: largest number of candidates; all if None.

    Returns:
        For each choice ``choice``, and either ``ms`` and rates, or the reason why it ``failed``. A choice fails if it
        does not compile, does not fit or gives other results. The others are still measured.
    """
    import triton

    rows, runs = [], {}
    _, expected = job.make({})
    for chosen in ({}, *CANDIDATES.get(job.name, ())[:most]):
        row = {"choice": dict(chosen)}
        rows.append(row)
        try:
            launch, found = job.make({job.name: chosen})
            if not all(_near(x, y) for x, y in zip(found, expected, strict=True)):
                row["failed"] = "other numbers than the built-in one"
                continue
            run = Run(lambda _, launch=launch: launch.run())
            runs[len(rows) - 1] = timer.captured(run) or run
        except (RuntimeError, triton.errors.TritonError) as error:
            row["failed"] = f"{type(error).__name__}: {str(error)[:160]}"
    for number, times in timer.in_turn(runs).items():
        rates = {"TB_per_s": job.moved / times.median / 1e9, "TFLOP_per_s": job.done / times.median / 1e9}
        rows[number] |= {"ms": times.median} | {name: rate for name, rate in rates.items() if rate}
    return rows


def _near(x: Tensor, y: Tensor) -> bool:
    x, y = x.double(), y.double()
    return bool((x - y).norm() <= TOLERANCE * y.norm())


def best(rows: list[dict]) -> Choice:
    """The fastest choice, or ``{}``, the built-in one, if no other is clearly faster."""
    times = [(row["ms"], number) for number, row in enumerate(rows) if "ms" in row]
    if not times or (rows[0].get("ms") is not None and min(times)[0] > MARGIN * rows[0]["ms"]):
        return {}
    return rows[min(times)[1]]["choice"]


def tune(path: Path, device: torch.device, dry: bool) -> None:
    """Measures all jobs and writes the table after each one. Entries of other kernels stay in the file."""
    timer = Timer(seconds=0, least=1) if dry else CudaTimer(seconds=0.1)
    table = {"chosen": {}, "measured": {}}
    if path.is_file():
        read(path)
        table = json.loads(path.read_text(encoding="utf-8"))
    for job in jobs(device, dry):
        rows = measured(job, timer, 1 if dry else None)
        table["measured"][job.name] = rows
        table["chosen"].pop(job.name, None)
        if chosen := best(rows):
            table["chosen"][job.name] = chosen
        _write(path, table)
        print(job.name, chosen or "as built in", json.dumps(rows), flush=True)


def _write(path: Path, table: dict) -> None:
    """Replaces the file in one step, so it is never half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial_file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    os.replace(partial_file, path)


def show(device: torch.device) -> str:
    """The sizes in use on a device, one line for each kernel."""
    table = in_use(device)
    return "\n".join(f"{name:32} {table.get(name) or 'as built in'}" for name in CANDIDATES)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m semimedref_kernels.benchmark.tune", description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder of the table; by default the one that the kernels read")
    parser.add_argument("--show", action="store_true", help="only print the sizes in use")
    parser.add_argument("--dry", action="store_true", help="a small test on a CPU; needs --folder")
    args = parser.parse_args(argv)
    if importlib.util.find_spec("triton") is None:
        raise SystemExit("this measures Triton's kernels, and Triton is not installed: pip install triton")
    device = torch.device("cpu" if args.dry or not torch.cuda.is_available() else "cuda")
    if args.show:
        print(show(device))
        return 0
    if device.type == "cpu" and not (args.dry and args.folder):
        raise SystemExit("no GPU here; --dry --folder FOLDER is a small test on a CPU")
    if args.dry:
        os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported
    path = path_of("cpu" if args.dry else torch.cuda.get_device_name(device), args.folder)
    if path is None:
        raise SystemExit("SEMIMEDREF_KERNELS_CACHE is empty, so no table is read; set it, or name a --folder")
    print(f"kernels of version {version()}: {path}", flush=True)
    tune(path, device, args.dry)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
