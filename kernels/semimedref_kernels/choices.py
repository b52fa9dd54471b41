"""The sizes of the kernels' tiles on a device: built in, or chosen by ``semimedref_kernels.benchmark.tune``.

The built-in sizes are defined beside the kernels. Without a table every device uses them, so results can be reproduced.
A table is one JSON file for the name of a device and a version of the kernels. Only that command writes it; a training
never measures tiles. Other tiles add in another order, so last digits may differ from those of the built-in sizes. With
the same table, two runs give the same bits.

The environment variable ``SEMIMEDREF_KERNELS_CACHE`` names the folder of the tables, by default
``~/.cache/semimedref_kernels``. If it is empty, the kernels use the built-in sizes.
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
"""Constant of the kernel -> its size, and compiler options. Missing entries have their built-in values."""
Table = Mapping[str, Choice]
"""Kernel -> choice. Missing kernels use their built-in sizes."""

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
"""The alternatives to the built-in sizes. All of them compile for sm_90 without spills. Three others are left out
because they spill: pushes in tiles of 128 x 256, small_forward of 64 rows with 4 warps, and returned_kernel of 2048
pixels with 8 warps."""

_SOURCES = "patch_mix_triton", "soft_contrastive_tiles", "soft_contrastive_small", "soft_contrastive_triton", "choices"
_FOLDER = "SEMIMEDREF_KERNELS_CACHE"
_read: dict[torch.device | str, Table] = {}


def choice(kernel: str, like: Tensor, table: Table | None = None, rows: int | None = None) -> Choice:
    """The choice for a kernel; empty for the built-in sizes.

    Args:
        kernel: the name of the kernel.
        like: a tensor with the kernel's input type, on its device.
        table: use this table instead of the device's.
        rows: the number of rows, for kernels that hold all rows at once.
    """
    table = in_use(like.device) if table is None else table
    return table.get(name_of(kernel, like.dtype, rows), {}) if table else {}


def name_of(kernel: str, dtype: torch.dtype, rows: int | None = None) -> str:
    """The name of a kernel in a table."""
    return f"{kernel} {8 * dtype.itemsize} bit" + (f" {rows} rows" if rows else "")


def options_of(choice: Choice) -> dict[str, int]:
    """The compiler options of a choice."""
    return {name: choice[name] for name in ("num_warps", "num_stages") if name in choice}


def in_use(device: torch.device | str) -> Table:
    """The choices that this process uses on a device. The first call reads the device's table, if there is one.

    Raises:
        ValueError: if the file is not a table of these kernels; the message names the file.
    """
    if device not in _read:
        path = path_of(torch.cuda.get_device_name(device)) if torch.device(device).type == "cuda" else None
        _read[device] = read(path) if path and path.is_file() else {}
    return _read[device]


def path_of(device: str, folder: Path | None = None) -> Path | None:
    """The path of a device's table, or None if the environment variable is empty.

    Args:
        device: the name of the device.
        folder: use this folder instead of the usual one.
    """
    if folder is None:
        named = os.environ.get(_FOLDER)
        if named == "":
            return None
        folder = Path(named).expanduser() if named else Path.home() / ".cache" / "semimedref_kernels"
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{version()}.json"


def version() -> str:
    """A hash (16 hex digits) of the kernels' sources and Triton's version, which decide how fast a choice is."""
    import triton  # takes a second, and a CPU does not need it

    digest = blake2b(triton.__version__.encode(), digest_size=8)
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()


def read(path: Path) -> Table:
    """The choices of a table.

    Raises:
        ValueError: if the file is not a table, or a choice is not a candidate.
    """
    cure = "delete it, or make it anew: python -m semimedref_kernels.benchmark.tune"
    try:
        chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]
        wrong = [name for name, each in chosen.items() if each not in CANDIDATES.get(name, ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a table of tiles ({type(error).__name__}: {error}); {cure}") from error
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} must be one of its candidates, got {chosen[wrong[0]]}; {cure}")
    return chosen
