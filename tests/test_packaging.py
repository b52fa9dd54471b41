"""What pip installs: wheels with all that a user without a checkout needs, and a core that does without the extras."""

import shutil
import subprocess
import sys
import tomllib
import venv
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

import semimedref_core

ROOT = Path(__file__).parent.parent
OPTIONAL = ("submitit", "pyarrow", "triton", "jupyterlab", "tensorboard", "wandb", "trackio")
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "tests", "docs", "__pycache__")


def built(source: Path, folder: Path) -> ZipFile:
    """The wheel of a copy of a project, made without network by the setuptools that is here."""
    copy = shutil.copytree(source, folder / "source", ignore=LEFT_OUT)
    program = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, folder], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return ZipFile(wheel)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(ROOT, tmp_path_factory.mktemp("semimedref"))


@pytest.fixture(scope="module")
def kernels_wheel(tmp_path_factory):
    return built(ROOT / "kernels", tmp_path_factory.mktemp("kernels"))


def metadata(wheel: ZipFile):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(wheel.read(name))


def modules(folder: Path) -> set[str]:
    return {path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.py")}


def test_the_wheel_holds_code_settings_types_notebooks_plans_and_kept_results(wheel):
    names = set(wheel.namelist())
    assert modules(ROOT / "semimedref_core") | modules(ROOT / "kernels/semimedref_kernels") <= names
    assert {"semimedref_core/presets.toml", "semimedref_core/py.typed", "semimedref_kernels/py.typed"} <= names
    assert {"semimedref_core/demo/page.html", "semimedref_core/widgets/patch_pad.js"} <= names
    example = [path for path in (ROOT / "semimedref_core/example").rglob("*") if path.is_file()]
    assert {path.relative_to(ROOT).as_posix() for path in example if "__pycache__" not in path.parts} <= names
    share = f"semimedref-{semimedref_core.__version__}.data/data/share/semimedref/"
    for pattern in ("*.py", "*.ipynb", "plans/*.yaml", "results/*"):
        files = list((ROOT / "notebooks").glob(pattern))
        assert files and {share + path.relative_to(ROOT).as_posix() for path in files} <= names, pattern
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in name.split("/")[0]]


def test_the_kernels_alone_are_a_wheel_that_needs_torch_and_triton_and_nothing_else(kernels_wheel):
    names = set(kernels_wheel.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == modules(ROOT / "kernels/semimedref_kernels") | {"semimedref_kernels/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in about)
    torch, triton = metadata(kernels_wheel).get_all("Requires-Dist")
    assert torch.startswith("torch") and triton.startswith("triton")
    assert 'platform_system == "Linux"' in triton, "there are no wheels of it elsewhere"


def test_both_wheels_want_the_same_torch_and_triton_and_have_the_package_s_version(wheel, kernels_wheel):
    both = [metadata(wheel), metadata(kernels_wheel)]
    assert {about["Version"] for about in both} == {semimedref_core.__version__}
    wanted = [{line.split(";")[0].strip() for line in about.get_all("Requires-Dist")} for about in both]
    assert wanted[1] < wanted[0]


def test_without_a_checkout_notebooks_and_plans_are_found_by_name(wheel, tmp_path):
    """In an environment with the wheel's files where pip puts them."""
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env/bin/python"
    shown = "import sysconfig; print(sysconfig.get_path('purelib'))"
    library = Path(subprocess.run([python, "-c", shown], capture_output=True, text=True, check=True).stdout.strip())
    wheel.extractall(library)
    (data,) = library.glob("*.data/data")
    shutil.copytree(data, tmp_path / "env", dirs_exist_ok=True)
    here = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.strip()
    (library / "others.pth").write_text(here)
    program = (
        "from semimedref_core.experiments.papermill_run import parameters_of\n"
        "from semimedref_core.experiments.plan import find_plan, read_plan\n"
        "from semimedref_core.experiments.shipped import notebooks_folder\n"
        "folder = notebooks_folder()\n"
        "print(folder, len(parameters_of('07_train')), len(read_plan(find_plan('phantom', folder / 'plans')).runs))"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    folder, parameters, runs = done.stdout.split()
    assert Path(folder) == tmp_path / "env/share/semimedref/notebooks"
    assert int(parameters) > 10 and int(runs) == 7


def test_training_does_without_the_extras(tmp_path):
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL}))\n"
        "from semimedref_core.data.phantom import COUNTS\n"
        "from semimedref_core.commands.parser import main\n"
        "COUNTS.update(train=24, valid=6)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    options = "train --image-size 32 --steps 1 --batch-size 2 --label-ratio 0.25 --device cpu --output".split()
    done = subprocess.run([sys.executable, "-c", program, *options, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "teacher/model.safetensors").is_file()


@pytest.mark.parametrize("missing, command", [
    ("submitit", ["sweep", "phantom", "--dry-run"]),
    ("pyarrow", ["sweep", "phantom", "--dry-run"]),
    ("pyarrow", ["compare", ROOT / "notebooks/results"]),
])  # fmt: skip
def test_what_needs_an_extra_names_it(command_line, monkeypatch, missing, command):
    monkeypatch.setitem(sys.modules, missing, None)
    outcome = command_line(*command)
    assert outcome.status == 1
    assert f"needs {missing}, which is not installed; install the extra `sweeps`" in outcome.errors


def test_a_plan_that_neither_is_here_nor_comes_along_is_told_with_those_that_do(command_line):
    outcome = command_line("sweep", "phantoms", "--dry-run")
    assert outcome.status == 1
    assert "phantoms: neither a file nor a built-in plan" in outcome.errors
    assert "(did you mean phantom?)" in outcome.errors


def test_the_install_command_brings_all_that_the_tutorial_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {name.split(">")[0] for name in project["dependencies"]}
    assert {"papermill", "jupytext", "ipykernel", "ipywidgets", "anywidget", "matplotlib"} <= names
    assert not names & {*OPTIONAL}
