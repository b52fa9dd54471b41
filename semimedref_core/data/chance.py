"""Random generators: each use has its own, with a key of a tag and numbers, so that no two are the same.

NumPy pads a short key with zeros: ``default_rng([1, 2])`` and ``default_rng([1, 2, 0])`` are the same. So our key
contains the tag and ends with the number of its numbers.
"""

from __future__ import annotations

import zlib

import numpy as np


def source(use: str, *numbers: int) -> np.random.Generator:
    """The random generator of a use. The same arguments give the same draws on every machine.

    Args:
        use: a tag for the use, such as ``"batch"``.
        numbers: distinguish generators of the same use, for example seed, step and rank; 0 to 2^32 - 1 each.

    Raises:
        ValueError: if a number is negative.

    >>> source("batch", 0, 7).integers(100, size=3).tolist() == source("batch", 0, 7).integers(100, size=3).tolist()
    True
    """
    return np.random.default_rng(_key(use, numbers))


def torch_seed(use: str, *numbers: int) -> int:
    """A seed for ``torch.manual_seed``, 0 to 2^63 - 1; the arguments are those of :func:`source`."""
    return int(np.random.SeedSequence(_key(use, numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _key(use: str, numbers: tuple[int, ...]) -> list[int]:
    return [zlib.crc32(use.encode()), *numbers, len(numbers)]
