"""What every widget does: each change is answered, and what a user typed wrongly is told where they look."""

import base64
import gc
import io
import weakref

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from semimedref_core.experiments.papermill_run import _without_kernel
from semimedref_core.figures.canvas import GREEN, SKY
from semimedref_core.widgets.base import Explorer
from semimedref_core.widgets.still import settings, still


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


def test_controls_that_are_moved_as_one_are_answered_once():
    answered = []

    def answer(**numbers):
        answered.append(tuple(numbers.values()))
        return doubled(numbers["number"])

    controls = {name: ipywidgets.Text("1", description=name) for name in ("number", "other")}
    explorer = Explorer(controls, answer, "a line")
    with explorer.as_one():
        for control in controls.values():
            control.value = "7"
    assert answered == [("1", "1"), ("7", "7")]


def shown(explorer):
    """What a front end is given: data and metadata by kind."""
    return explorer._repr_mimebundle_()


def test_without_a_kernel_a_still_says_what_the_controls_are_set_to_and_has_words_of_its_own():
    controls = {"number": ipywidgets.Text("7", description="number")}
    explorer = Explorer(controls, doubled, "a line that rises")
    data, about = shown(explorer)
    assert "application/vnd.jupyter.widget-view+json" in data, "with a kernel the widget is shown"
    assert about["image/png"]["alt"] == "a line that rises. twice is 14 < 1000"
    still, picture = (Image.open(io.BytesIO(base64.b64decode(text))) for text in (data["image/png"], _source(explorer)))
    assert still.width == picture.width and still.height > picture.height, "the picture with lines above it"
    below = np.asarray(still.convert("RGB"))[still.height - picture.height :].astype(int)
    assert np.abs(below - np.asarray(picture.convert("RGB"))).mean() < 1
    controls["number"].value = "8"
    assert shown(explorer)[0]["image/png"] != data["image/png"], "as the widget is now"


def _source(explorer):
    return explorer.picture.value.partition("base64,")[2].partition('"')[0]


def test_a_still_names_controls_as_they_are_labelled_and_leaves_out_what_is_empty():
    controls = (
        ipywidgets.Dropdown(options=[("left upper", 0)], description="zone"),
        ipywidgets.FloatSlider(0.5, description="gate"),
        ipywidgets.Text("", description="or your own"),
    )
    assert settings(controls) == "zone: left upper; gate: 0.5"


def test_thin_lines_of_like_colours_stay_apart_in_a_still():
    """The outlines of mask and zones, on a picture that has most of the colours."""
    smooth = np.linspace(0, 255, 300 * 300).reshape(300, 300).astype(np.uint8)
    sheet = np.stack([smooth, smooth[::-1], smooth], axis=2)
    outlines = {row: tuple(int(255 * share) for share in to_rgb(colour)) for row, colour in ((100, SKY), (200, GREEN))}
    for row, colour in outlines.items():
        sheet[row] = colour
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="png")
    seen = np.asarray(Image.open(io.BytesIO(still(file.getvalue(), ["a line"], 80))).convert("RGB"))[-300:].astype(int)
    for row, colour in outlines.items():
        assert np.abs(seen[row] - colour).max() < 20
    assert np.abs(seen - sheet).mean() < 6


def test_a_widget_that_could_answer_nothing_yet_has_no_still():
    explorer = Explorer({"number": ipywidgets.Text("seven", description="number")}, doubled, "a line")
    assert "image/png" not in shown(explorer)[0]


def test_a_committed_notebook_holds_stills_and_nothing_that_needs_a_kernel():
    data, about = shown(Explorer({"number": ipywidgets.Text("7", description="number")}, doubled, "a line"))
    bar = {kind: text for kind, text in data.items() if kind != "image/png"}
    widget, bar = (
        nbformat.v4.new_output("display_data", data, metadata=about if "image/png" in data else {})
        for data in (data, bar)
    )
    assert _without_kernel(bar) is None
    assert list(_without_kernel(widget).data) == ["image/png"] and widget.metadata["image/png"].alt.startswith("a line")
