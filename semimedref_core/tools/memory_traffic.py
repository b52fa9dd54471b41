"""Measures the memory that operations and kernels read, write and hold: PyTorch's with a dispatch mode, Triton's with
its interpreter."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(TorchDispatchMode):
    """Sums the bytes that PyTorch's operations read and write in its body, and the memory that they hold.

    Tensors on the device ``meta`` have shapes but no memory, so it can count work that is too large for this machine.
    Views move nothing. A gather reads as many numbers as it returns. Overwritten memory is not read, nor is a tensor
    that only gives its shape. A broadcast tensor has the size of its memory. ``x[indices] = values`` writes as many
    numbers as there are values, even if they are repeated; other operations in place write all of their tensor. A
    custom operation counts as one.

    Attributes:
        operations: number of operations that move data.
        read, written: bytes that were read and written.
        held, peak: bytes of the living tensors that were made in the body: now, and at the peak.

    >>> import torch
    >>> from semimedref_core.tools import Meter
    >>> numbers = torch.zeros(100)
    >>> with Meter() as meter:
    ...     doubled = 2 * numbers
    >>> meter.operations, meter.read, meter.written, meter.peak
    (1, 400, 400, 400)
    """

    operations = read = written = held = peak = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        ins, outs = ([x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in ((args, kwargs), out))
        old = {x.untyped_storage()._cdata for x in ins}
        for storage in {x.untyped_storage() for x in outs}:
            if storage._cdata not in old:
                self._hold(storage.nbytes())
                weakref.finalize(storage, self._hold, -storage.nbytes())
        read, written = _read_and_written(op, ins, outs)
        self.operations += bool(read or written)
        self.read, self.written = self.read + _nbytes(read), self.written + _nbytes(written)
        return out

    def _hold(self, nbytes: int) -> None:
        self.held += nbytes
        self.peak = max(self.peak, self.held)


def _read_and_written(op, ins: list[Tensor], outs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    name = op.overloadpacket.__name__
    if op.is_view or "empty" in name or name == "_unsafe_view":
        return [], []
    if name in ("index", "index_select", "gather", "take", "embedding"):
        return [*outs, *ins[1:]], outs
    if name.startswith("new_") or name.endswith("_like"):
        return [], outs
    if name == "index_put_":
        return ins[1:], ins[-1:]
    random = torch.Tag.nondeterministic_seeded in op.tags
    if name in ("copy_", "fill_", "zero_") or (random and name.endswith("_")):
        return ins[1:], outs
    if any(argument.is_out for argument in op._schema.arguments):  # they are the last arguments
        return ins[: -len(outs)], outs
    return ins, outs


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in tensors)


@dataclass(frozen=True)
class Access:
    """One load or store of one program of a kernel.

    Attributes:
        program: index of the program on the three axes of the grid.
        kind: ``load`` or ``store``.
        nbytes: bytes of one number.
        addresses: ``[k]`` uint64, addresses of the numbers that are not masked.
    """

    program: tuple[int, int, int]
    kind: Literal["load", "store"]
    nbytes: int
    addresses: np.ndarray

    def inside(self, x: Tensor) -> np.ndarray:
        """The indices ``[k]`` of the numbers of a contiguous tensor that it touches; other memory is ignored."""
        places = (self.addresses.astype(np.int64) - x.data_ptr()) // x.element_size()
        return places[(places >= 0) & (places < x.numel())]


@contextmanager
def listening() -> Iterator[list[Access]]:
    """Yields a list that gets every load and store of the kernels in its body, in Triton's interpreter.

    The interpreter runs the programs one after the other in NumPy. Two functions do all loads and stores, and we
    replace them here. Kernels are interpreted if ``TRITON_INTERPRET`` is 1 at their import.

    Raises:
        ImportError: without Triton.
    """
    from triton.runtime.interpreter import interpreter_builder as machine

    log, load, store = [], machine.create_masked_load, machine.create_masked_store

    def note(kind, pointers, mask):
        nbytes = -(-pointers.get_element_ty().primitive_bitwidth // 8)  # a flag of 1 bit takes a byte
        log.append(Access(tuple(machine.grid_idx), kind, nbytes, pointers.data[mask.data]))

    def loading(pointers, mask, *rest):
        note("load", pointers, mask)
        return load(pointers, mask, *rest)

    def storing(pointers, value, mask, *rest):
        note("store", pointers, mask)
        return store(pointers, value, mask, *rest)

    machine.create_masked_load, machine.create_masked_store = loading, storing
    try:
        yield log
    finally:
        machine.create_masked_load, machine.create_masked_store = load, store


def bytes_moved(log: Sequence[Access], kind: Literal["load", "store"], once: bool = False) -> int:
    """The number of bytes that were loaded or stored. With ``once``, each address counts once, as with a perfect
    cache."""
    chosen = [access for access in log if access.kind == kind]
    if not once:
        return sum(access.nbytes * len(access.addresses) for access in chosen)
    widths = {access.nbytes for access in chosen}
    return sum(
        width * len(np.unique(np.concatenate([access.addresses for access in chosen if access.nbytes == width])))
        for width in widths
    )
