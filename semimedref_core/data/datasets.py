"""Datasets by name: what a run trains on and validates on."""

from __future__ import annotations

import os
from dataclasses import dataclass

from semimedref_core.config import Config
from semimedref_core.data.mosmed import MOSMED_PLUS
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.phantom import phantom
from semimedref_core.data.qata import QATA_COV19
from semimedref_core.data.sources import Source
from semimedref_core.data.splits import labelled_indices

SOURCES = {source.key: source for source in (QATA_COV19, MOSMED_PLUS)}
"""The datasets that are read from files, by name."""


@dataclass(frozen=True)
class Training:
    """The pairs of a run: ``labelled`` and ``valid`` with masks, ``unlabelled`` without (``None`` if none is left or
    wanted)."""

    labelled: Pairs
    valid: Pairs
    unlabelled: Pairs | None = None


def data_folder(folder: str = "") -> str:
    """The folder of the real data: the one given, else the environment variable SEMIMEDREF_DATA.

    Raises:
        DataError: if neither is set.
    """
    folder = folder or os.environ.get("SEMIMEDREF_DATA", "")
    if not folder:
        raise DataError(
            "no data folder: give --data or set SEMIMEDREF_DATA to the folder that holds QaTa/ or MosMedData+/; "
            "the datasets phantom and phantom-ct need none"
        )
    return folder


def load_split(config: Config, split: str) -> Pairs:
    """One split with its masks, decoded to the run's image size.

    Raises:
        DataError: naming everything that is wrong with the files.
    """
    if source := SOURCES.get(config.dataset):
        return source.load(data_folder(config.data), split, config.image_size, config.texts)
    return phantom(split, size=config.image_size, modality=_modality(config))


def load_training(config: Config, unlabelled: bool) -> Training:
    """The labelled pairs of the run's label ratio, the rest of the train split without masks, and the valid split.

    Raises:
        DataError: naming everything that is wrong with the files, or the ratio.
    """
    if source := SOURCES.get(config.dataset):
        names = [entry.name for entry in source.find(data_folder(config.data)).entries("train", config.texts)]
        chosen, rest = _divide(names, config)
        parts = [("train", chosen, True), ("valid", None, True)]
        if unlabelled and rest:
            parts.append(("train", rest, False))
        return Training(*_load_parts(source, config, parts))
    train = load_split(config, "train")
    chosen, rest = _divide(train.names, config)
    others = train.subset(rest, masks=False) if unlabelled and rest else None
    return Training(train.subset(chosen), load_split(config, "valid"), others)


def _load_parts(source: Source, config: Config, parts: list[tuple[str, list[int] | None, bool]]) -> list[Pairs]:
    """Loads (split, positions, with masks?) one after the other; what is wrong with any is told in one message."""
    loaded, problems = [], []
    for split, indices, masks in parts:
        try:
            loaded.append(source.load(data_folder(config.data), split, config.image_size, config.texts, indices, masks))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return loaded


def _divide(names, config: Config) -> tuple[list[int], list[int]]:
    chosen = sorted(labelled_indices(names, config.label_ratio, config.dataset.removesuffix("-ct")))
    return chosen, sorted(set(range(len(names))) - set(chosen))


def _modality(config: Config) -> str:
    return "ct" if config.dataset == "phantom-ct" else "xray"
