"""QaTa-COV19 with reports that are rewritten as free text, as a folder for ``--dataset folder``.

To measure the cost of free text, the same pictures need both kinds of texts. The sentences come from handmade templates
with many words and orders for side, height and number. Each sentence names the zones of its report and no others. More
than half of the templates leave out the number of areas. Some name a finding that the report does not name, such as
airspace disease. The name of a pair selects its template, so the folder is the same each time. The training pairs keep
their order, so ``--label-ratio`` selects the same pairs as in the dataset.

``python -m semimedref_core.tools.free_text_qata FOLDER`` writes ``metadata.csv`` and links to the pictures; put FOLDER
outside the repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from semimedref_core.data.datasets import data_folder
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.files import Entry
from semimedref_core.data.real.qata import find_qata
from semimedref_core.free_reports import FreeReport
from semimedref_core.networks import build_texts
from semimedref_core.networks.vocabulary import tokens_needed, told_in_training
from semimedref_core.positions import HEIGHTS, LUNGS, SIDES
from semimedref_core.reports import COUNT_WORDS, Report

CLEAR = (
    "No sign of infection in either lung.",
    "Both lungs look clear.",
    "Nothing that would suggest pneumonia.",
    "Normal chest film.",
)
"""Templates for reports without infection."""
INFECTED = (
    "{places} affected.",
    "Opacities are seen in {places}.",
    "Patchy consolidation of {places}, {digit} in all.",
    "{count} infiltrate{s}: {places}.",
    "There is airspace disease. It involves {places}.",
    "Findings are in keeping with viral pneumonia; {places}.",
    "On this film one sees {count} cloudy area{s} lying in {places}.",
    "{digit} infected area{s} ({places})",
    "Ground-glass change, most of it in {places}.",
    "Look at {places}: infection.",
    "The patient has an infection. {count} spot{s} can be made out. Where: {places}.",
    "Hazy shadowing, {places}",
    "Suspicious for COVID-19 in {places}",
    "I see {count} lesion{s}. They sit in {places}.",
)
"""Templates for other reports: ``{places}`` are the phrases of the two sides, ``{count}`` and ``{digit}`` the number of
areas."""
PHRASES = (
    lambda side, heights: f"the {_and(heights)} {side} lung",
    lambda side, heights: f"the {side} {_and(heights)} zone{_s(heights)}",
    lambda side, heights: f"the {_and(heights)} zone{_s(heights)} of the {side} lung",
    lambda side, heights: f"the {_and(heights)} part of the {side} lung",
    lambda side, heights: f"{side} {_and(heights)} lung field{_s(heights)}",
)
"""Phrases for one or two zones of a side."""
WHOLE = ("the whole {side} lung", "the entire {side} lung", "all of the {side} lung")
"""Phrases for all three zones of a side."""


def rewritten(report: Report, name: str) -> str:
    """The report as free text; the name selects the template. A report without a number gets a template without one.

    >>> rewritten(Report.of([0, 0, 1, 0, 0, 0]), "covid_1.png")
    'Patchy consolidation of the left lower zone, 1 in all.'
    """
    draw = _draws(name)
    if not any(report.zones):
        return CLEAR[draw(len(CLEAR))]
    places = []
    for side in SIDES:
        heights = [height for height, bit in zip(HEIGHTS, report.side(side), strict=True) if bit]
        if len(heights) == len(HEIGHTS):
            places.append(WHOLE[draw(len(WHOLE))].format(side=side))
        elif heights:
            places.append(PHRASES[draw(len(PHRASES))](side, heights))
    if len(places) > 1 and draw(2):
        places = places[::-1]
    number, templates, counted = report.lesions, INFECTED, {}
    if number is None:
        templates = [each for each in INFECTED if "{count}" not in each and "{digit}" not in each]
    else:
        counted = {"count": COUNT_WORDS[number], "digit": number, "s": "" if number == 1 else "s"}
    text = templates[draw(len(templates))].format(places=" and ".join(places), **counted)
    return text[0].upper() + text[1:]


def write_folder(root: str | Path, folder: str | Path, texts: str = "lvit", most: int | None = None) -> pd.DataFrame:
    """Writes the folder: ``metadata.csv``, and links to pictures and masks by split.

    Args:
        root: the folder of QaTa-COV19.
        folder: an empty folder, or a new one.
        texts: version of the reports.
        most: largest number of pairs of each split; by default all.

    Returns:
        The table.

    Raises:
        DataError: if the folder is not empty, or a report cannot be read.
    """
    folder, layout = Path(folder), find_qata(root)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty; give another folder")
    rows = []
    for split in layout.splits:
        for entry in layout.entries(split, texts)[:most]:
            rows.append(_row(folder, split, entry, texts))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "metadata.csv", index=False)
    return table


def _row(folder: Path, split: str, entry: Entry, texts: str) -> dict[str, str]:
    row = {"file_name": f"{split}/images/{entry.image.name}", "mask_file_name": f"{split}/masks/{entry.mask.name}"}
    for name, target in zip(row.values(), (entry.image, entry.mask), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target.resolve())
    return {**row, "text": rewritten(entry.report(texts), entry.name), "split": split}


def _draws(name: str):
    """``draw(n)`` gives numbers from 0 to n - 1; the same name always gives the same numbers."""
    state = int.from_bytes(blake2b(name.lower().encode(), digest_size=16).digest())

    def draw(count: int) -> int:
        nonlocal state
        state, drawn = divmod(state, count)
        return drawn

    return draw


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _s(words: Sequence[str]) -> str:
    return "s" if len(words) > 1 else ""


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    command = argparse.ArgumentParser(description="Write QaTa-COV19 with free texts, for --dataset folder.")
    command.add_argument("folder", metavar="FOLDER", help="an empty or new folder, outside the repository")
    command.add_argument("--data", default="", help="folder of QaTa-COV19 (default: SEMIMEDREF_DATA)")
    command.add_argument("--texts", default="lvit", choices=("lvit", "release"))
    options = command.parse_args(arguments)
    table = write_folder(data_folder(options.data), options.folder, options.texts)
    reports = [FreeReport.of(text, LUNGS) for text in table["text"]]
    located = sum(report.located for report in reports)
    print(f"{len(table)} pairs, {table['text'].nunique()} distinct texts, written to {options.folder}/")
    print(f"the reader finds zones in {located} of them")
    trained = [report for report, split in zip(reports, table["split"], strict=True) if split == "train"]
    needed = max(tokens_needed(build_texts(words_of=told_in_training(trained)), reports))
    print(f"train with --dataset folder --data {options.folder} --text-length {needed}")


if __name__ == "__main__":
    main()
