"""Who cannot see a figure of a notebook is told what is written in it."""

import nbformat
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient

from semimedref_core.figures.words import MOST, words_of


@pytest.fixture
def figure():
    figure, axes = plt.subplots(1, 2)
    axes[0].set_title("the teacher's\nprobability")
    axes[1].plot([0, 1], label="student")
    axes[1].set(xlabel="step", ylabel="Dice, %")
    axes[1].legend()
    yield figure
    plt.close(figure)


def test_titles_axes_and_legends_are_said_once(figure):
    figure.axes[1].set_title("the teacher's probability")
    assert words_of(figure) == ("Figure with 2 panels; the teacher's probability; across: step; up: Dice, %; student")


def test_long_words_end(figure):
    figure.suptitle("word " * 1000)
    assert len(words_of(figure)) == MOST + 2


def test_a_notebook_keeps_the_words_beside_the_picture():
    source = """
        from matplotlib import pyplot as plt
        from semimedref_core.figures import notebook_style
        notebook_style(); notebook_style()  # a reader runs the cell again
        plt.plot([0, 1]); plt.title("rises"); plt.show()
    """
    cell = nbformat.v4.new_code_cell("\n".join(line.strip() for line in source.strip().splitlines()))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, kernel_name="python3").execute()
    (shown,) = (output for output in notebook.cells[0].outputs if "image/png" in output.get("data", {}))
    assert shown.metadata["image/png"]["alt"] == "Figure with 1 panel; rises"
