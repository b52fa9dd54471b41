"""A patch that a reader drags on a picture: what the browser shows, and what it tells."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from PIL import Image

from semimedref_core.figures.canvas import SKY
from semimedref_core.figures.mixing import PATCH

STEPS = 50  # a move along a whole side of a zone's box; about a pixel or two each


class PatchPad(anywidget.AnyWidget):
    """A picture with zone boxes and a patch, which pointer, finger and arrow keys move inside one of the boxes.

    A move is told once it ends: ``place`` changes then, and whoever watches it answers with a new ``patch``.

    Attributes:
        picture, size: the picture as an address that holds it, and its height and width in px; see :meth:`show`.
        boxes: boxes (y0, x0, y1, x1) px, drawn thin.
        zone: the number of the box in which the patch's centre stays.
        block: side of the patch in px, before it is cut to the box.
        place: down and across, 0 to 1: where in that box the centre lies.
        patch: (y0, x0, y1, x1) px; all 0 where there is none.
        moves: whether it can be moved.
        accepted: frame solid, else dashed.
        label: says what is seen, for screen readers.
        note: stands below the picture.
    """

    _esm = Path(__file__).with_name("patch_pad.js")

    picture = traitlets.Unicode().tag(sync=True)
    size = traitlets.Tuple((1, 1)).tag(sync=True)
    boxes = traitlets.List().tag(sync=True)
    zone = traitlets.Int().tag(sync=True)
    block = traitlets.Int(1).tag(sync=True)
    place = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.5, 0.5)).tag(sync=True)
    patch = traitlets.Tuple((0, 0, 0, 0)).tag(sync=True)
    moves = traitlets.Bool(False).tag(sync=True)
    accepted = traitlets.Bool(False).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    steps = traitlets.Int(STEPS).tag(sync=True)
    colours = traitlets.Dict({"zone": SKY, "patch": PATCH}).tag(sync=True)

    def show(self, picture: np.ndarray, **state) -> None:
        """Shows a picture ``[H, W]`` or ``[H, W, 3]``, uint8, and sets other attributes, all at once."""
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="png")
        address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        with self.hold_sync():
            for name, value in {"picture": address, "size": picture.shape[:2], **state}.items():
                setattr(self, name, value)
