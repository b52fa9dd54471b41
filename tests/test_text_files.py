"""Text files are UTF-8 on every machine, whatever its own habit is, and the package loads where Unix is not."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [path for folder in ("semimedref_core", "kernels") for path in sorted((ROOT / folder).rglob("*.py"))]


def without_encoding(source: str) -> list[int]:
    """Lines that open a text file and do not say its encoding."""
    lines = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        opens = name == "open" and isinstance(call.func, ast.Name)
        binary = opens and any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in call.args[1:2])
        said = any(keyword.arg == "encoding" for keyword in call.keywords)
        if (opens or name in ("read_text", "write_text")) and not binary and not said:
            lines.append(call.lineno)
    return lines


def test_every_text_file_is_opened_with_its_encoding():
    assert without_encoding("open('a')\nopen('b', 'rb')\nPath('c').read_text()\nPath('c').read_text(encoding='utf-8')")
    found = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := without_encoding(path.read_text()))}
    assert found == {}


WITHOUT_UNIX = """
import importlib, os, pkgutil, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # as on Windows: importing it fails
for name in ("sched_getaffinity", "killpg", "getpgid"):
    if hasattr(os, name):
        delattr(os, name)
import semimedref_core
from semimedref_core.commands.parser import main
from semimedref_core.experiments.job import Job
from semimedref_core.runtime.environment import usable_cores
from semimedref_core.data.real import doctor, files
from semimedref_core import config, evaluation, reports, training
from semimedref_core.tools import profiling
assert usable_cores() >= 1
try:
    main(["--help"])
except SystemExit as exit:
    sys.exit(exit.code)
"""


def test_commands_load_on_a_machine_that_is_no_unix():
    done = subprocess.run([sys.executable, "-c", WITHOUT_UNIX], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tutorial" in done.stdout


@pytest.mark.parametrize(
    "command", [[], *([name] for name in "tutorial train sweep profile evaluate predict compare".split())]
)
def test_help_waits_for_no_package(command):
    """Half a second of CPU: neither torch nor what needs it."""
    program = (
        "import sys, time\nfrom semimedref_core.commands.parser import main\n"
        f"try:\n    main([*{command!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = 'torch transformers papermill numpy pandas matplotlib nbformat'.split()\n"
        "print('LOADED', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "usage: semimedref" in done.stdout and "LOADED []" in done.stdout
