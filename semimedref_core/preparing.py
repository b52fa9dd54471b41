"""From the settings of a run to its data: which pairs, what reads their texts, and where their zones lie."""

from __future__ import annotations

from semimedref_core.anatomy import QATA, THIRDS, Grid, estimate_grid
from semimedref_core.config import Config
from semimedref_core.data.datasets import Training, load_training
from semimedref_core.methods import method_named
from semimedref_core.networks import Texts, build_texts
from semimedref_core.networks.encoders import TEXT_POSITIONS
from semimedref_core.networks.vocabulary import require_room, told_in_training
from semimedref_core.positions import LUNGS, Positions


def run_pairs(config: Config) -> Training:
    """The pairs of a run. Errors: see :func:`.data.datasets.load_training`."""
    return load_training(
        config.dataset,
        config.label_ratio,
        config.image_size,
        config.data,
        config.texts,
        method_named(config.method).unlabelled,
        config.mask_values,
        config.positions,
        config.text_sides,
    )


def run_texts(config: Config, pairs: Training) -> tuple[Texts, dict]:
    """What reads the free texts of these pairs, and what else a network has to be built with for them.

    Raises:
        ConfigError: if a text is too long.
    """
    trained = [part for part in (pairs.labelled, pairs.unlabelled) if part]
    reports = [report for part in trained for report in part.reports]
    names = [name for part in trained for name in part.names]
    texts = build_texts(config.report_text, config.text_encoder, config.text_length, told_in_training(reports))
    require_room(texts, [*reports, *pairs.valid.reports], [*names, *pairs.valid.names])
    arguments = {} if config.text_encoder else {"vocabulary": len(texts.tokenizer)}
    if pairs.labelled.channels > 1:
        arguments["channels"] = pairs.labelled.channels
    if texts.length > TEXT_POSITIONS and not config.text_encoder:
        arguments["text_positions"] = texts.length
    return texts, arguments


def zone_grid(config: Config, pairs: Training) -> Grid | Positions:
    """Where zones lie: the zone grid of the lungs that the settings name, or the layout of the pairs' texts, if it is
    another. An estimated grid is read off the labelled pairs alone."""
    layout = pairs.labelled.reports[0].layout
    if layout.names != LUNGS.names:
        return layout
    if config.grid == "estimated":
        return estimate_grid(pairs.labelled.masks, pairs.labelled.reports)
    return {"qata": QATA, "thirds": THIRDS}[config.grid]
