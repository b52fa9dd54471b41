"""Notebook 09: kernels."""

from __future__ import annotations

import math

import torch

from semimedref_core.teaching.answers import about
from semimedref_core.tools.memory_traffic import listening

NUMBERS = 32 * (3 + 1) * 224 * 224  # numbers of 32 images with three channels, and of their maps
PICTURE = torch.zeros(9, 12)  # the notebook's 8 rows, and one row of the memory behind them
PICTURE[3:6, :3] = 1
BLOCK = 16
BANDWIDTH, ROOF = 3.35e12, 989e12  # of an H100: bytes a second, and operations a second in bf16


def least_megabytes(answer) -> str:
    right = 2 * 4 * NUMBERS / 1e6
    hint = (
        "Count the numbers of images and maps, and the bytes of a float32. Which of them are read, and which written?"
    )
    if not about(answer, right / 2, 0.5, hint):
        hint = "This is one way only: either what is read, or what is written."
    elif not about(answer, right * 3 / 4, 0.5, hint):
        hint = "This is only the traffic of the images. What else is mixed?"
    elif not about(answer, right * 1e6, 1e5, hint):
        hint = "These are bytes. The question asks for MB."
    return about(answer, right, 0.5, hint)


def log_sum_exp(answer) -> str:
    x = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))[:5]  # we own the memory behind its end, too
    with listening() as log:
        found = answer(x)
    if not any(access.kind == "load" and len(access.inside(x)) for access in log):
        return "No kernel has read x. Launch your own kernel, with a program for each row."
    if not isinstance(found, torch.Tensor) or found.shape != (len(x),):
        return "The function must return one number for each row, a tensor [N]."
    right, padded = x.logsumexp(1), 32 - x.shape[1]  # the block is the next power of two
    if torch.allclose(found, right, rtol=1e-5, atol=1e-5):
        large = answer(200 + x)
        hint = "It is right for small numbers. But float32 ends at e^88, and here numbers are near 200. What can you"
        return "" if torch.allclose(large, 200 + right, rtol=1e-5) else f"{hint} take away before, and add after?"
    if torch.allclose(found, (right.exp() + padded).log(), rtol=1e-5, atol=1e-5):
        return "Each masked number counts as one. What must `other` be, so that its exponential counts as nothing?"
    if torch.allclose(found, right.exp(), rtol=1e-4):
        return "This is the sum. Its logarithm is missing."
    return "These are not the logarithms of the rows' sums of exponentials."


def wrong_rows(answer) -> str:
    rows, columns = len(PICTURE) - 1, PICTURE.shape[1]
    line = PICTURE.flatten()
    sums = [line[start : start + BLOCK].sum() for start in range(0, rows * columns, columns)]
    right = [row for row in range(rows) if not math.isclose(sums[row], PICTURE[row].sum())]
    named = sorted({int(row) for row in answer})
    if named == right:
        return ""
    missing, more = len(set(right) - set(named)), len(set(named) - set(right))
    return (
        f"{missing} wrong rows are missing, and {more} of yours are right. "
        f"A program now reads {BLOCK} numbers. Which numbers are the last {BLOCK - columns}?"
    )


def operations_a_byte(answer) -> str:
    right = ROOF / BANDWIDTH
    hint = "The kernel is at the corner of its roof where the time of its bytes equals the time of its operations."
    if not about(answer, 67e12 / BANDWIDTH, 0.6, hint):
        hint = "This is the corner of plain float32. The question is about bf16."
    elif not about(answer, 1 / right, 1e-3, hint):
        hint = "These are bytes for each operation. Turn it round."
    return about(answer, right, 1, hint)


EXERCISES = {"09.1": least_megabytes, "09.2": log_sum_exp, "09.3": wrong_rows, "09.4": operations_a_byte}
