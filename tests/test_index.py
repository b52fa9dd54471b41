"""The map from the paper to the code: complete, and pointing at what is there."""

import ast
import importlib
import inspect
import re

import jupytext
import nbformat
import pytest

from semimedref_core import semi_medref
from semimedref_core.tools.equation_index import (
    EQUATIONS,
    LEDGER,
    PAPER,
    ROOT,
    SYMBOLS,
    Equation,
    code_table,
    equation_table,
    find_tags,
    ledger_table,
    symbol_table,
)
from semimedref_core.tools.glossary import GLOSSARY, glossary_table
from semimedref_core.tools.two_presets import settings_table

FOUND = find_tags()
ENTRIES = [*EQUATIONS, *LEDGER]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.tag)
def test_every_entry_has_a_live_function_a_test_and_a_notebook_cell(entry):
    assert entry.tag in FOUND, "nothing carries this tag"
    places = FOUND[entry.tag]
    assert places.cells, "no notebook cell shows it"
    assert any(name.startswith("test_") for _, name in places.tests), "no test proves it"
    if isinstance(entry, Equation):
        assert any(name for _, name in places.functions), "no function computes it"
    for path, name in places.functions:
        module = re.sub(r"^kernels/|\.py$", "", path).replace("/", ".").removesuffix(".__init__")
        found = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)


def test_a_number_of_the_paper_beside_ours_is_that_of_the_table():
    """As in "5 to 7; paper: 7 to 8": the first and the last have to agree."""
    both = re.compile(r"Eq\. (\d+)(?: (?:to|and) (\d+))?; paper: (\d+)(?: to (\d+))?")
    found = 0
    for folder in ("notebooks", "semimedref_core", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            for ours, last, paper, to in both.findall(re.sub(r"\n\s*#? *", " ", path.read_text(encoding="utf-8"))):
                first, end = (PAPER[int(number)].split(" to ") for number in (ours, last or ours))
                assert (paper, to or paper) == (first[0], end[-1]), f"{path.name}: Eq. {ours}"
                found += 1
    assert found > 20


def test_no_tag_points_to_nothing():
    assert set(FOUND) <= {entry.tag for entry in ENTRIES}


def test_the_tables_that_people_read_are_those_of_these_sources():
    """If this fails: ``semimedref notebooks 00_start_here``."""
    executed = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    outputs = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    shown = [data["text/markdown"] for data in outputs if "text/markdown" in data]
    tables = [equation_table(FOUND), code_table(FOUND), symbol_table(), glossary_table(), ledger_table(FOUND)]
    assert shown == [*tables, settings_table()]


def test_every_symbol_of_the_training_step_is_in_the_table_of_symbols():
    """Those of the head of ``semi_medref.py``, and every short name that the step gives a value."""
    in_code = {name for _, _, names in SYMBOLS for name in re.findall(r"\w+", names)}
    [head] = re.findall(r"=+ =+\n(.+?)\n=+ =+", semi_medref.__doc__, re.DOTALL)
    named = {name for line in head.splitlines() for name in re.findall(r"\w+", line[:20])}
    assert named >= {"x_l", "y_mix", "p", "a_u"} and named <= in_code, named - in_code
    stored = {
        node.id
        for node in ast.walk(ast.parse(inspect.getsource(semi_medref)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    short = {name for name in stored if re.fullmatch(r"[a-zA-Z](_[a-z_]+)?", name)}
    assert short >= {"w_l", "u_l", "L_itcl_u"} and short <= in_code, short - in_code


def test_every_letter_of_the_equations_is_in_the_table_of_symbols():
    def letters(tex: str) -> set[str]:
        words = re.sub(r"\\(mathrm|mathtt|text)\{[^}]*\}|\\mathbf\{1\}|\\(?!rho|tau|theta)[a-zA-Z]+", " ", tex)
        return set(re.findall(r"\\[a-z]+|[a-zA-Z]", words))

    explained = letters(" ".join(part for symbol, _, _ in SYMBOLS for part in re.findall(r"\$([^$]+)\$", symbol)))
    for entry in EQUATIONS:
        assert letters(entry.tex) <= explained, (entry.tag, letters(entry.tex) - explained)


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.name)
def test_a_term_of_the_glossary_stands_in_the_notebook_that_explains_it(term):
    text = " ".join(cell.source for cell in jupytext.read(ROOT / "notebooks" / f"{term.notebook}.py").cells)
    assert term.name.casefold() in " ".join(text.split()).casefold()


def test_the_glossary_is_in_alphabetical_order_and_each_meaning_is_one_short_sentence():
    names = [term.name for term in GLOSSARY]
    assert names == sorted(set(names), key=str.casefold)
    assert all(term.meaning.endswith(".") and len(term.meaning) <= 100 for term in GLOSSARY)


def test_tags_are_found_where_they_stand(tmp_path):
    for folder, text in {
        "semimedref_core": "# @ 1\ndef f():\n    x = 1  # @ 2\n    def g():\n        'Other @ 2'\n",
        "semimedref_core/figures": "def drawn():\n    '@ 1'\n",
        "tests": "def test_f():\n    '''@ 2'''\n\ndef test_eq_1_g():\n    pass\n\ndef helper():\n    '@ 2'\n",
        "notebooks": "# %% [markdown]\n# # Will come: @ 2\n# %% [markdown]\n# ## Here\n# @ 2\n\n# %%\nx = 1  # @ 30\n",
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text(text.replace("@", "Eq."))  # as it stands here it is no tag
    found = find_tags(tmp_path)
    one, two, thirty = (f"Eq. {number}" for number in (1, 2, 30))
    assert found[one].functions == [("semimedref_core/a.py", "")]
    assert [name for _, name in found[two].functions] == ["f", "f.g"]
    assert found[one].tests == [("tests/a.py", "test_eq_1_g")]
    assert found[two].tests == [("tests/a.py", "test_f")]
    assert found[two].cells == found[thirty].cells == [("a", "Here")]
