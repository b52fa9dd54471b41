"""What every widget does: each change is answered, and what a user typed wrongly is told where they look."""

import gc
import weakref

import ipywidgets
import matplotlib.pyplot as plt

from semimedref_core.widgets.base import Explorer


def doubled(number: str):
    figure, ax = plt.subplots()
    ax.plot([0, 2 * int(number)])
    return figure, f"twice is {2 * int(number)} < 1000"


def test_a_change_of_a_control_is_answered_by_a_new_picture_and_line_and_no_figure_stays_open():
    explorer = Explorer({"number": ipywidgets.Text("1", description="number")}, doubled, "a line")
    first = explorer.picture.value
    assert first.startswith('<img alt="a line"') and explorer.said.value == "twice is 2 &lt; 1000"
    explorer.controls["number"].value = "7"
    assert explorer.picture.value != first and "twice is 14" in explorer.said.value
    assert plt.get_fignums() == []


def test_no_new_picture_stands_under_an_old_line():
    explorer, seen = Explorer({"number": ipywidgets.Text("1", description="number")}, doubled, "a line"), []
    explorer.picture.observe(lambda _: seen.append(explorer.said.value), "value")
    explorer.controls["number"].value = "7"
    assert seen == ["twice is 14 &lt; 1000"]


def test_a_figure_is_freed_with_its_answer_so_that_no_later_answer_waits_for_the_garbage_collector():
    figures = []

    def answer(number):
        figure, line = doubled(number)
        figures.append(weakref.ref(figure))
        return figure, line

    explorer = Explorer({"number": ipywidgets.Text("1", description="number")}, answer, "a line")
    assert gc.isenabled()
    gc.disable()
    try:
        explorer.controls["number"].value = "7"
        assert not gc.isenabled(), "left as it was found"
        assert [figure() for figure in figures] == [None, None]
    finally:
        gc.enable()


def test_a_wrong_value_is_told_and_the_next_right_one_is_answered_again():
    explorer = Explorer({"number": ipywidgets.Text("1", description="number")}, doubled, "a line")
    explorer.controls["number"].value = "<seven>"
    assert "&lt;seven&gt;" in explorer.said.value and explorer.picture.value.startswith("<img")
    explorer.controls["number"].value = "7"
    assert "twice is 14" in explorer.said.value


def test_a_control_that_moves_another_is_answered_once_with_both_values():
    controls = {"number": ipywidgets.Text("1", description="number"), "same": ipywidgets.Text("1", description="same")}
    controls["number"].observe(lambda change: controls["same"].set_trait("value", change["new"]), "value")
    answered = []

    def answer(number, same):
        answered.append((number, same))
        return doubled(number)

    Explorer(controls, answer, "a line")
    controls["number"].value = "7"
    assert answered == [("1", "1"), ("7", "7")]
