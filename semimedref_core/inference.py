"""A trained network for use: from a picture and a sentence to a mask."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub import ModelHubMixin
from huggingface_hub.errors import EntryNotFoundError
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from semimedref_core import example
from semimedref_core.config import Device
from semimedref_core.data.asked import as_read, picture_asked, report_asked, upright
from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import predict
from semimedref_core.figures.pairs import prediction_overlay
from semimedref_core.networks import Texts
from semimedref_core.networks.pretrained import TOKENIZERS, WEIGHTS, find
from semimedref_core.runtime.checkpoints import (
    CheckpointError,
    from_pretrained,
    load_texts,
    network_folder,
    save_pretrained,
)
from semimedref_core.runtime.devices import device_named
from semimedref_core.runtime.files import CONFIG

CARD = """---
library_name: semimedref
tags: [semi-supervised, referring-image-segmentation]
---
# {network}, trained on {trained_on}

A network of semimedref: it outlines in a picture what a sentence describes. **It is not a medical device.**

- Image size: {image_size} px. Measured on the validation split: {valid}.
- Use: `SemiMedRef.from_pretrained("organisation/name@commit").predict("picture.png", "...")`.
"""


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The prediction of a network for one picture.

    Attributes:
        picture: ``[H, W]`` uint8 grey values, or ``[H, W, 3]`` colours, at the original size.
        text: the sentence.
        probability: ``[H, W]`` float32, lesion probability of each pixel, 0 to 1.
    """

    picture: np.ndarray
    text: str
    probability: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """``[H, W]`` bool, true where the probability is at least one half."""
        return self.probability >= 0.5

    def overlay(self) -> Figure:
        """The picture with the outline of the mask, and with the text as its title."""
        return prediction_overlay(self.picture, self.probability, self.text)

    def __repr__(self) -> str:
        height, width = self.probability.shape
        return f"Segmentation({height} x {width} px, {100 * self.mask.mean():.1f} % of them found: {self.text!r})"


class SemiMedRef(ModelHubMixin):
    """A trained network with its tokenizer. :meth:`from_pretrained` makes it.

    ``push_to_hub("organisation/name")`` and ``save_pretrained(folder)`` are those of huggingface_hub.

    >>> from semimedref_core import SemiMedRef, example
    >>> model = SemiMedRef.from_pretrained()
    >>> picture, text = next(iter(example.pictures().items()))
    >>> found = model.predict(picture, text)
    >>> found.mask.shape, found.probability.dtype.name
    ((192, 192), 'float32')
    """

    def __init__(self, network: nn.Module, texts: Texts, about: dict):
        self.network, self.texts, self.about = network, texts, about

    @classmethod
    def from_pretrained(cls, source: str | Path = example.MODEL, device: Device = "cpu") -> SemiMedRef:
        """Loads a network.

        Args:
            source: a finished run (loads its teacher); its folder ``student`` or ``teacher``; or
                ``organisation/name@commit`` on the hub, with all 40 digits of the commit, so it always loads the same
                network. By default the small network of the package.
            device: ``cpu``, ``cuda``, or ``auto``, which is a GPU if there is one. ``model.network.to(...)`` moves the
                network later; predictions are made where its weights are.

        Raises:
            DeviceError: if there is no GPU, but ``cuda`` was asked for.
            CheckpointError: if a file is missing, damaged or of another network.
            EncoderError: if the hub has no such network or does not answer.
        """
        place = device_named(device)
        folder = Path(source)
        if not folder.exists() and "@" in str(source):
            folder = find(source, WEIGHTS[:1])
            with contextlib.suppress(EntryNotFoundError):  # a network for the grammar has no tokenizer file
                find(source, TOKENIZERS[:1])
        folder = network_folder(folder)
        network, about = from_pretrained(folder)
        if "image_size" not in about:
            raise CheckpointError(
                f"{folder / CONFIG}: has no image_size, the size of the training images; add it there"
            )
        return cls(network.to(place), load_texts(folder), about)

    def predict(self, image: str | Path | np.ndarray | Image.Image, text: str) -> Segmentation:
        """Segments one picture with the help of a text.

        Args:
            image: a file (PNG, JPEG, TIFF, BMP; DICOM with pydicom), a Pillow image, which is read by the same rules as
                a file (also turned upright by its EXIF data), or an array ``[H, W]`` or ``[H, W, 3]`` of uint8.
            text: a report in the grammar of the training data, or any sentence if the network learnt from free texts.

        Raises:
            DataError: if the picture cannot be read.
            ReportError: if the network needs the grammar and the text does not follow it.
        """
        report = report_asked(text, self.about)
        channels = getattr(self.network, "channels", 1)
        name = str(image) if isinstance(image, str | Path) else "picture"
        picture = picture_asked(Path(image) if isinstance(image, str) else image, channels)
        size = (self.about["image_size"],) * 2
        small = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        pairs = as_read(Pairs(small[None], None, (report,), (name,)), self.about, channels)
        probability = upright(next(predict(self.network, pairs, self.texts))[0, 0].cpu().numpy(), self.about)
        whole = Image.fromarray(probability).resize(picture.shape[1::-1], Image.Resampling.BILINEAR)
        return Segmentation(picture, report.render(), np.asarray(whole))

    def __repr__(self) -> str:
        about = self.about
        return f"SemiMedRef({about['network']}, {about['image_size']} px, trained on {about.get('trained_on', '?')})"

    def _save_pretrained(self, save_directory: Path) -> None:
        kept = {name: value for name, value in self.about.items() if name not in ("network", "arguments")}
        save_pretrained(save_directory, self.network, self.texts, **kept)
        measured = ", ".join(f"{name} {100 * value:.1f} %" for name, value in self.about.get("valid", {}).items())
        card = CARD.format(**{"trained_on": "?", **self.about, "valid": measured or "?"})
        (save_directory / "README.md").write_text(card, encoding="utf-8")
