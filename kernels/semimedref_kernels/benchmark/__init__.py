"""Times of the two operations against what one would write without them: ``python -m semimedref_kernels.benchmark``.

It checks every form against float64 first, then times forward, backward and both, candidates in turn: on a GPU by CUDA
events with a cold L2 cache, and from a CUDA graph; on a CPU the plain forms, and says so. What it found is one JSON
(:func:`read`), which can be read as text (:func:`table`) and seen as a picture (:func:`roofline`).
What counts as work is written down in :mod:`semimedref_kernels.benchmark.cases`.
"""

from semimedref_kernels.benchmark.figure import roofline
from semimedref_kernels.benchmark.record import against_best, read, table

__all__ = ["against_best", "read", "roofline", "table"]
