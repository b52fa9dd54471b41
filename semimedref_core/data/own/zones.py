"""The zones that texts may name: a built-in layout, a user's table, or the table that a network was trained with. Also
reads zones that a table of pairs lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from semimedref_core.config import TextSides, require_valid
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.report_tables import read_table, reason_of
from semimedref_core.positions import LAYOUTS, MOST_ZONES, Positions
from semimedref_core.reading import read_positions

EDGES = ("left", "top", "right", "bottom")
_SEPARATOR = re.compile(r"\s*[;|,]\s*")


def layout_named(positions: str | Positions, text_sides: TextSides = "image") -> Positions:
    """The layout for the settings ``positions`` and ``text_sides``; a layout itself is returned unchanged.

    A table has one row for each zone. Its column ``words`` holds the words for the zone, separated by ``;``; new texts
    use the first ones. The columns ``left``, ``top``, ``right`` and ``bottom`` are the edges of its box, as shares of
    the picture, 0 to 1.

    Raises:
        ConfigError: if there are no such text_sides.
        DataError: names all problems of a table.
    """
    require_valid("text_sides", text_sides)
    if isinstance(positions, Positions):
        return positions
    if positions in LAYOUTS:
        layout = LAYOUTS[positions]
        return layout.of_the_patient() if text_sides == "patient" else layout
    layout = _read_table(Path(positions).expanduser())
    if text_sides == "patient":
        raise DataError(
            f"{positions}: its boxes say already which half of the image each word means; leave text_sides at image"
        )
    return layout


def recorded(positions: str, text_sides: TextSides, layout: Positions) -> dict:
    """The entries for a network's ``config.json`` that :func:`layout_of` reads. They hold the table of a user's layout
    and the name of its file, without its folder. So the network needs neither the file nor this machine's folders."""
    if positions in LAYOUTS:
        return {"positions": positions, "text_sides": text_sides}
    boxes = [[left, top, right, bottom] for top, left, bottom, right in layout.shares]
    table = {"words": [list(words) for words in layout.words], "boxes": boxes}
    return {"positions": Path(positions).name, "text_sides": text_sides, "layout": table}


def layout_of(about: dict) -> Positions:
    """The layout of the texts that a network was trained on.

    Args:
        about: its ``config.json``. Older ones have no ``layout``, only the path of the table.

    Raises:
        DataError: if there is no such layout; names all problems.
    """
    table = about.get("layout")
    if table is None:
        return layout_named(str(about.get("positions", "lung")), about.get("text_sides", "image"))
    where = "layout in the network's config.json"
    try:
        words = [tuple(str(word) for word in list(names)) for names in table["words"]]
        return _layout(where, words, [tuple(box) for box in table["boxes"]])
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: has no words and boxes of zones ({error!r:.80}); get the file again") from None


def zones_listed(text: str, layout: Positions) -> tuple[int, ...] | None:
    """The zones that a cell lists, such as ``left lower; right upper``: 0 or 1 for each; None for an empty cell.

    Here "left" and "right" always mean sides of the image, whatever they mean in the texts. A list of 0 and 1 in the
    order of the zones is allowed too. ``[]`` lists no zone. "None" is refused: a program may have written it for a
    missing value.

    Raises:
        DataError: for a word that is not a zone, and for any zone of ``positions none``, which has no words for them.
    """
    text = text.strip()
    parts = [part for part in _SEPARATOR.split(text.strip("[] ").lower()) if part]
    if not parts:
        return (0,) * len(layout) if text.startswith("[") else None
    if len(parts) == len(layout) > 1 and set(parts) <= {"0", "1"}:
        return tuple(map(int, parts))
    known = {" ".join(sorted(name.lower().split())): k for k, name in enumerate(layout.names)}
    found = [known.get(" ".join(sorted(part.split()))) for part in parts]
    if None in found:
        raise DataError(f"{parts[found.index(None)]!r} is no zone; choose of {', '.join(layout.names)}, or [] for none")
    if not any(layout.words):
        raise DataError("positions 'none' has no words for zones; leave the cell empty, or give --positions")
    return tuple(int(k in found) for k in range(len(layout)))


def better_layout(texts: Sequence[str], layout: Positions) -> str:
    """A hint at another built-in layout, if few texts name a zone of this layout and far more name one of the other.
    Otherwise the hint is empty."""
    here, *others = (sum(bool(read_positions(text, each)) for text in texts) for each in (layout, *LAYOUTS.values()))
    most = max(others)
    if 2 * here >= len(texts) or most <= 2 * here:
        return ""
    return f"{most} of these {len(texts)} texts name a zone with --positions {list(LAYOUTS)[others.index(most)]}"


def _read_table(path: Path) -> Positions:
    try:
        table = read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such table of positions") from None
    except DataError:
        raise
    except Exception as error:  # errors of encodings and of broken CSV share no base class
        raise DataError(f"{path}: no readable table of positions ({reason_of(error)})") from None
    table = table.rename(columns=lambda name: str(name).strip().lower())
    if missing := [name for name in ("words", *EDGES) if list(table.columns).count(name) != 1]:
        raise DataError(
            f"{path}: the columns of a table of positions are words, {', '.join(EDGES)}; see {missing[0]!r}"
        )
    table[list(EDGES)] = table[list(EDGES)].replace(",", ".", regex=True)  # decimal commas, as many countries write
    words = [tuple(filter(None, (each.strip().lower() for each in cell.split(";")))) for cell in table["words"]]
    return _layout(str(path), words, list(zip(*(table[name] for name in EDGES), strict=True)))


def _layout(where: str, words: Sequence[tuple[str, ...]], boxes: Sequence[Sequence]) -> Positions:
    """The layout of these words and boxes (left, top, right, bottom).

    Raises:
        DataError: names all problems; ``where`` begins the message.
    """
    if not 1 <= len(words) <= MOST_ZONES:
        raise DataError(
            f"{where}: lists {len(words)} zones; a table of positions has 1 to {MOST_ZONES}, as ITCL's kernels tell "
            f"{2**MOST_ZONES} sets of zones apart; let words share a zone, as the clock in docs/own_data.md does"
        )
    if len(words) != len(boxes):
        raise DataError(f"{where}: has words for {len(words)} zones and {len(boxes)} boxes")
    problems, shares = [], []
    for row, (names, edges) in enumerate(zip(words, boxes, strict=True), 2):
        try:
            left, top, right, bottom = map(float, edges)
        except ValueError:
            problems.append(f"row {row}: edges {', '.join(map(str, edges))} are no numbers")
            shares.append(None)
            continue
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            problems.append(f"row {row}: the box must have 0 <= left < right <= 1 and 0 <= top < bottom <= 1")
        if not names:
            problems.append(f"row {row}: no words")
        shares.append((top, left, bottom, right))
    problems += [f"row {row}: the same box as row {shares.index(box) + 2}" for row, box in _again(shares) if box]
    problems += [f"row {row}: begins with the same words as another" for row, _ in _again([each[:1] for each in words])]
    if problems:
        raise DataError("\n".join([f"{where}: {len(problems)} problem(s) in this table of positions:", *problems]))
    return Positions(names=tuple(names[0] for names in words), shares=tuple(shares), words=tuple(words))


def _again(values: Sequence) -> list[tuple[int, object]]:
    """The rows whose value already occurred in an earlier row."""
    return [(k + 2, value) for k, value in enumerate(values) if value in values[:k]]
