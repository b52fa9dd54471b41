"""Each use of chance has a source of its own; the same arguments give the same draws."""

import itertools

import numpy as np
import pytest

from semimedref_core.data.chance import source, torch_seed
from semimedref_core.data.phantom import COUNTS, MODALITIES


def first(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(2**63, size=3).tolist())


def test_the_same_arguments_draw_the_same():
    assert first(source("batch", 3, 7, 1)) == first(source("batch", 3, 7, 1))
    assert torch_seed("device", 3, 7, 1) == torch_seed("device", 3, 7, 1)


def test_no_two_sources_of_a_run_draw_the_same():
    """Small numbers and zeros are what runs use, and where NumPy's keys coincide: it fills a short one with zeros."""
    keys = [("batch", seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)]
    orders = ["order of labelled pairs", "order of unlabelled pairs"]
    keys += [(order, seed, epoch) for order in orders for seed in range(3) for epoch in range(20)]
    keys += [("batch", 0), ("batch", 0, 0), ("batch", 0, 0, 0, 0), ("batch",)]
    drawn = [first(source(*key)) for key in keys]
    phantom = itertools.product(range(3), range(len(MODALITIES)), range(len(COUNTS)), range(5))
    drawn += [first(np.random.default_rng(key)) for key in phantom]
    assert len(set(drawn)) == len(drawn)


def test_each_step_and_each_process_has_its_own_noise():
    """A seed made of the run's seed and the step alone gave all processes the same noise."""
    seeds = {torch_seed("device", seed, step, rank) for seed in range(3) for step in range(50) for rank in range(4)}
    assert len(seeds) == 3 * 50 * 4 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_negative_number_is_no_key():
    with pytest.raises(ValueError):
        source("batch", -1)
