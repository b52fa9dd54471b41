"""The project itself: what a fresh clone relies on."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_dependency_is_pinned_in_constraints():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [
        *PROJECT["dependencies"],
        *(name for extra in PROJECT["optional-dependencies"].values() for name in extra),
    ]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted} - {"semimedref"}
    names -= {"wandb", "trackio"}  # the tests run neither
    assert names - pinned == set()


def test_conda_users_get_the_same_project_and_no_second_list_of_dependencies():
    text = (ROOT / "environment.yml").read_text()
    assert "-e ." in text and "-c constraints.txt" in text
    assert not any(re.search(rf"- {name}\b", text) for name in ("torch", "transformers", "monai", "numpy"))


def test_the_readme_commands_are_the_ones_that_ci_runs():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    command = (
        'python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[test]" && .venv/bin/pytest -n auto'
    )
    assert command in readme and command in script
    assert (
        "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e . && .venv/bin/semimedref tutorial"
        in readme
    )


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_links_to_exist(page):
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_readme_is_one_screen_and_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 100
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name})" not in readme] == []


def test_our_kernels_folder_leaves_the_package_kernels_of_hugging_face_alone():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    program = "import transformers, importlib.util as u; s = u.find_spec('kernels'); print(s and s.origin)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=True).stdout
    assert str(ROOT) not in found


def test_the_kernels_package_stands_alone():
    loaded = "[name for name in sys.modules if name.startswith(('semimedref_core', 'transformers'))]"
    program = f"import sys, semimedref_kernels; print({loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.strip() == "[]"
