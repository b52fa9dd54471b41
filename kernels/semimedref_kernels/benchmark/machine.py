"""The machine of a record: its description and its measured ceilings."""

from __future__ import annotations

import datetime
import math
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from semimedref_kernels.benchmark.cases import DTYPES
from semimedref_kernels.benchmark.record import significant
from semimedref_kernels.benchmark.timing import Run, Timer
from semimedref_kernels.choices import in_use


def measured_ceilings(timer: Timer) -> dict[str, Any]:
    """The rates of this machine with large tensors: ``copy``, bytes read and written per second; ``matrix``, type ->
    operations per second of a square product, with TF32 as a separate type."""
    names = ("fp32", "tf32", "bf16") if timer.device.type == "cuda" else ("fp32",)
    return {"copy": copy_rate(timer), "matrix": {name: matrix_rate(timer, name) for name in names}}


def copy_rate(timer: Timer, moved: int | None = None) -> float:
    """Bytes per second of a copy that moves ``moved`` bytes, half of them read and half written. By default it moves
    far more than caches hold."""
    most = 2**30 if timer.device.type == "cuda" else 2**27
    size = int(min(most, timer.free_bytes() / 8)) if moved is None else moved // 2
    source = torch.zeros(size, dtype=torch.int8, device=timer.device)
    target = torch.empty_like(source)
    return significant(2 * source.numel() / seconds(timer, lambda: target.copy_(source)))


def matrix_rate(timer: Timer, name: str) -> float:
    n = int(min(8192 if timer.device.type == "cuda" else 1024, math.sqrt(timer.free_bytes() / 32)))
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    a, b = (torch.randn(n, n, device=timer.device).to(DTYPES.get(name, torch.float32)) for _ in range(2))
    product = torch.empty_like(a)
    try:
        return significant(2 * n**3 / seconds(timer, lambda: torch.mm(a, b, out=product)))
    finally:
        torch.set_float32_matmul_precision("highest")


def seconds(timer: Timer, action: Callable[[], Any]) -> float:
    """The median time, without the launch if a graph is possible."""
    run = Run(lambda _: action())
    times = timer.time(run)
    graph = timer.captured(run)
    return (timer.time(graph) if graph else times).median / 1e3


def environment(timer: Timer) -> dict[str, Any]:
    """Device, versions and date of a record, and the choices of the device's table (:mod:`semimedref_kernels.choices`).
    It does not name the owner of the machine."""
    gpu = timer.device.type == "cuda"
    device = {"name": cpu_name(), "capability": None, "memory_bytes": None, "l2_bytes": None}
    if gpu:
        found = torch.cuda.get_device_properties(timer.device)
        capability = getattr(found, "gcnArchName", None) if torch.version.hip else f"{found.major}.{found.minor}"
        device = {"name": found.name, "capability": capability, "memory_bytes": found.total_memory}
        device["l2_bytes"] = found.L2_cache_size
    device |= {"threads": torch.get_num_threads(), "load": None}
    if hasattr(os, "getloadavg"):
        device["load"] = round(os.getloadavg()[0], 2)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "triton": installed("triton")}
    versions |= {"cuda": torch.version.cuda, "hip": torch.version.hip, "driver": driver() if gpu else None}
    chosen = dict(in_use(timer.device))
    return {"date": datetime.date.today().isoformat(), "device": device, "versions": versions, "choices": chosen}


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def driver() -> str | None:
    """The release of the NVIDIA driver, from its own tool; None if there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
