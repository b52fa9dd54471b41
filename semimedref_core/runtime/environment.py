"""The environment of a result: versions, the commit of a checkout, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from semimedref_core.errors import MissingPackageError

PACKAGES = "torch triton transformers accelerate numpy scipy pandas papermill jupytext ipykernel".split()


@cache
def environment() -> dict:
    """Versions, commit, machine and CPU cores of this process, as plain values."""
    here = Path(__file__).parent
    about = {"semimedref": version_of("semimedref")}
    if _git(here, "ls-files", Path(__file__).name):  # otherwise this is not a checkout of this project
        about["commit"] = _git(here, "rev-parse", "HEAD")
        about["changed_since"] = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    machine = {"platform": platform.platform(), "machine": platform.machine(), "cpu_cores": os.cpu_count()}
    packages = {name: version_of(name) for name in PACKAGES}
    return {**about, "python": platform.python_version(), **machine, "packages": packages}


def versions(*packages: str) -> str:
    """The versions behind a result, on one line: this project, Python, torch, and further packages.

    Raises:
        MissingPackageError: if one of the further packages is not installed.

    >>> from semimedref_core import versions
    >>> versions("numpy").split(",")[0].split()[0]
    'semimedref'
    """
    if absent := [name for name in packages if version_of(name) is None]:
        hint = " (not available for macOS and Windows)" if "triton" in absent else ""
        raise MissingPackageError(
            f"{', '.join(absent)} not installed{hint}, but needed here: pip install {' '.join(absent)}"
        )
    found = [f"{name} {version(name)}" for name in ("torch", *packages)]
    return f"semimedref {version('semimedref')}, Python {platform.python_version()}, {', '.join(found)}"


def version_of(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def first_process() -> bool:
    """Whether this process is the first of a run, or its only one. ``torchrun`` numbers them in RANK."""
    return int(os.environ.get("RANK", 0)) == 0


def usable_cores() -> int:
    """CPU cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):  # missing on macOS and Windows
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _git(folder: Path, *arguments: str) -> str:
    """The output of git in a folder; empty without git or without a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, encoding="utf-8", errors="replace"
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
