"""The contents of the page for one picture and one sentence: outline, probabilities, and the zones in the sentence."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from semimedref_core.data.asked import report_asked
from semimedref_core.data.own.zones import layout_of
from semimedref_core.data.pairs import DataError
from semimedref_core.free_reports import FreeReport
from semimedref_core.inference import SemiMedRef
from semimedref_core.positions import LUNGS, NOWHERE, AnyReport

SHOWN = 640  # longer side of a picture on the page, px


@dataclass(frozen=True)
class PageAnswer:
    """The contents of the page.

    Attributes:
        picture: the picture with a longer side of at most :data:`SHOWN` px, as a ``data:`` address of a PNG.
        size: width and height of the picture in px.
        outline: the contour of the mask as an SVG path in these pixels; empty if nothing is found.
        probability: the map of probabilities, as a ``data:`` address of a PNG of the same size.
        zones: 0 or 1 for each zone, as named in the sentence.
        said: the read zones and the result, in words.
        swapped: the sentence of the mirrored picture; the sentence itself if there is none.
    """

    picture: str
    size: tuple[int, int]
    outline: str
    probability: str
    zones: tuple[int, ...]
    said: str
    swapped: str


class Demo:
    """A network, the example pictures of its page, and the zones that its texts may name.

    >>> from semimedref_core import SemiMedRef, example
    >>> demo = Demo(SemiMedRef.from_pretrained(), example.pictures())
    >>> picture, text = next(iter(example.pictures().items()))
    >>> demo.answer(picture, text).said
    'Read: right middle. Found on 1.7 % of the picture; the highest probability is 1.00.'
    """

    def __init__(self, model: SemiMedRef, examples: Mapping[Path, str]):
        self.model, self.examples = model, dict(examples)
        self.layout, self.note = LUNGS, ""
        if model.about.get("trained_on") == "folder":
            try:
                self.layout = layout_of(model.about)
            except DataError as error:  # an older network names only the file of its table, and works without it
                self.layout, self.note = NOWHERE, f"Zones are not shown: {error}."

    def start(self) -> dict:
        """The first contents of the page, as plain values."""
        about, zones = self.model.about, zip(self.layout.names, self.layout.shares, strict=True)
        data = "data of one's own" if about.get("trained_on") == "folder" else about.get("trained_on", "?")
        return {
            "network": f"{about['network']}, {about['image_size']} px, trained on {data}",
            "note": self.note,
            "examples": [
                {"name": path.stem.replace("_", " "), "text": text, "picture": _png(Image.open(path))}
                for path, text in self.examples.items()
            ],
            "zones": [{"name": name, "box": box} for name, box in zones if self.layout is not NOWHERE],
        }

    def answer(self, picture: Path, text: str) -> PageAnswer:
        """Runs the network.

        Raises:
            DataError: if the picture cannot be read.
            ReportError: if the network needs the grammar and the text does not follow it.
        """
        found = self.model.predict(picture, text)
        report = report_asked(text, self.model.about)
        if isinstance(report, FreeReport):
            report = FreeReport.of(text, self.layout)
        height, width = found.probability.shape
        scale = min(1, SHOWN / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        shown = Image.fromarray(found.picture).resize(size, Image.Resampling.BILINEAR)
        probability = np.asarray(Image.fromarray(found.probability).resize(size, Image.Resampling.BILINEAR))
        colours = matplotlib.colormaps["cividis"](probability.clip(0, 1), bytes=True)[..., :3]
        return PageAnswer(
            picture=_png(shown),
            size=size,
            outline=_path(probability),
            probability=_png(Image.fromarray(np.ascontiguousarray(colours))),
            zones=tuple(report.zones) if self.layout is not NOWHERE else (),
            said=f"{self._read(report)}{_found(found.mask, found.probability)}",
            swapped=report.flip().render(),
        )

    def _read(self, report: AnyReport) -> str:
        if self.layout is NOWHERE:
            return ""
        return f"Read: {', '.join(self.layout.named(report.zones)) or 'no zone'}. "


def _found(mask: np.ndarray, probability: np.ndarray) -> str:
    found = f"Found on {100 * mask.mean():.1f} % of the picture" if mask.any() else "Found nothing"
    return f"{found}; the highest probability is {probability.max():.2f}."


def _path(probability: np.ndarray) -> str:
    """The contours at 0.5 as an SVG path, in pixels from the upper left corner. They are also closed at the edges."""
    padded = np.pad(probability, 1)
    if padded.max() < 0.5:
        return ""
    lines = Figure().add_subplot().contour(padded, levels=[0.5]).allsegs[0]
    return "".join("M" + "L".join(f"{x - 0.5:.1f} {y - 0.5:.1f}" for x, y in line) + "Z" for line in lines)


def _png(picture: Image.Image) -> str:
    written = io.BytesIO()
    picture.save(written, "PNG", compress_level=1)  # it stays on this machine
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
