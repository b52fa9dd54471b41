"""Frames of moving pictures. All frames of a picture have the same layout, so only changes move."""

from __future__ import annotations

import difflib
import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from semimedref_core.figures.canvas import PATCH, PREDICTED, SKY, TYPE, as_text, box, outline
from semimedref_core.figures.mixing import COMES
from semimedref_core.reports import Report

DPI, COLOURS = 144, 200
LETTER = 0.602 * TYPE / 72  # width of a letter in inches, in a monospaced font
WIDTH = 7.2  # inches


def mixing_frames(
    images: np.ndarray,
    p: np.ndarray,
    mixed: np.ndarray,
    target: np.ndarray,
    zone: Sequence[int],
    patch: Sequence[int],
    reports: Sequence[Report],
    means: tuple[float, float],
) -> list[Figure]:
    """T-PatchMix of one pair in five frames: the pair, a proposal, the gate, the paste, the text.

    Args:
        images: ``[2, H, W]`` receiver and donor; p: ``[H, W]`` probabilities of the teacher on the donor.
        mixed, target: ``[H, W]`` for the student.
        zone, patch: (y0, x0, y1, x1) px, of the named zone and of the patch in it.
        reports: of the receiver, of the donor, and for the student.
        means: the teacher's mean probability in the patch, and the gate.
    """
    captions = (
        "Two pairs of picture and report: a receiver and a donor.",
        "1  Propose: a patch in a zone that the donor's report names.",
        f"2  Gate: the teacher's mean in the patch is {means[0]:.2f}; {means[1]:.2f} is asked.",
        "3  Paste: the student's picture and its target change.",
        "4  Rewrite: the report says what the picture now shows.",
    )
    return [_mixing_frame(step, caption, images, p, mixed, target, zone, patch, reports)
            for step, caption in enumerate(captions)]  # fmt: skip


def _mixing_frame(step: int, caption: str, images, p, mixed, target, zone, patch, reports: Sequence[Report]) -> Figure:
    figure, axes, words = _page(caption, 3, 5)
    pasted, (own, donor, told) = step >= 3, (report.render() for report in reports)
    shown = {"the student sees" if pasted else "receiver": mixed if pasted else images[0], "donor": images[1]}
    for ax, (title, image) in zip(axes, shown.items(), strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_title(title, fontsize=TYPE)
    axes[2].imshow(p, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    axes[2].set_title("the teacher on the donor", fontsize=TYPE)
    if step >= 1:
        box(axes[1], zone, SKY, fill=0.15)
        for ax in axes[: 2 if step == 1 else 3]:
            box(ax, patch, PATCH, "dashed", 2.2)
    if pasted:
        outline(axes[0], target, PREDICTED)
    row = _write(words, 0, "student reads", told, own) if step == 4 else _write(words, 0, "receiver", own, own)
    _write(words, row + 0.5, "donor", donor, donor)
    return figure


def teacher_frame(images: np.ndarray, masks: np.ndarray, probs: np.ndarray, caption: str) -> Figure:
    """The teacher's predictions on three pictures at one moment: ``[3, H, W]`` pictures, masks, probabilities."""
    figure, axes, words = _page(caption, 3, 2)
    for ax, image, mask, p in zip(axes, images, masks, probs, strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.imshow(np.ones((*p.shape, 3)) * np.array([230, 159, 0]) / 255, alpha=0.55 * p, interpolation="nearest")
        outline(ax, mask)
    words.text(0, 0.5, "blue: the mask, which the teacher has never seen", fontsize=TYPE, va="center")
    words.text(0, 1.7, "orange: where the teacher finds a lesion, the stronger the surer", fontsize=TYPE, va="center")
    return figure


def _page(caption: str, columns: int, lines: int) -> tuple[Figure, np.ndarray, Axes]:
    """Makes a caption, panels below it, and below them an ``Axes`` for text, whose y counts lines from the top."""
    gap, top, line = 0.14, 0.6, 0.24  # inches
    side = (WIDTH - gap * (columns + 1)) / columns
    height = top + side + line * (lines + 1)
    figure = plt.figure(figsize=(WIDTH, height))
    figure.text(gap / WIDTH, 1 - 0.18 / height, as_text(caption), fontsize=TYPE + 3, weight="bold", va="center")
    places = [(gap + k * (side + gap), line * (lines + 1)) for k in range(columns)]
    axes = [figure.add_axes((x / WIDTH, y / height, side / WIDTH, side / height)) for x, y in places]
    wide = WIDTH - 2 * gap
    words = figure.add_axes((gap / WIDTH, 0, wide / WIDTH, line * (lines + 0.7) / height))
    words.set(xlim=(0, wide / LETTER), ylim=(lines + 0.7, 0))
    for ax in (*axes, words):
        ax.set_axis_off()
    return figure, np.array(axes), words


def _write(ax: Axes, row: float, label: str, text: str, before: str) -> float:
    """Writes a text in a monospaced font and marks new words. Returns the row below the text."""
    blocks = difflib.SequenceMatcher(a=text.split(), b=before.split(), autojunk=False).get_matching_blocks()
    kept, count = {start + n for start, _, length in blocks for n in range(length)}, 0
    indent, style = 15, {"family": "DejaVu Sans Mono", "fontsize": TYPE, "va": "center"}
    ax.text(0, row + 0.5, label, weight="bold", **style)
    for line in textwrap.wrap(text, int(ax.get_xlim()[1]) - indent):
        x = indent
        for word in line.split():
            mark = None if count in kept else {"facecolor": COMES, "edgecolor": "none", "pad": 1.2}
            ax.text(x, row + 0.5, as_text(word), bbox=mark, **style)
            x, count = x + len(word) + 1, count + 1
        row += 1
    return row


def drawn(figure: Figure) -> Image.Image:
    """Draws a figure as one colour frame and closes the figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    plt.close(figure)
    return Image.open(file).convert("RGB")


def save(path: Path, figures: Iterable[Figure], seconds: Sequence[float], note: str = "-") -> None:
    """Writes an endless animated GIF that shows each frame for its seconds; ``note`` records its settings."""
    frames = [drawn(figure) for figure in figures]
    # All frames share a palette, so unchanged parts are equal in all frames and need no more bytes.
    every = Image.fromarray(np.concatenate([np.asarray(image) for image in frames]))
    colours = np.array(every.quantize(COLOURS).getpalette()[: 3 * COLOURS]).reshape(-1, 3)
    colours[colours.min(1) > 245] = 255  # the background is white; the median cut makes it slightly darker
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    first, *others = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames)
    first.save(path, save_all=True, append_images=others, duration=[int(1000 * s) for s in seconds], loop=0,
               optimize=True, comment=note)  # fmt: skip
