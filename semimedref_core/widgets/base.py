"""The base of all widgets: controls whose changes produce a picture and a line of text."""

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
    """Controls on top, a line with the result, and a picture. Every change of a control updates both at once.

    The picture is a PNG inside HTML. It needs no plotting front end, so it works in JupyterLab, Notebook 7 and VS Code,
    and it has a text for screen readers. Without a kernel, a still picture is shown (:mod:`.still`).

    Args:
        controls: keyword of ``answer`` -> control, shown in this order.
        answer: gets the values of the controls by keyword; returns the figure, which is closed here, and a line of
            plain text.
        alt: describes the picture in words.

    Attributes:
        controls: the controls; set the ``value`` of one to move it from code.
        said: the line of text, an ``HTML`` widget.
        picture: the picture, an ``HTML`` widget.
    """

    def __init__(
        self, controls: Mapping[str, ipywidgets.ValueWidget], answer: Callable[..., tuple[Figure, str]], alt: str
    ):
        self.controls, self._answer, self._answered, self._waits = dict(controls), answer, None, False
        self.said = ipywidgets.HTML()
        self.picture, self._alt, self._source = ipywidgets.HTML(), alt, ""
        for control in self.controls.values():
            control.style.description_width = "initial"
            control.observe(self._changed, names="value")
        rows = ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([rows, self.said, self.picture])
        self._changed()

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """Inside, several controls may change. There is one update, at the end."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        self._changed()

    def _changed(self, _=None) -> None:
        """Updates line and picture. If the user typed something wrong, the widget says so and keeps the picture.

        A control may move another one. Then there is one update, not one for each control.
        """
        values = {name: control.value for name, control in self.controls.items()}
        if self._waits or values == self._answered:
            return
        self._answered = values
        try:
            with _garbage_of_its_own():
                source, line = self._drawn(values)
        except ValueError as error:
            self.said.value = f"<b>{html.escape(str(error))}</b>"
            return
        # Two messages: the line comes first, so a new picture never appears under an old line.
        self.said.value = html.escape(line)
        alt, self._source = html.escape(self._alt, quote=True), source
        self.picture.value = f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{source}">'

    def _repr_mimebundle_(self, **arguments) -> tuple[dict, dict]:
        """The widget for readers with a kernel, and a still picture of its current state with its text for all
        others."""
        data = super()._repr_mimebundle_(**arguments)
        if not self._source:  # there is no picture yet
            return data, {}
        line = html.unescape(re.sub("<.*?>", "", self.said.value))
        picture = still(base64.b64decode(self._source), (NOTE, settings(self.controls.values()), line), DPI)
        return data | {"image/png": base64.b64encode(picture).decode()}, {"image/png": {"alt": f"{self._alt}. {line}"}}

    def _drawn(self, values: Mapping) -> tuple[str, str]:
        """The picture of the answer in base64, and its line. The figure can be freed afterwards."""
        figure, line = self._answer(**values)
        return base64.b64encode(png(figure)).decode(), line


@contextmanager
def _garbage_of_its_own() -> Iterator[None]:
    """Collects only the garbage of its body, at its end.

    The parts of a figure refer to each other, so only the garbage collector can free them. By default it treats them as
    long-lived, and every few answers it searches all loaded objects of torch and other packages, which takes half a
    second.
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
    """The figure as a PNG. It closes the figure, so a notebook does not show it again."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 3})  # a little larger, twice as fast
    plt.close(figure)
    return file.getvalue()
