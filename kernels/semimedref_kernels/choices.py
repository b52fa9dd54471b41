"""How large the kernels' tiles are on a device: as built in, or as ``semimedref_kernels.benchmark.tune`` found best.

What is built in stands beside the kernels and is taken wherever there is no table, so numbers are the same everywhere
and can be made again. A table is one JSON file for a device's name and a version of the kernels. It is written by that
command alone: nothing is measured while one trains. With other tiles sums have another order, so last digits may
differ from the built-in ones; with one table two runs still give the same bits.

Tables lie in ``$SEMIMEDREF_KERNELS_CACHE``, by default ``~/.cache/semimedref_kernels``. Set to nothing, the variable
makes all be as built in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

Choice = Mapping[str, int]
"""Sizes by the name of the kernel's constant, and compiler options; what it leaves out is as built in."""
Table = Mapping[str, Choice]
"""By kernel; a kernel that it leaves out is as built in."""

_PIXELS_32 = {"BLOCK": 2048, "num_warps": 4}, {"BLOCK": 2048, "num_warps": 8}, {"BLOCK": 8192, "num_warps": 8}
_PIXELS_16 = {"BLOCK": 2048, "num_warps": 4}, {"BLOCK": 4096, "num_warps": 8}, {"BLOCK": 8192, "num_warps": 8}
_FEW = {"CHUNK": 64, "num_warps": 4}, {"CHUNK": 32, "num_warps": 8}
_MORE = {"CHUNK": 64, "num_warps": 8}, {"CHUNK": 32, "num_warps": 4}
_TILES_32 = {"ROWS": 64, "COLS": 64, "num_warps": 4}, {"ROWS": 128, "COLS": 64, "num_warps": 8}
_TILES_16 = {"ROWS": 64, "COLS": 128, "num_warps": 4}, {"ROWS": 128, "COLS": 128, "num_warps": 8, "num_stages": 4}
CANDIDATES: dict[str, tuple[Choice, ...]] = {
    "mix_kernel 32 bit": _PIXELS_32,
    "mix_kernel 16 bit": _PIXELS_16,
    "returned_kernel 32 bit": (_PIXELS_32[0], _PIXELS_32[2]),
    "returned_kernel 16 bit": _PIXELS_16,
    "small_products 32 bit 32 rows": _FEW,
    "small_products 16 bit 32 rows": _FEW,
    "small_products 32 bit 64 rows": _MORE,
    "small_products 16 bit 64 rows": _MORE,
    "small_forward 32 bit 32 rows": ({"num_warps": 8},),
    "small_backward 32 bit 32 rows": _FEW,
    "small_backward 16 bit 32 rows": _FEW,
    "small_backward 32 bit 64 rows": _MORE,
    "small_backward 16 bit 64 rows": _MORE,
    "sums_of_exp 32 bit": _TILES_32,
    "sums_of_exp 16 bit": (*_TILES_16, *({"ROWS": r, "COLS": c, "num_warps": 8} for r, c in ((128, 256), (256, 128)))),
    "pushes 32 bit": _TILES_32,
    "pushes 16 bit": _TILES_16,
}
"""What may be chosen in place of what is built in. All of it compiles for sm_90 without spills. What is missing would
spill: pushes in tiles of 128 x 256, small_forward of 64 rows with 4 warps, returned_kernel of 2048 pixels with 8."""

_SOURCES = "patch_mix_triton", "soft_contrastive_tiles", "soft_contrastive_small", "soft_contrastive_triton", "choices"
_FOLDER = "SEMIMEDREF_KERNELS_CACHE"
_read: dict[torch.device | str, Table] = {}


def choice(kernel: str, like: Tensor, table: Table | None = None, rows: int | None = None) -> Choice:
    """What is chosen for a kernel; empty if all is as built in.

    Args:
        kernel: its name.
        like: of the type that the kernel reads, on the device that runs it.
        table: in place of the device's.
        rows: of kernels that hold all rows at once, how many.
    """
    table = in_use(like.device) if table is None else table
    return table.get(name_of(kernel, like.dtype, rows), {}) if table else {}


def name_of(kernel: str, dtype: torch.dtype, rows: int | None = None) -> str:
    """How a table names a kernel."""
    return f"{kernel} {8 * dtype.itemsize} bit" + (f" {rows} rows" if rows else "")


def options_of(choice: Choice) -> dict[str, int]:
    """Those of a choice that the compiler takes."""
    return {name: choice[name] for name in ("num_warps", "num_stages") if name in choice}


def in_use(device: torch.device | str) -> Table:
    """The choices that a device's kernels take in this process: read once, from the device's table if there is one.

    Raises:
        ValueError: if the file is no table of these kernels; the message names it.
    """
    if device not in _read:
        path = path_of(torch.cuda.get_device_name(device)) if torch.device(device).type == "cuda" else None
        _read[device] = read(path) if path and path.is_file() else {}
    return _read[device]


def path_of(device: str, folder: Path | None = None) -> Path | None:
    """Where the table of a device lies, by the device's name; None if nowhere.

    Args:
        device: its name.
        folder: in place of the usual one.
    """
    if folder is None:
        named = os.environ.get(_FOLDER)
        if named == "":
            return None
        folder = Path(named).expanduser() if named else Path.home() / ".cache" / "semimedref_kernels"
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{version()}.json"


def version() -> str:
    """16 hex digits of all that decides how fast a choice is: the kernels' sources and Triton's version."""
    import triton  # which takes a second, and no CPU needs it

    digest = blake2b(triton.__version__.encode(), digest_size=8)
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def read(path: Path) -> Table:
    """The choices of a table.

    Raises:
        ValueError: if it is none, or a choice is none of the candidates.
    """
    cure = "delete it, or make it anew: python -m semimedref_kernels.benchmark.tune"
    try:
        chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]
        wrong = [name for name, each in chosen.items() if each not in CANDIDATES.get(name, ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no table of tiles ({type(error).__name__}: {error}); {cure}") from error
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} must be one of its candidates, got {chosen[wrong[0]]}; {cure}")
    return chosen
