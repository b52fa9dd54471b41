"""Image-report pairs in memory. All datasets of the project give them, and training reads nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from semimedref_core.errors import SemiMedRefError
from semimedref_core.positions import AnyReport


class DataError(SemiMedRefError, ValueError):
    """A dataset has a problem. The message names all affected files and the cure."""


@dataclass(frozen=True, repr=False)
class Pairs:
    """N image-report pairs of one size, decoded.

    Attributes:
        images: ``[N, H, W]`` uint8, grey values 0 to 255; or ``[N, H, W, 3]``, red, green and blue.
        masks: ``[N, H, W]`` uint8, 1 where the lesion is, else 0; ``None`` for pairs without masks (unlabelled).
        reports: N reports.
        names: N image names, spelt as in the list of the dataset.

    >>> from semimedref_core import Pairs, load_split
    >>> pairs = load_split("phantom", "valid", image_size=32).subset([0, 5])
    >>> isinstance(pairs, Pairs), len(pairs), pairs.names
    (True, 2, ('phantom_xray_valid_0000.png', 'phantom_xray_valid_0005.png'))
    >>> pairs, pairs[0]["image"].shape
    (Pairs(2 of 32 x 32 px, grey, with masks), (1, 32, 32))
    """

    images: np.ndarray
    masks: np.ndarray | None
    reports: tuple[AnyReport, ...]
    names: tuple[str, ...]

    def __post_init__(self):
        counts = {len(self.images), len(self.reports), len(self.names)}
        if self.masks is not None:
            counts.add(len(self.masks))
            if self.masks.shape != self.images.shape[:3]:
                raise DataError(f"masks {self.masks.shape} and images {self.images.shape} differ in shape")
        if len(counts) != 1:
            raise DataError(f"images, masks, reports and names differ in number: {sorted(counts)}")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:3]
        colour, masks = "grey" if self.channels == 1 else "colour", "without" if self.masks is None else "with"
        return f"Pairs({len(self)} of {height} x {width} px, {colour}, {masks} masks)"

    def __getitem__(self, index: int) -> dict:
        """One pair as plain values that torch's DataLoader can collate: ``image`` ``[C, H, W]`` uint8, ``text``,
        ``name`` and, if there are masks, ``mask`` ``[1, H, W]`` uint8."""
        index = range(len(self))[index]  # from the end if negative; IndexError beyond it
        image = self.images[index]
        channels_first = image[None] if self.channels == 1 else np.moveaxis(image, -1, 0)
        pair = {"image": channels_first, "text": self.reports[index].render(), "name": self.names[index]}
        return pair if self.masks is None else {**pair, "mask": self.masks[index][None]}

    def __iter__(self) -> Iterator[dict]:
        return (self[index] for index in range(len(self)))

    @property
    def channels(self) -> int:
        """1 for grey pictures, 3 for colour pictures."""
        return 1 if self.images.ndim == 3 else 3

    def with_channels(self, channels: int) -> Pairs:
        """These pairs with grey pictures (1) or colour pictures (3). Colours become grey by Pillow's rule."""
        if channels == self.channels:
            return self
        if channels == 3:
            return replace(self, images=np.repeat(self.images[..., None], 3, axis=3))
        weights = np.array([19595, 38470, 7471], np.uint32)
        grey = [(image.astype(np.uint32) @ weights + 0x8000) >> 16 for image in self.images]
        return replace(self, images=np.array(grey, np.uint8).reshape(self.images.shape[:3]))

    def subset(self, indices: Sequence[int], *, masks: bool = True) -> Pairs:
        """The pairs at these positions, in this order; ``masks=False`` drops the masks (unlabelled)."""
        indices = list(indices)
        return Pairs(
            self.images[indices],
            self.masks[indices] if masks and self.masks is not None else None,
            tuple(self.reports[i] for i in indices),
            tuple(self.names[i] for i in indices),
        )

    def digest(self) -> str:
        """A digest of 16 hex digits over names, reports, pictures, masks and the order of these pairs; also over the
        layout of the positions, if a user's table gives it. A setting names the other layouts."""
        about = repr((self.images.shape, self.names, [(str(r), r.style) for r in self.reports]))
        if self.reports and not (layout := self.reports[0].layout).built_in:
            about += repr((layout.names, layout.shares, layout.words))
        digest = blake2b(about.encode(), digest_size=8)
        for arrays in (self.images, self.masks):
            digest.update(b"none" if arrays is None else np.ascontiguousarray(arrays))
        return digest.hexdigest()

    def identity(self) -> str:
        """A digest of 16 hex digits that says in a run's results which pairs these were: over names, texts, masks, grey
        values and their order.

        Unlike :meth:`digest` it is the same if a run reads the zones of the texts in another way. Grey values are used
        because a run sees colours only if one of its own pictures has some.
        """
        digest = blake2b(repr((self.names, [report.render() for report in self.reports])).encode(), digest_size=8)
        for arrays in (self.with_channels(1).images, self.masks):
            digest.update(b"none" if arrays is None else np.ascontiguousarray(arrays))
        return digest.hexdigest()

    def transposed(self) -> Pairs:
        """Transposed pictures and masks, as the release's network sees them (Ledger 14): rows become columns. The
        reports do not change, so "left" then means the top."""
        masks = None if self.masks is None else self.masks.swapaxes(1, 2)
        return replace(self, images=self.images.swapaxes(1, 2), masks=masks)
