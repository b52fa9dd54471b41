"""PosAug: texts with highlighted phrases, tokens, and the frequency of hits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from semimedref_core.figures.canvas import BLACK, BLUE, GREEN, ORANGE, SKY, VERMILION, as_text
from semimedref_core.posaug import Stretch

# kind of a part: (background, opacity, colour of the letters, name in the key)
KINDS = {
    "position": (SKY, 0.45, BLACK, "position phrase"),
    "mask": (BLACK, 0.85, "white", "masked"),
    "fuzz": (ORANGE, 0.55, BLACK, "made fuzzy"),
    "found": (SKY, 0.45, BLACK, "found by the pattern"),
    "missed": (VERMILION, 0.55, BLACK, "missed"),
    "special": (BLACK, 0.15, BLACK, "special token"),
}
COLUMN, LINE = 0.1, 0.25  # width of a character (whole pixels at 70, 80 and 110 dpi) and height of a line, in inches
FONT = {
    "family": "DejaVu Sans Mono",
    "fontsize": COLUMN * 72 / 0.602,
}  # the width of a character of this font is 0.602 em
WIDTH, LABEL, ICON = 104, 17, 7  # characters of a page, of the labels on the left, of the zones on the right
TEXT = WIDTH - LABEL - ICON
CELLS = [(column, row) for column in range(2) for row in range(3)]  # places of ZONES in the image


def text_rows(rows: Sequence[tuple[str, Sequence[Stretch]]], zones: Sequence[Sequence[int]] | None = None) -> Figure:
    """Texts below each other, with highlighted phrases.

    Args:
        rows: (label, parts of the text), from top to bottom.
        zones: six 0/1 for each row, drawn beside it as a small map of the image.
    """
    flows = [_flow(text) for _, text in rows]
    heights = [max(flow[-1][0] + 1, 2 if zones is not None else 1) + 0.45 for flow in flows]
    figure, ax = _page(sum(heights) + 1.3)
    y = 0.0
    for r, ((label, _), flow, height) in enumerate(zip(rows, flows, heights, strict=True)):
        _write(ax, y, label, flow)
        if zones is not None:
            _zone_map(ax, y, zones[r])
        y += height
    _key(ax, y + 0.3, [part.kind for _, text in rows for part in text], zones is not None)
    return figure


def token_rows(rows: Sequence[tuple[str, Sequence[tuple[Stretch, int]]]]) -> Figure:
    """The tokens of texts: each word in a box, with its id below.

    Args:
        rows: (label, tokens); a token is its word, the kind of its part, and its id.
    """
    flows = [_token_flow(tokens) for _, tokens in rows]
    figure, ax = _page(sum(2.3 * (flow[-1][0] + 1) + 0.3 for flow in flows) + 1)
    y = 0.0
    for (label, _), flow in zip(rows, flows, strict=True):
        y = _write_tokens(ax, y, label, flow)
    _key(ax, y, [token.kind for _, tokens in rows for token, _ in tokens])
    return figure


def reading(
    before: Sequence[Stretch], after: Sequence[Stretch], tokens: Sequence[tuple[Stretch, int]], zones: Sequence[int]
) -> Figure:
    """One draw: the report with its zones, the text that the student reads, its tokens (see :func:`token_rows`)."""
    texts, boxes = [_flow(before), _flow(after)], _token_flow(tokens)
    heights = [max(flow[-1][0] + 1, 2) + 0.6 for flow in texts]
    figure, ax = _page(sum(heights) + 2.3 * (boxes[-1][0] + 1) + 1.3)
    _write(ax, 0, "report", texts[0])
    _write(ax, heights[0], "student reads", texts[1])
    for y in (0, heights[0]):
        _zone_map(ax, y, zones)
    y = _write_tokens(ax, sum(heights), "tokens", boxes)
    _key(ax, y, [part.kind for part in (*before, *after)], True)
    return figure


def hit_shares(
    ps: Sequence[float],
    measured: Mapping[str, Sequence[float]],
    expected: Mapping[str, Callable[[np.ndarray], np.ndarray]],
) -> Figure:
    """Measured shares of draws at ``ps`` (dots) and expected shares as functions of p (lines), with the same names."""
    figure, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    every = np.linspace(0, 1, 101)
    looks = zip((SKY, ORANGE, GREEN), "osD", ("solid", "dashed", "dotted"), strict=True)
    for (name, shares), (colour, marker, style) in zip(measured.items(), looks, strict=False):
        ax.plot(every, expected[name](every), color=colour, linestyle=style, linewidth=2)
        ax.plot(ps, shares, marker, color=colour, markeredgecolor=BLACK, markersize=7, label=name)
    ax.set(xlabel="p", ylabel="share of the draws", ylim=(-0.03, 1.03))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, title="dots: measured\nlines: independent hits")
    return figure


def _page(lines: float) -> tuple[Figure, Axes]:
    """A page of ``lines`` lines; x counts characters, and y counts lines from the top."""
    figure = plt.figure(figsize=(WIDTH * COLUMN, lines * LINE))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(lines, -0.2))
    ax.set_axis_off()
    return figure, ax


def _flow(text: Sequence[Stretch]) -> list[tuple[int, int, Stretch]]:
    """The places of a text's words: (line, column, words of one part on one line)."""
    line, column, runs = 0, 0, []
    for part in text:
        start, words = column, ""
        for word in re.findall(r"\s+|\S+", part.text):
            if word.strip(".,") and column + len(word) > TEXT - 1:
                runs.append((line, start, Stretch(words.rstrip(), part.kind)))
                line, column, start, words = line + 1, 0, 0, ""
            words += word
            column += len(word)
        runs.append((line, start, Stretch(words, part.kind)))
    return [run for run in runs if run[2].text.strip()]


