"""The house: the paper's modules on top of a few records, rooms beside them, and imports that point one way."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from semimedref_core.runtime import files

ROOT = Path(__file__).parent.parent / "semimedref_core"
SETTINGS = {"errors", "presets", "config"}
METHOD = {
    "positions", "reports", "anatomy", "posaug", "views", "batch", "teacher", "pseudo_labels", "losses", "itcl",
    "patchmix", "semi_medref", "missing_positions", "reading_words", "places", "reading", "free_reports",
}  # fmt: skip
# From the ground up. A module imports from its own layer or lower ones.
LAYERS = [
    {"_lazy", "_progress", "example", *SETTINGS},
    METHOD,
    {"data", "networks"},
    {"evaluation", "runtime"},
    {"methods"},
    {"step"},
    {"preparing"},
    {"training"},
    {"tools"},
    {"experiments"},
    {"figures"},
    {"inference"},
    {"widgets", "teaching", "demo"},
    {"commands", "__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
ROOMS = sorted(path.name for path in ROOT.iterdir() if (path / "__init__.py").exists())
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")  # that one names the API


def imported(path: Path) -> set[str]:
    """The modules and rooms of the package that a file imports, without those for type checkers alone."""
    found = set()

    def walk(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "semimedref_core":
            parts = node.module.split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        if isinstance(node, ast.Import):
            found.update(a.name.split(".")[1] for a in node.names if a.name.startswith("semimedref_core."))
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found


def place(path: Path) -> str:
    """The module of the paper or the room that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_the_folder_is_the_papers_table_of_contents_and_rooms():
    beside = {"step", "preparing", "training", "evaluation", "inference", "_lazy", "_progress", "__init__", "__main__"}
    assert {path.stem for path in ROOT.glob("*.py")} == METHOD | SETTINGS | beside
    assert set(ROOMS) | METHOD | SETTINGS | beside - {"__init__"} == set(LAYER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = LAYER[place(path)]
    upwards = {name for name in imported(path) if LAYER[name] > here}
    assert upwards == set(), f"{path.name} imports from above"


@pytest.mark.parametrize("name", sorted(METHOD | SETTINGS))
def test_the_papers_modules_import_no_room(name):
    assert imported(ROOT / f"{name}.py") <= METHOD | SETTINGS


def test_no_two_rooms_import_each_other():
    arrows = defaultdict(set)
    for path in MODULES:
        arrows[place(path)] |= imported(path) - {place(path)}
    assert [(a, b) for a in arrows for b in arrows[a] if a in arrows[b]] == []


def test_config_knows_nothing_but_presets_and_errors():
    assert imported(ROOT / "config.py") == {"presets", "errors"}


def test_the_names_of_a_run_s_files_are_written_once():
    """In ``runtime/files.py``. The encoders of transformers, below, have a config.json of their own."""
    names = {value for name, value in vars(files).items() if name.isupper()}
    assert len(names) == 6
    written = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split("/")[-1] in names:
                written.add(f"{path.relative_to(ROOT).as_posix()}: {node.value}")
    assert written == {f"runtime/files.py: {name}" for name in names} | {"networks/pretrained.py: config.json"}


def test_a_finished_run_of_a_sweep_waits_for_no_torch():
    program = "import sys, semimedref_core.experiments.job; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_two_public_classes_have_one_name():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.parametrize("name", ["data", "experiments", "figures", "tools", "widgets"])
def test_every_name_that_a_room_exports_is_there_and_is_no_module_of_it(name):
    room = __import__(f"semimedref_core.{name}", fromlist=["__all__"])
    modules = {path.stem for path in (ROOT / name).iterdir()}
    assert room.__all__ and not modules & set(room.__all__)
    assert all(getattr(room, export) is not None for export in room.__all__)


def test_the_step_reaches_a_dozen_files():
    """What a reader of the objective has to know, counted without running it."""
    reached, todo = set(), ["semi_medref"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += imported(ROOT / f"{name}.py")
    assert len(reached) <= 12, sorted(reached)


@pytest.mark.parametrize("path", sorted((ROOT.parent / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebooks_import_from_the_api_and_from_rooms_and_never_deeper(path):
    deep = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("semimedref_core."):
            room = node.module.removeprefix("semimedref_core.")
            deep += [f"{node.module}: {alias.name}" for alias in node.names] if room not in ROOMS else []
    assert deep == []
