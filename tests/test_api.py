"""The public API: small, complete, loaded when it is asked for, and each name shows how it is used."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL_RUN
from torch.nn.functional import normalize

import semimedref_core
from semimedref_kernels import soft_contrastive_loss

ROOT = Path(__file__).parent.parent


def test_the_api_is_about_30_names_and_dir_knows_them():
    assert 25 <= len(semimedref_core.__all__) <= 32
    assert set(semimedref_core.__all__) <= set(dir(semimedref_core))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = semimedref_core.no_such_name


@pytest.mark.parametrize("name", semimedref_core.__all__)
def test_each_name_has_an_example_that_runs(name, one_thread):
    value = getattr(semimedref_core, name)
    text = inspect.getdoc(value)
    assert ">>> " in text and re.search(rf"import .*\b{name}\b", text), "an example, as a user would write it"
    examples = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    said = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=said.append)
    assert tried and not failed, "".join(said)


def with_examples():
    """The modules of both packages that have examples of names outside the API."""
    sources = [*(ROOT / "semimedref_core").rglob("*.py"), *(ROOT / "kernels" / "semimedref_kernels").rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sources if ">>> " in path.read_text()]
    return sorted(name.removeprefix("kernels.").removesuffix(".__init__") for name in names)


@pytest.mark.parametrize("module", with_examples())
def test_every_other_example_in_a_docstring_runs_too(module, one_thread):
    known = {id(getattr(semimedref_core, name)) for name in semimedref_core.__all__}
    loaded, said = importlib.import_module(module), []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for examples in doctest.DocTestFinder(exclude_empty=True).find(loaded):
        if id(getattr(loaded, examples.name.removeprefix(f"{module}."), None)) not in known:
            runner.run(examples, out=said.append)
    assert not runner.failures, "".join(said)


def test_no_name_of_the_api_is_that_of_a_module():
    """Else ``from semimedref_core import x`` would give the one or the other, as modules were loaded."""
    modules = {path.stem for path in (ROOT / "semimedref_core").glob("*")}
    assert modules & set(semimedref_core.__all__) == set()


def test_importing_the_package_loads_neither_torch_nor_numpy():
    program = "import sys, semimedref_core; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_example_in_the_readme_works_as_it_is(tmp_path, monkeypatch, small_phantom):
    """In fewer steps and pixels."""
    page = (ROOT / "README.md").read_text()
    [block] = re.findall(r"```python\n(from semimedref_core import .*?)```", page, re.DOTALL)
    assert "Config(steps=100)" in block
    monkeypatch.chdir(tmp_path)
    small = ", ".join(f"{name}={value}" for name, value in SMALL_RUN.items() if name != "device")
    exec(block.replace("steps=100", small), {})
    assert (tmp_path / "overlay.png").stat().st_size > 1000


def test_the_example_of_the_kernels_page_works_as_it_is(capsys):
    page = (ROOT / "docs" / "kernels.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(block, names)
    assert names["accepted"].shape == (4,) and names["codes"].tolist() == [1, 3, 2, 0]
    assert "tensor(" in capsys.readouterr().out


def test_a_learnt_temperature_gives_the_same_loss_and_a_gradient():
    u, v, codes = torch.randn(6, 8), torch.randn(6, 8), torch.tensor([1, 3, 2, 0, 5, 5])
    scale = torch.tensor(1 / 0.07, requires_grad=True)
    loss = soft_contrastive_loss(scale * normalize(u), normalize(v), codes, 1.0)
    torch.testing.assert_close(loss.detach(), soft_contrastive_loss(u, v, codes, 0.07, normalize=True))
    loss.backward()
    assert scale.grad.abs() > 0


def test_the_parts_work_in_a_loop_as_the_code_map_writes_it():
    page = (ROOT / "docs" / "code.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(block, names)
    assert names["accepted"].any() and names["texts"].shape[:2] == (4, 7)
    names["loss"].backward()
