"""Datasets by name, for training and validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from semimedref_core.config import Dataset, Texts, TextSides, require_effect, require_valid
from semimedref_core.data.content import require_content
from semimedref_core.data.own.folder import OwnData, grey_if_it_is
from semimedref_core.data.own.zones import better_layout
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.phantom import phantom
from semimedref_core.data.real.mosmed import MOSMED_PLUS
from semimedref_core.data.real.qata import QATA_COV19
from semimedref_core.data.splits import labelled_indices
from semimedref_core.positions import Positions

SOURCES = {source.key: source for source in (QATA_COV19, MOSMED_PLUS)}
"""The datasets that are read from files, by name."""


@dataclass(frozen=True)
class Training:
    """The pairs of a run: ``labelled`` and ``valid`` with masks, ``unlabelled`` without masks (``None`` if there are
    none or none are needed). ``notes`` are remarks for the user."""

    labelled: Pairs
    valid: Pairs
    unlabelled: Pairs | None = None
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """A fingerprint of all pairs, see :meth:`.pairs.Pairs.digest`."""
        parts = (self.labelled, self.valid, self.unlabelled)
        return " ".join("none" if part is None else part.digest() for part in parts)

    def transposed(self) -> Training:
        """These pairs with pictures and masks on their side, see :meth:`.pairs.Pairs.transposed`."""
        parts = (pairs and pairs.transposed() for pairs in (self.labelled, self.valid, self.unlabelled))
        return Training(*parts, notes=self.notes)


def data_folder(folder: str = "") -> str:
    """The folder of the real data: the argument, or else the environment variable SEMIMEDREF_DATA.

    Raises:
        DataError: if neither is set.
    """
    folder = folder or os.environ.get("SEMIMEDREF_DATA", "")
    if not folder:
        raise DataError(
            "no data folder: set SEMIMEDREF_DATA (or the setting `data`) to the folder that holds QaTa/ or "
            "MosMedData+/, or your own metadata.csv; the datasets phantom and phantom-ct need none"
        )
    return os.path.expanduser(folder)  # a shell does not expand the ~ in --data=~/x or in a plan


def load_split(
    dataset: Dataset,
    split: str,
    image_size: int = 96,
    data: str = "",
    texts: Texts = "lvit",
    mask_values: str = "",
    positions: str | Positions = "lung",
    text_sides: TextSides = "image",
) -> Pairs:
    """Loads one split with its masks, decoded to one size.

    Args:
        dataset: ``phantom``, ``phantom-ct``, ``qata``, ``mosmed``, or ``folder`` for your own data (docs/own_data.md).
        split: ``train``, ``valid`` or ``test``.
        image_size: height and width, px.
        data: folder of the real data, see :func:`data_folder`.
        texts: version of the real reports.
        mask_values: the values of real masks that mean lesion; see :func:`semimedref_core.config.mask_values`.
        positions, text_sides: for your own texts; see :func:`.own.zones.layout_named`. ``positions`` may also be a
            layout.

    Raises:
        ConfigError: for an unknown dataset, texts or text_sides, or a setting without an effect on the dataset.
        DataError: names all problems of the files. Also if pairs of the split have no mask; :func:`load_training` loads
            these.

    >>> from semimedref_core import load_split
    >>> valid = load_split("phantom", "valid", image_size=32)
    >>> len(valid), valid.images.shape
    (200, (200, 32, 32))
    >>> str(valid.reports[0])
    'bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.'
    """
    _require_known(dataset, texts, mask_values, positions, text_sides)
    if source := SOURCES.get(dataset):
        return source.load(data_folder(data), split, image_size, texts, mask_values=mask_values)
    if dataset == "folder":
        own = OwnData.find(data_folder(data), positions, text_sides)
        (pairs,) = grey_if_it_is(own.load(own.entries(split), image_size, True, f"folder {split}", mask_values))
        return pairs
    return phantom(split, size=image_size, modality="ct" if dataset == "phantom-ct" else "xray")


def load_training(
    dataset: Dataset,
    label_ratio: float,
    image_size: int = 96,
    data: str = "",
    texts: Texts = "lvit",
    unlabelled: bool = True,
    mask_values: str = "",
    positions: str = "lung",
    text_sides: TextSides = "image",
) -> Training:
    """Loads the labelled pairs of a label ratio, the rest of the train split without masks, and the valid split.

    Args:
        dataset, image_size, data, texts, mask_values, positions, text_sides: as in :func:`load_split`.
        label_ratio: share of the training pairs whose masks are used, above 0 up to 1.
        unlabelled: ``False`` does not read the rest of the train split.

    Raises:
        ConfigError: as in :func:`load_split`.
        DataError: names all problems of the files, or the wrong ratio. Also if nothing can be learnt from the pairs;
            see :func:`.content.nothing_to_learn`.

    >>> from semimedref_core import load_training
    >>> pairs = load_training("phantom", label_ratio=0.05, image_size=32)
    >>> len(pairs.labelled), len(pairs.unlabelled), pairs.unlabelled.masks
    (40, 760, None)
    """
    _require_known(dataset, texts, mask_values, positions, text_sides)
    if source := SOURCES.get(dataset):
        folder = data_folder(data)
        names = [entry.name for entry in source.find(folder).entries("train", texts)]
        chosen, rest = _divide(names, label_ratio, dataset)

        def load(split: str, indices: list[int] | None, masks: bool) -> Pairs:
            return source.load(folder, split, image_size, texts, indices, masks, mask_values)

        return _loaded(load, chosen, rest if unlabelled else [], dataset)
    if dataset == "folder":
        own = OwnData.find(data_folder(data), positions, text_sides)
        entries = {split: own.entries(split) for split in ("train", "valid")}
        names = [entry.name for entry in entries["train"]]
        masked = [name not in own.unmasked for name in names]
        chosen, rest = _divide(names, label_ratio, dataset, masked)
        notes = [*own.notes, *own.table.remarks]
        if len(chosen) < sum(masked):
            notes.append(
                f"{len(chosen)} of the {sum(masked)} masks of training pairs are used; --label-ratio "
                f"{sum(masked) / len(names):.4g} uses all"
            )

        def load_own(split: str, indices: list[int] | None, masks: bool) -> Pairs:
            wanted = entries[split] if indices is None else [entries[split][i] for i in indices]
            return own.load(wanted, image_size, masks, f"folder {split}", mask_values)

        training = _loaded(load_own, chosen, rest if unlabelled else [], dataset)
        parts = grey_if_it_is(training.labelled, training.valid, training.unlabelled)
        return Training(*parts, notes=(*notes, *_without_zones(training)))
    train = load_split(dataset, "train", image_size)
    chosen, rest = _divide(train.names, label_ratio, dataset)
    others = train.subset(rest, masks=False) if unlabelled and rest else None
    return Training(train.subset(chosen), load_split(dataset, "valid", image_size), others)


def _require_known(dataset: str, texts: str, mask_values: str, positions: str | Positions, text_sides: str) -> None:
    """Checks names before any file is read: a misspelt dataset would be the phantom, and misspelt sides the image's.

    Raises:
        ConfigError: names the value and the allowed ones.
    """
    for name, value in (("dataset", dataset), ("texts", texts), ("text_sides", text_sides)):
        require_valid(name, value)
    require_effect(dataset, mask_values=mask_values, positions=positions, text_sides=text_sides)


def _loaded(load: Callable[..., Pairs], chosen: list[int], rest: list[int], dataset: str) -> Training:
    """Loads the parts of a run. One message reports the problems of all parts."""
    parts = [("train", chosen, True), ("valid", None, True), *([("train", rest, False)] if rest else [])]
    loaded, problems = [], []
    for part in parts:
        try:
            loaded.append(load(*part))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    training = Training(*loaded)
    require_content(training.labelled, f"{dataset} train, labelled")
    require_content(training.valid, f"{dataset} valid")
    return training


def _without_zones(training: Training) -> list[str]:
    """Notes for the user on texts without a zone or without a mirror image, and what training leaves out for them."""
    reports = [*training.labelled.reports, *(training.unlabelled.reports if training.unlabelled else ())]
    notes, bare = [], sum(not report.located for report in reports)
    if bare:
        hint = better_layout([report.render() for report in reports], reports[0].layout) if bare == len(reports) else ""
        notes.append(
            f"{bare} of {len(reports)} training texts name no zone, so with them no patch is mixed (T-PatchMix), no "
            f"phrase is hidden (PosAug), and no other pair is a positive (ITCL){hint and f'; {hint}'}"
        )
    if turned := sum(not report.mirrors for report in reports):
        notes.append(
            f"{turned} of {len(reports)} training pairs are never mirrored: their texts say left or right in words "
            "that are not understood, or name a zone without a mirror image"
        )
    return notes


def _divide(
    names: Sequence[str], label_ratio: float, dataset: str, with_mask: Sequence[bool] | None = None
) -> tuple[list[int], list[int]]:
    chosen = sorted(labelled_indices(names, label_ratio, dataset.removesuffix("-ct"), with_mask=with_mask))
    return chosen, sorted(set(range(len(names))) - set(chosen))
