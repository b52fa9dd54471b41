"""Reports with something changed in them, by chance: a letter, a word, an order. Each is read right or refused.

``python mutated_reports.py COUNT SEED`` reads so many, made of the reports in SEMIMEDREF_DATA where it is set, else of
the phantom's, and prints what came out and how long the slowest took, in time of the CPU.
"""

import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from semimedref_core.data.phantom import phantom
from semimedref_core.data.real.qata import QATA_COV19
from semimedref_core.reports import HEIGHTS, SIDES, ZONES, Report, ReportError

WORDS = (*SIDES, *HEIGHTS, "all", "lung", "and", ",", ".", "no", "unilateral", "bilateral", "zero", "three", "infected",
         "area", "both", "bright", "lobe", "heart", "\u202e", "\x00", "left\u200b", "ＬＥＦＴ", "ſide")  # fmt: skip


def real_reports() -> list[str]:
    """Distinct texts: those of the real data where they are there, else the phantom's."""
    if not os.environ.get("SEMIMEDREF_DATA"):
        return sorted({report.render() for report in phantom("train", size=32).reports})
    layout = QATA_COV19.find(os.environ["SEMIMEDREF_DATA"])
    found = set()
    for split, files in layout.splits.items():
        for version in files.tables:
            found |= {entry.text for entry in layout.entries(split, version)}
    return sorted(found)


def mutated(text: str, chance: random.Random) -> str:
    """A text with one or two changes."""
    for _ in range(chance.randint(1, 2)):
        words, place = text.split(" "), chance.randrange(max(1, len(text)))
        i, j = chance.randrange(len(words)), chance.randrange(len(words))
        letter = chance.choice("abcdefghijklmnopqrstuvwxyz ,.\t\n\x1b$é左")
        change = chance.randrange(8)
        if change == 0:
            text = text[:place] + text[place + 1 :]
        elif change == 1:
            text = text[:place] + letter + text[place:]
        elif change == 2:
            text = text[:place] + letter + text[place + 1 :]
        elif change == 3:
            words[i], words[j] = words[j], words[i]
            text = " ".join(words)
        elif change == 4:
            text = " ".join([*words[:i], *words[i + 1 :]])
        elif change == 5:
            text = " ".join([*words[:i], chance.choice(WORDS), *words[i:]])
        elif change == 6:
            text = text[:place]
        else:
            text = " ".join([*words, *words[i:]])
    return text


def mutations(texts: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """So many mutated texts; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        yield mutated(chance.choice(texts), chance)


def guessed(text: str, report: Report) -> list[str]:
    """The zones that a report claims without their being in the text.

    A side must stand there as a word, or the other one beside a second phrase, which then means the missing side.
    A height must stand there, but for a letter, unless its phrase names none or all of them.
    """
    said = [word.strip(",.") for word in text.lower().split()]
    phrases = [phrase for phrase in re.split(r"\band\b", " ".join(said)) if re.search(r"\blung$", phrase.strip())]
    found = []
    for zone, there in zip(ZONES, report.zones, strict=True):
        side, height = zone.split()
        other = SIDES[1 - SIDES.index(side)]
        named = side in said or (other in said and len(phrases) == 2)
        whole = [phrase for phrase in phrases if "all" in phrase.split() or not _height_in(phrase.split())]
        if there and not (named and (whole or any(_near(word, height) for word in said))):
            found.append(zone)
    return found


def _height_in(words: Sequence[str]) -> bool:
    return any(_near(word, height) for word in words for height in HEIGHTS)


def _near(word: str, height: str) -> bool:
    """The same letters but for one, or in another order."""
    return word == height or (
        abs(len(word) - len(height)) <= 1 and sum((Counter(word) - Counter(height)).values()) <= 1
    )


def read_all(texts: Sequence[str], count: int, seed: int) -> dict:
    """What reading so many mutated texts gives; an error other than ReportError is not caught."""
    told, wrong, slowest = Counter(), [], 0.0
    for text in mutations(texts, count, seed):
        started = time.thread_time()
        try:
            report = Report.parse(text)
        except ReportError:
            report = None
        slowest = max(slowest, time.thread_time() - started)
        told["refused" if report is None else "read"] += 1
        if report is not None:
            if zones := guessed(text, report):
                wrong.append((text, zones))
            assert Report.parse(report.render()) == report
    return {**told, "guessed": wrong, "slowest (ms)": round(1000 * slowest, 2)}


if __name__ == "__main__":
    texts = real_reports()
    found = read_all(texts, int(sys.argv[1]), int(sys.argv[2]))
    print(f"{len(texts)} texts, {sys.argv[1]} mutated: {found['read']} read, {found['refused']} refused")
    print(f"zones that no word names: {len(found['guessed'])}; the slowest took {found['slowest (ms)']} ms")
    sys.exit(1 if found["guessed"] else 0)
