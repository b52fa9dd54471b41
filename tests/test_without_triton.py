"""Where there is no Triton: what needs it says so in one line, and what does not need it works."""

import subprocess
import sys

import pytest

from semimedref_core.errors import MissingPackageError
from semimedref_core.runtime import environment

WITHOUT = """
import runpy, sys
sys.modules["triton"] = None  # as if it were not installed
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def without_triton(*command) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", WITHOUT, *command], capture_output=True, text=True)


def test_the_check_of_kernels_says_that_triton_is_missing():
    done = without_triton("semimedref_kernels.aot")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "this check compiles Triton's kernels, and Triton is not installed: pip install triton\n"


def test_so_does_the_command_that_measures_their_tiles():
    done = without_triton("semimedref_kernels.benchmark.tune", "--dry")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "this measures Triton's kernels, and Triton is not installed: pip install triton\n"


def test_the_operations_work_on_the_cpu():
    program = """
import sys
sys.modules["triton"] = None
import torch
import semimedref_kernels.benchmark.__main__
from semimedref_kernels import patch_mix, soft_contrastive_loss
codes = torch.tensor([1, 3])
print(soft_contrastive_loss(torch.eye(2), torch.eye(2), codes, tau=0.1).isfinite().item())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_notebook_that_needs_a_package_says_which(monkeypatch):
    """Notebook 09 asks for the version of Triton in its first cell."""
    monkeypatch.setattr(environment, "version_of", lambda name: None if name == "triton" else "1.0")
    with pytest.raises(MissingPackageError, match="triton not installed .not available for macOS and Windows"):
        environment.versions("triton")
    assert "torch" in environment.versions()
