"""From a case to its rows: first checks that each form is right, then measures its time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from semimedref_kernels.benchmark.cases import DTYPES, OURS, Case, Form, work
from semimedref_kernels.benchmark.machine import copy_rate
from semimedref_kernels.benchmark.record import Row, matrix_ceiling, significant
from semimedref_kernels.benchmark.timing import Run, Timer

PARTS = ("forward", "backward", "both")


def rows(case: Case, timer: Timer, ceilings: dict[str, Any]) -> list[Row]:
    """A row for each form and pass. The status says if a form does not fit into memory or cannot be compiled."""
    todo = work(case.op, case.sizes, DTYPES[case.dtype].itemsize)
    errors, failures = check(case, timer)
    found, copies = {}, {}
    for part in PARTS:
        limit = case.limits[part != "forward"]
        if case.op == "patch_mix":
            copies[part] = copy_rate(timer, todo[part][0])
        for name in case.forms:
            error = max(errors[name][: 1 if part == "forward" else 2]) if name in errors else None
            status = failures.get(name) or ("ok" if error <= limit else "wrong")
            error = significant(error) if error is not None and math.isfinite(error) else None
            moved, done = todo[part]
            what = case.op, case.sizes, case.dtype, name, part, status, error, significant(limit)
            found[name, part] = Row(*what, bytes=moved, operations=done, copy=copies.get(part))
        measure({name: run_of(case, case.forms[name], part) for name in errors}, part, found, timer)
        for name in case.forms:
            relate(found[name, part], found[OURS, part], ceilings)
    timer.clean()
    return [found[name, part] for name in case.forms for part in PARTS]


def check(case: Case, timer: Timer) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Form -> errors of outputs and gradients, and form -> reason if there are none."""
    wide = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in case.inputs)
    expected = solution(case, case.reference, wide)
    errors, failures = {}, {}
    for name, form in case.forms.items():
        free, needed = timer.free_bytes(), case.needs.get(name, 0)
        if needed > free:
            failures[name] = f"skipped: needs at least {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free"
            continue
        found, failure = attempt(lambda form=form: solution(case, form, case.inputs))
        if failure:
            failures[name] = failure
        else:
            errors[name] = tuple(largest_error(*pair) for pair in zip(found, expected, strict=True))
        del found
        timer.clean()
    return errors, failures


def solution(case: Case, form: Form, inputs: tuple) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Outputs and gradients of a form."""
    outputs, leaves = forward(case, form, inputs)
    return tuple(x.detach() for x in outputs), backward(case, outputs, leaves)


def forward(case: Case, form: Form, inputs: tuple) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Outputs, and the inputs that get gradients. These are new leaves, so that a CUDA graph has no leaves of another
    stream."""
    leaves = [x.detach().requires_grad_() for x in inputs[: case.differentiated]]
    return form(*leaves, *inputs[case.differentiated :]), leaves


def backward(case: Case, outputs: tuple[Tensor, ...], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    given = [grad.to(x.dtype) for grad, x in zip(case.upstream, outputs, strict=False)]
    return torch.autograd.grad(outputs[: len(given)], leaves, given)


def largest_error(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest difference, relative to the largest value of its tensor; infinity for NaN and for other flags."""
    worst = 0.0
    for mine, reference in zip(found, expected, strict=True):
        if reference.dtype == torch.bool:
            error = 0.0 if torch.equal(mine, reference) else math.inf
        else:
            error = ((mine.double() - reference).abs().max() / reference.abs().max()).item()
        worst = max(worst, math.inf if math.isnan(error) else error)
    return worst


def run_of(case: Case, form: Form, part: str) -> Run:
    if part == "forward":
        return Run(lambda _: forward(case, form, case.inputs))
    if part == "backward":
        return Run(lambda state: backward(case, *state), lambda: forward(case, form, case.inputs))
    return Run(lambda _: backward(case, *forward(case, form, case.inputs)))


def measure(runs: dict[str, Run], part: str, found: dict[tuple[str, str], Row], timer: Timer) -> None:
    """Fills in times and memory. Graphs come last, because they hold their memory while they exist."""
    for name in list(runs):
        row = found[name, part]
        row.peak_bytes, failure = attempt(lambda name=name: timer.peak_bytes(runs[name]))
        if failure:
            row.status = failure
            del runs[name]
    for name, times in timer.in_turn(runs).items():
        found[name, part].ms = rounded(asdict(times))
    graphs = {}
    for name, run in runs.items():
        graph, found[name, part].graph_note = attempt(lambda run=run: timer.captured(run), RuntimeError)
        if graph:
            graphs[name] = graph
    for name, times in timer.in_turn(graphs).items():
        found[name, part].graph_ms = rounded(asdict(times))
    graphs.clear()
    timer.clean()


def attempt(action: Callable[[], Any], also: type[Exception] | tuple = ()) -> tuple[Any, str | None]:
    """The result of an action, or the reason of its failure: no memory, no compiler, or one of the exceptions in
    ``also``."""
    also = also if isinstance(also, tuple) else (also,)
    try:
        return action(), None
    except (torch.OutOfMemoryError, MemoryError):
        return None, "out of memory"
    except (torch._dynamo.exc.TorchDynamoException, *also) as error:
        first = " ".join(str(error).split())[:160]
        return None, f"{type(error).__name__}: {first}"


def relate(row: Row, ours: Row, ceilings: dict[str, Any]) -> None:
    """Adds the ratios to ours, and the share of the ceiling."""
    if row.ms is None:
        return
    if ours.ms:
        row.ratio = significant(row.ms["median"] / ours.ms["median"])
    if row.graph_ms and ours.graph_ms:
        row.graph_ratio = significant(row.graph_ms["median"] / ours.graph_ms["median"])
    seconds = (row.graph_ms or row.ms)["median"] / 1e3
    if row.op == "patch_mix":
        row.share = significant(row.bytes / seconds / row.copy)
    else:
        row.share = significant(row.operations / seconds / matrix_ceiling(ceilings, row.dtype))


def rounded(times: dict[str, float]) -> dict[str, float]:
    return {name: value if isinstance(value, int) else significant(value) for name, value in times.items()}
