"""Everything that a run needs before its first step: pairs, tokenizer, zone grid, networks, optimiser and batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator

from semimedref_core.anatomy import QATA, THIRDS, Grid, estimate_grid, lesion_rows, untold_cuts
from semimedref_core.config import Config, Device
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import Training, load_training
from semimedref_core.data.resident import fit
from semimedref_core.errors import TrainingError
from semimedref_core.methods import method_named
from semimedref_core.networks import Texts, build_texts, each_network, sizes_for
from semimedref_core.networks.text_cache import read_once
from semimedref_core.networks.vocabulary import require_room, told_in_training
from semimedref_core.positions import LUNGS, Positions
from semimedref_core.runtime import graphed
from semimedref_core.runtime.checkpoints import require_loadable
from semimedref_core.runtime.devices import adamw, grad_scaler, open_device, set_forward
from semimedref_core.runtime.graphed import Learn
from semimedref_core.runtime.run_state import RunState
from semimedref_core.step import learned

NO_GRID = (
    "the labelled masks show too little to estimate where the bands of the zones lie, so each band is a third of the "
    "picture's height; more labelled pairs may cure this"
)
"""A note for the user: lesions of a few rows, or no text that names one or two bands of a side."""
HALF_A_GRID = (
    "no labelled pair tells where {} lies, so its edges are those of thirds of the picture's height; more labelled "
    "pairs may cure this"
)
"""A note for the user: no text names this band without its neighbour."""


@dataclass(frozen=True)
class Prepared:
    """Everything that the steps of a run need.

    Attributes:
        accelerator: of this process.
        pairs: the data.
        state: networks and optimiser, before the first step.
        texts: from reports to token ids.
        batches: from the number of a step to its batch.
        learn: does the part of a step that runs on the device; see :func:`semimedref_core.step.learned`.
    """

    accelerator: Accelerator
    pairs: Training
    state: RunState
    texts: Texts
    batches: Batches
    learn: Learn


def prepare(config: Config, device: Device = "auto", pairs: Training | None = None) -> Prepared:
    """Loads the pairs and builds networks, optimiser and batches on the device.

    Args:
        config, device: as in :func:`semimedref_core.training.train`, which also lists the errors.
        pairs: use these; by default the pairs that the settings name.
    """
    accelerator = open_device(device, config.precision, config.compile)
    place = accelerator.device
    method = method_named(config.method)
    if config.dataset == "folder":  # the texts give the vocabulary, and the pictures may have colours
        pairs = pairs or run_pairs(config)
        texts, arguments = run_texts(config, pairs)
    else:
        texts, arguments = build_texts(config.report_text, config.text_encoder, config.text_length), {}
    arguments |= {"ispg": True} if config.ispg == "on" else {}
    torch.manual_seed(config.seed)
    # The network is built before the known datasets are read, so a wrong setting fails at once.
    student = method.build(config.network, config.image_encoder, config.text_encoder, **arguments)
    # What could not be loaded after training is refused before training.
    require_loadable({"arguments": each_network(student)[0].arguments}, config.text_encoder or config.network)
    pairs = pairs or run_pairs(config)
    read = [part for part in (pairs.labelled, pairs.unlabelled, pairs.valid) if part]
    require_room(
        texts, [each for part in read for each in part.reports], [each for part in read for each in part.names]
    )
    if method.unlabelled and pairs.unlabelled is None:
        raise TrainingError(
            f"label ratio {config.label_ratio:g} leaves no unlabelled pair, and {config.method} learns from them; "
            "choose a smaller --label-ratio, or --method supervised"
        )
    if config.axes == "transposed":
        pairs = pairs.transposed()
    grid = zone_grid(config, pairs)
    pairs = replace(pairs, notes=(*pairs.notes, *_of_grid(config, pairs, grid)))
    student.to(place, memory_format=torch.channels_last)
    optimizer = adamw(student, place, config.lr, config.weight_decay, config.encoder_lr)
    state = RunState(student, method.teacher(student), optimizer, grad_scaler(place, config.precision))
    for network in state.networks.values():
        set_forward(network, place, config.precision, config.compile)
    processes = accelerator.process_index, accelerator.num_processes
    known = read_once(student, texts)
    resident = fit([each for each in (pairs.labelled, pairs.unlabelled) if each], place, accelerator.is_main_process)
    batches = Batches(pairs.labelled, pairs.unlabelled, config, known, grid, place, *processes, method.plan, resident)
    learn = _as_graphs(partial(learned, state, config, accelerator), state, config, accelerator)
    return Prepared(accelerator, pairs, state, texts, batches, learn)


def _as_graphs(learn: Learn, state: RunState, config: Config, accelerator: Accelerator) -> Learn:
    """Makes CUDA graphs of the step if the settings ask for it. If that is impossible, prints a line that says why."""
    if config.compile != "graph":
        return learn
    if reason := graphed.why_not(accelerator, state.scaler):
        if accelerator.is_main_process:
            print(f"note: compile 'graph': steps run without a graph ({reason}).")
        return learn
    return graphed.on_gpu(learn)


def run_pairs(config: Config) -> Training:
    """Loads the pairs of a run. Errors: see :func:`.data.datasets.load_training`."""
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
    """The tokenizer for the free texts of these pairs, and the arguments that a network needs for these pairs."""
    reports = [report for part in (pairs.labelled, pairs.unlabelled) if part for report in part.reports]
    texts = build_texts(config.report_text, config.text_encoder, config.text_length, told_in_training(reports))
    arguments = {} if config.text_encoder else sizes_for(texts)
    if pairs.labelled.channels > 1:
        arguments["channels"] = pairs.labelled.channels
    return texts, arguments


def zone_grid(config: Config, pairs: Training) -> Grid | Positions:
    """The places of the zones: the zone grid of the lungs that the settings name, or another layout if the texts use
    one. Only labelled pairs are used to estimate a grid."""
    layout = pairs.labelled.reports[0].layout
    if layout.names != LUNGS.names:
        return layout
    if config.grid == "estimated":
        return estimate_grid(pairs.labelled.masks, pairs.labelled.reports)
    return {"qata": QATA, "thirds": THIRDS}[config.grid]


def _of_grid(config: Config, pairs: Training, grid: Grid | Positions) -> list[str]:
    """What a user needs to know of an estimated grid: the bands that the labelled pairs do not tell."""
    if config.grid != "estimated" or not isinstance(grid, Grid):
        return []
    untold = untold_cuts(lesion_rows(pairs.labelled.masks, pairs.labelled.reports))
    if grid is THIRDS or len(untold) == len(grid.cuts):
        return [NO_GRID]
    return [HALF_A_GRID.format("lower" if 2 in untold else "upper")] if untold else []
