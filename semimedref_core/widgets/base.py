"""What every widget is made of: controls whose change is answered by a picture and a line of text."""

from __future__ import annotations

import base64
import gc
import html
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from semimedref_core.widgets.still import NOTE, settings, still

DPI = 80


class Explorer(ipywidgets.VBox):
    """Controls above, a line that says what came out, and a picture; every change of a control is answered at once.

    The picture is a PNG inside HTML: it needs no plotting front end, so it works alike in JupyterLab, Notebook 7 and
    VS Code, and it has a text for screen readers. Where no kernel runs, a still of it is shown (:mod:`.still`).

    Args:
        controls: keyword of ``answer`` -> control, shown in this order.
        answer: takes the controls' values by keyword; returns the figure (closed here) and a line of plain text.
        alt: says in words what the picture shows.

    Attributes:
        controls: as given; set a control's ``value`` to move it from code.
        said: the line of text, an ``HTML`` widget.
        picture: the picture, an ``HTML`` widget.
    """

    def __init__(
        self, controls: Mapping[str, ipywidgets.ValueWidget], answer: Callable[..., tuple[Figure, str]], alt: str
    ):
        self.controls, self._answer, self._answered = dict(controls), answer, None
        self.said = ipywidgets.HTML()
        self.picture, self._alt, self._source = ipywidgets.HTML(), alt, ""
        for control in self.controls.values():
            control.style.description_width = "initial"
            control.observe(self._changed, names="value")
        rows = ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([rows, self.said, self.picture])
        self._changed()

    def _changed(self, _=None) -> None:
        """Answers the controls' values. What a user may type wrongly is said in the widget and leaves the picture.

        A control may move another one: their values are then answered once, not once for each.
        """
        values = {name: control.value for name, control in self.controls.items()}
        if values == self._answered:
            return
        self._answered = values
        try:
            with _garbage_of_its_own():
                source, line = self._drawn(values)
        except ValueError as error:
            self.said.value = f"<b>{html.escape(str(error))}</b>"
            return
        # Two messages: the line goes first, so that no new picture ever stands under an old line.
        self.said.value = html.escape(line)
        alt, self._source = html.escape(self._alt, quote=True), source
        self.picture.value = f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{source}">'

    def _repr_mimebundle_(self, **arguments) -> tuple[dict, dict]:
        """The widget for whoever can run it, and a still of it as it is now for all others, with its text."""
        data = super()._repr_mimebundle_(**arguments)
        if not self._source:  # nothing could be answered yet
            return data, {}
        line = html.unescape(re.sub("<.*?>", "", self.said.value))
        picture = still(base64.b64decode(self._source), (NOTE, settings(self.controls.values()), line), DPI)
        return data | {"image/png": base64.b64encode(picture).decode()}, {"image/png": {"alt": f"{self._alt}. {line}"}}

    def _drawn(self, values: Mapping) -> tuple[str, str]:
        """The answer's picture in base64, and its line; nothing refers to the figure any more."""
        figure, line = self._answer(**values)
        return base64.b64encode(png(figure)).decode(), line


@contextmanager
def _garbage_of_its_own() -> Iterator[None]:
    """Collects what was dropped inside at the end, and nothing else.

    The parts of a figure refer to each other, so only the garbage collector frees them. Left to itself it takes them
    for long-lived, and every few answers it searches all that torch and the others have loaded: half a second.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if enabled:
            gc.enable()


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG; the figure is closed, so a notebook does not show it a second time."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 3})  # a little larger, twice as fast
    plt.close(figure)
    return file.getvalue()
