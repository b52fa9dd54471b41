"""Which samples are labelled (Eq. 2): the release's choice, so that results compare."""

from itertools import pairwise

import pytest

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.qata import find_qata
from semimedref_core.data.splits import PUBLISHED, digest, labelled_indices

RATIOS = (0.01, 0.02, 0.05, 0.15, 1.0)


def made_up(count):
    return [f"mask_covid_{i}.png" for i in range(count)]


@pytest.mark.parametrize("texts", ["lvit", "release"])
def test_on_real_qata_the_labelled_names_are_those_of_the_release(real_data, texts):
    """Known by their sha256 at 1 % and 2 %."""
    names = [entry.name for entry in find_qata(real_data).entries("train", texts)]
    assert {ratio: digest([names[i] for i in labelled_indices(names, ratio)]) for ratio in PUBLISHED} == PUBLISHED


def test_numbers_of_labelled_samples():
    """Eq. 2: 57, 114, 286, 857 of QaTa's 5716 (rounded), 21, 43, 109, 327 of MosMedData+'s 2183 (rounded down)."""
    qata, mosmed = made_up(5716), made_up(2183)
    assert [len(labelled_indices(qata, r)) for r in RATIOS] == [57, 114, 286, 857, 5716]
    assert [len(labelled_indices(mosmed, r, "mosmed")) for r in RATIOS] == [21, 43, 109, 327, 2183]


@pytest.mark.parametrize("dataset", ["qata", "mosmed", "phantom"])
def test_a_larger_ratio_keeps_the_labelled_samples_of_a_smaller_one(dataset):
    chosen = [set(labelled_indices(made_up(300), r, dataset)) for r in RATIOS]
    assert all(small < large for small, large in pairwise(chosen))
    assert chosen[-1] == set(range(300))


def test_qata_is_shuffled_in_file_order_and_mosmed_by_name():
    """Ten names: Python's shuffle with seed 42 puts 7, 3, 2 first."""
    names = made_up(10)
    assert labelled_indices(names, 0.3) == labelled_indices(names, 0.3, "phantom") == [7, 3, 2]
    assert labelled_indices(names[::-1], 0.3) == [7, 3, 2], "positions, whatever the names"
    assert labelled_indices(names[::-1], 0.3, "mosmed") == [2, 6, 7], "the same names, wherever they are listed"


def test_another_seed_labels_other_samples():
    assert labelled_indices(made_up(100), 0.1, seed=1) != labelled_indices(made_up(100), 0.1)


def test_a_slice_listed_twice_is_labelled_in_both_places():
    """Else the same picture would be labelled and unlabelled at once."""
    names = made_up(10) * 2
    chosen = labelled_indices(names, 0.3, "mosmed")
    assert sorted(chosen) == [2, 3, 7, 12, 13, 17]


def test_at_least_one_sample_is_labelled():
    assert len(labelled_indices(made_up(12), 0.01)) == 1
    assert len(labelled_indices(made_up(12), 0.01, "mosmed")) == 1


def test_the_list_is_left_as_it_was():
    names = made_up(20)
    labelled_indices(names, 0.5)
    assert names == made_up(20)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, float("nan")])
def test_a_ratio_out_of_range_is_named_with_what_would_work(ratio):
    with pytest.raises(DataError, match=rf"label ratio {ratio} .*n = 50: choose 0.02"):
        labelled_indices(made_up(50), ratio)


def test_ratio_zero_says_that_nothing_would_be_labelled():
    with pytest.raises(DataError, match="gives no labelled sample"):
        labelled_indices(made_up(50), 0)


def test_an_empty_list_and_an_unknown_dataset_are_errors():
    with pytest.raises(DataError, match="empty split"):
        labelled_indices([], 0.5)
    with pytest.raises(DataError, match="unknown dataset 'covid'; choose one of qata, mosmed, phantom"):
        labelled_indices(made_up(5), 0.5, "covid")
