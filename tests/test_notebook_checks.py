"""The checks of notebooks catch what they are for: each break is made on purpose, in a copy."""

import copy
import re
import shutil

import nbformat
import pytest

from semimedref_core.commands.parser import main
from semimedref_core.experiments import shipped
from semimedref_core.tools import notebook_checks as notebooks

NAME = "08_results"


@pytest.fixture
def pair(tmp_path):
    """A copy of a notebook and its executed pair; ``pair(old, new)`` edits the source, ``pair.executed`` the pair."""
    for suffix in (".py", ".ipynb"):
        shutil.copy(shipped.notebooks_folder() / f"{NAME}{suffix}", tmp_path)

    class Pair:
        source = tmp_path / f"{NAME}.py"

        def edit(self, pattern, new):
            text = self.source.read_text()
            changed = re.sub(pattern, new, text, count=1)
            assert changed != text
            self.source.write_text(changed)

        def change(self, how):
            path = self.source.with_suffix(".ipynb")
            executed = nbformat.read(path, as_version=4)
            how([cell for cell in executed.cells if cell.cell_type == "code"])
            nbformat.write(executed, path)

    return Pair()


@pytest.mark.parametrize(
    ("pattern", "new", "told"),
    [
        ("08 · Results", "Results", "no title"),
        ('tags=\\["parameters"\\]', "", "the second cell, and no other, must be tagged parameters"),
        ('metric = "dice_image"', "metric = method.upper()[:0] or len(method)", "parameters are literals"),
        ('folder = ""', "folder = None", "parameter folder is a NoneType"),
        ("print\\(versions\\(", "print(len(", "import and print versions"),
        ("To remember", "In short", "what to remember"),
        ("What to take away", "To take with you", "the end has no '## What to take away'"),
        ("Further on:", "More:", "the end has no '**Further on:**'"),
        ("# ## The table", "# ## Appendix: The table", "before any appendix"),
        ("# </details>", "#", "1 cells open <details> without closing it"),
        (r"notebook_style\(\d+\)", "notebook_style(90)" + "\nx = 1" * 30, "at most 25"),
    ],
)
def test_a_notebook_of_another_style_is_told(pair, pattern, new, told):
    assert notebooks.style_problems(pair.source) == []
    pair.edit(pattern, new)
    assert any(told in problem for problem in notebooks.style_problems(pair.source))


def test_appendices_stand_after_what_to_remember_and_not_before(pair):
    text, appendix = pair.source.read_text(), "\n# %% [markdown]\n# ## Appendix: more\n" + "\n# %%\nprint(1)\n" * 4
    pair.source.write_text(text + appendix)
    assert notebooks.style_problems(pair.source) == []
    at = text.rindex("\n# %% [markdown]\n", 0, text.index("**To remember"))
    pair.source.write_text(text[:at] + appendix + text[at:])
    assert notebooks.style_problems(pair.source) == ["the end, before any appendix, does not say what to remember"]


def test_an_edited_notebook_without_its_edited_source_is_told(pair):
    assert notebooks.pair_problems(pair.source) == []
    pair.change(lambda cells: cells[3].update(source=cells[3].source + "\nx = 1"))
    assert any("is not of this source" in problem for problem in notebooks.pair_problems(pair.source))


def test_a_source_edited_without_its_notebook_is_told(pair):
    pair.edit("## The table", "## The big table")
    assert any("is not of this source" in problem for problem in notebooks.pair_problems(pair.source))


def test_a_notebook_that_was_not_executed_is_told_and_so_is_a_missing_one(pair):
    pair.change(lambda cells: [cell.update(outputs=[], execution_count=None) for cell in cells])
    told = " ".join(notebooks.pair_problems(pair.source))
    assert "not executed" in told and "fewer than half" in told and "no picture" in told
    pair.source.with_suffix(".ipynb").unlink()
    assert "is missing; semimedref notebooks 08_results" in notebooks.pair_problems(pair.source)[0]


def test_a_warning_in_a_notebook_is_told(pair):
    warning = nbformat.v4.new_output("stream", name="stderr", text="/home/somebody/x.py:1: UserWarning: mind this")
    pair.change(lambda cells: cells[3].update(outputs=[warning]))
    assert any("holds warnings" in problem for problem in notebooks.pair_problems(pair.source))


def test_a_notebook_too_large_for_a_code_host_is_told(pair):
    output = nbformat.v4.new_output("stream", text="x" * notebooks.MOST_BYTES)
    pair.change(lambda cells: cells[3].update(outputs=[output]))
    assert any("bytes, at most 1000000" in problem for problem in notebooks.pair_problems(pair.source))


@pytest.fixture
def executed():
    """A notebook with one cell that printed, and a widget with an output."""
    cell = nbformat.v4.new_code_cell("print(x)", outputs=[nbformat.v4.new_output("stream", text="Dice 81.9 %\n")])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    state = {"one": {"state": {"outputs": []}}}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": state}}
    return notebook


@pytest.mark.parametrize(
    ("text", "same"),
    [("Dice 81.9 %\n", True), ("Dice 80.9 %\n", True), ("Dice 73.0 %\n", False), ("mIoU 81.9 %\n", False), ("", False)],
)
def test_another_number_or_word_in_the_output_is_told_but_not_another_machine_s_rounding(executed, text, same):
    other = copy.deepcopy(executed)
    other.cells[0].outputs[0].text = text
    assert (notebooks.output_problems(other, executed) == []) == same


def test_a_cell_that_tells_of_this_machine_is_not_compared(executed):
    other = copy.deepcopy(executed)
    other.cells[0].outputs[0].text = "torch 9"
    executed.cells[0].metadata["tags"] = [notebooks.OF_THIS_MACHINE]
    assert notebooks.output_problems(other, executed) == []


def test_a_cell_that_the_committed_notebook_lacks_is_told(executed):
    longer = copy.deepcopy(executed)
    longer.cells.append(nbformat.v4.new_code_cell("print(y)"))
    told = "code cells, this one {}; run semimedref notebooks with the name of this notebook"
    assert notebooks.output_problems(longer, executed) == [f"the committed notebook has 1 {told.format(2)}"]
    assert notebooks.output_problems(executed, longer) == [f"the committed notebook has 2 {told.format(1)}"]


def test_an_error_in_a_cell_or_inside_a_widget_is_told(executed):
    broken = nbformat.v4.new_output("error", ename="ValueError", evalue="bad", traceback=[])
    in_cell, in_widget = copy.deepcopy(executed), copy.deepcopy(executed)
    in_cell.cells[0].outputs.append(broken)
    assert any(
        "error in the cell that begins 'print(x)': bad" in told for told in notebooks.output_problems(in_cell, executed)
    )
    states = in_widget.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    states["one"]["state"]["outputs"].append(broken)
    assert notebooks.output_problems(in_widget, executed) == ["error in a widget: bad"]


def test_the_command_checks_without_running_and_says_what_is_wrong(pair, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "notebooks_folder", lambda: pair.source.parent)
    assert main(["notebooks", "--check"]) == 0
    pair.edit("## The table", "## The big table")
    assert main(["notebooks", "--check", NAME]) == 1
    assert "is not of this source" in capsys.readouterr().out
