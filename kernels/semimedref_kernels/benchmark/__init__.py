"""Times the two operations against other implementations: ``python -m semimedref_kernels.benchmark``.

It first checks every form against float64, then times forward, backward and both, with the candidates in turn. On a GPU
it uses CUDA events with a cold L2 cache, and CUDA graphs. On a CPU it times the plain forms and says so. The result is
one JSON file (:func:`read`), which can be shown as text (:func:`table`) and as a picture (:func:`roofline`).
:mod:`semimedref_kernels.benchmark.cases` defines the work of each case.
"""

from semimedref_kernels.benchmark.figure import roofline
from semimedref_kernels.benchmark.record import against_best, read, table

__all__ = ["against_best", "read", "roofline", "table"]
