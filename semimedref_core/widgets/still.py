"""A widget as a still picture, for pages without a kernel: code hosts, the site, a printed notebook."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable

import ipywidgets
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from semimedref_core.figures.canvas import LETTERS, TYPE, as_text

NOTE = "A still of the widget. Run the notebook, and its controls move."
SPACING = 1.5  # distance of lines, in heights of letters
COLOURS = 128  # enough for grey pictures with outlines, in a third of the bytes


def settings(controls: Iterable[ipywidgets.ValueWidget]) -> str:
    """The values of the controls as text: ``p: 0.5; mode: mix``. Empty values are left out."""
    shown = ((control.description, getattr(control, "label", control.value)) for control in controls)
    return "; ".join(f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}"
                     for name, value in shown if value not in ("", None))  # fmt: skip


def still(picture: bytes, lines: Iterable[str], dpi: int) -> bytes:
    """Adds lines of text above a picture.

    Args:
        picture: a PNG.
        lines: the lines; they are wrapped to the picture's width.
        dpi: resolution of the picture, so that the letters get the same size as in the picture.

    Returns:
        A PNG.
    """
    below = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    width = below.shape[1]
    rows = [row for line in lines for row in textwrap.wrap(line, int(LETTERS * width / dpi))]
    step = round(SPACING * TYPE * dpi / 72)
    above = Figure((width / dpi, step * (len(rows) + 1) / dpi), dpi=dpi)
    canvas, tall = FigureCanvasAgg(above), step * (len(rows) + 1)
    for k, row in enumerate(rows):
        above.text(TYPE / width, 1 - (k + 0.5) * step / tall, as_text(row), fontsize=TYPE, va="top")
    canvas.draw()
    sheet = np.concatenate([np.asarray(canvas.buffer_rgba())[..., :3], below])
    file = io.BytesIO()
    # Thin lines are few pixels. The default method gives similar lines one colour, so two outlines would look alike.
    fewer = Image.fromarray(sheet).quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    fewer.save(file, format="png", optimize=True)
    return file.getvalue()