def _token_flow(tokens: Sequence[tuple[Stretch, int]]) -> list[tuple[int, int, int, Stretch, int]]:
    """The places of the boxes of tokens: (line, column, width, word, id)."""
    line, column, boxes = 0, 0, []
    for part, number in tokens:
        width = max(len(part.text), len(str(number))) + 1
        if column + width > TEXT:
            line, column = line + 1, 0
        boxes.append((line, column, width, part, number))
        column += width + 1
    return boxes


def _write(ax: Axes, y: float, label: str, flow: list[tuple[int, int, Stretch]]) -> None:
    ax.text(0.5, y + 0.5, label, va="center", color="#444444", **FONT)
    for line, column, part in flow:
        _highlight(ax, LABEL + column, y + line, len(part.text), part)
        ax.text(LABEL + column, y + line + 0.5, as_text(part.text), va="center", color=_letters(part), **FONT)


def _write_tokens(ax: Axes, y: float, label: str, flow: list[tuple[int, int, int, Stretch, int]]) -> float:
    """Draws the boxes; returns the y below them."""
    ax.text(0.5, y + 0.5, label, va="center", color="#444444", **FONT)
    small = {**FONT, "fontsize": 0.85 * FONT["fontsize"]}
    for line, column, width, part, number in flow:
        x, top = LABEL + column, y + 2.3 * line
        box = FancyBboxPatch((x, top), width, 1, boxstyle="round,pad=0,rounding_size=0.2", mutation_aspect=0.5)
        box.set(facecolor="none", edgecolor="#888888", linewidth=0.8)
        _highlight(ax, x, top, width, part)
        ax.add_patch(box)
        ax.text(x + width / 2, top + 0.5, as_text(part.text), ha="center", va="center", color=_letters(part), **FONT)
        ax.text(x + width / 2, top + 1.5, str(number), ha="center", va="center", color="#444444", **small)
    return y + 2.3 * (flow[-1][0] + 1) + 0.3


def _highlight(ax: Axes, x: float, y: float, width: float, part: Stretch) -> None:
    if part.kind in KINDS:
        colour, opacity = KINDS[part.kind][:2]
        ax.add_patch(Rectangle((x, y + 0.02), width, 0.96, facecolor=colour, alpha=opacity, edgecolor="none"))


def _letters(part: Stretch) -> str:
    return KINDS[part.kind][2] if part.kind in KINDS else BLACK


def _zone_map(ax: Axes, y: float, zones: Sequence[int]) -> None:
    """The six zones at their places in the image, two lines high. Named zones are filled."""
    for (column, row), named in zip(CELLS, zones, strict=True):
        place = (WIDTH - ICON + 2 + 2.2 * column, y + 0.63 * row)
        ax.add_patch(Rectangle(place, 2.2, 0.63, facecolor=BLUE if named else "white", edgecolor="#AAAAAA", lw=0.8))


def _key(ax: Axes, y: float, kinds: Sequence[str], maps: bool = False) -> None:
    """Explains the used colours."""
    x, small = LABEL, {**FONT, "fontsize": 0.85 * FONT["fontsize"]}
    used = [KINDS[kind] for kind in KINDS if kind in kinds]
    for colour, opacity, _, meaning in [*used, *([(BLUE, 1, BLACK, "zone named by the report")] if maps else [])]:
        ax.add_patch(Rectangle((x, y + 0.15), 2, 0.7, facecolor=colour, alpha=opacity, edgecolor="none"))
        ax.text(x + 2.7, y + 0.5, meaning, va="center", color="#444444", **small)
        x += 5 + 0.87 * len(meaning)
