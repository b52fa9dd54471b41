"""A picture on which a reader drags a patch: the Python side of ``patch_pad.js``."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from PIL import Image

from semimedref_core.figures.canvas import PATCH, SKY

STEPS = 50  # steps along one side of a zone's box; each is one or two pixels


class PatchPad(anywidget.AnyWidget):
    """A picture with zone boxes and a patch. Pointer, finger and arrow keys move the patch inside one of the boxes.

    ``place`` changes only at the end of a move. An observer of ``place`` then sets the new ``patch``.

    Attributes:
        picture, size: the picture as a data address, and its height and width in px; :meth:`show` sets both.
        boxes: boxes (y0, x0, y1, x1) px, drawn thin.
        zone: the number of the box in which the patch's centre stays.
        block: side of the patch in px, before it is cut to the box.
        place: position of the centre in that box, down and across, 0 to 1.
        patch: (y0, x0, y1, x1) px; all 0 without a patch.
        moves: whether the reader can move the patch.
        accepted: whether the frame is dashed; otherwise it is dotted.
        label: a description for screen readers.
        note: the text below the picture.
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
