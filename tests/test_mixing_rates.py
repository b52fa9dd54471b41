"""``semimedref mixing``: the numbers that it prints are those of the rules, counted from true masks."""

import re
from dataclasses import replace

import numpy as np
import pytest

from semimedref_core.config import Config
from semimedref_core.data.datasets import load_split
from semimedref_core.patchmix import mixed_reports
from semimedref_core.reports import Report
from semimedref_core.tools.mixing_rates import release_rates, zone_rules


@pytest.fixture(scope="module")
def rules():
    pairs = load_split("phantom", "valid", 64)
    return zone_rules(pairs, Config(image_size=64, batch_size=50), proposals=400)


def test_the_receivers_rule_offers_as_often_and_is_refused_more_often(rules):
    """A region that the receiver's report names need not hold a lesion of the donor's."""
    assert rules.loc["offered", "receiver"] == pytest.approx(rules.loc["offered", "donor"], abs=5)
    assert rules.loc["shows a lesion", "receiver"] < rules.loc["shows a lesion", "donor"] - 15
    assert rules.loc["accepted", "receiver"] < rules.loc["accepted", "donor"]


def test_by_every_rule_the_mask_is_true_and_the_zones_nearly_always_are(rules):
    assert (rules.loc["mask true"] == 100).all() and (rules.loc["zones true"] > 90).all()


def test_one_more_is_the_wrong_number_in_about_half_of_the_mixes_and_no_number_is_never_wrong(rules):
    assert (rules.loc["number right before"] > 90).all()
    assert (rules.loc["number right, one_more"] < 65).all() and (rules.loc["number right, zones"] < 65).all()
    assert (rules.loc["number right, none"] == 100).all()


def test_a_mixed_report_without_a_number_reads_and_renders_as_one():
    own = Report.parse("Unilateral pulmonary infection, one infected area, lower left lung.")
    assert {report.lesions for report in mixed_reports(own, mix_count="none")} == {1, None}
    assert {report.lesions for report in mixed_reports(own)} == {1, 2}
    mixed = mixed_reports(own, mix_count="none")[6]
    assert mixed.render() == "bilateral pulmonary infection, lower left lung and lower right lung."
    assert Report.parse(mixed.render()) == mixed and mixed.flip().lesions is None
    assert mixed.merge(own).lesions is None and own.merge(mixed).lesions is None


def test_the_release_on_real_reports_has_the_rates_that_its_description_tells(real_data):
    """PosAug brings samples that are offered a patch from 83 to 47 %, and patches on the right from 1 to 29 %. Of
    the lesions of "lower left lung" 0.7 % lie in its box in place of 26 %. Where the jitter acts, 59 % of the pixels
    are cut and 84 % of the variance is gone."""
    pairs = load_split("qata", "train", 64, str(real_data), "release")
    rates = release_rates(pairs, 64, proposals=6000)
    expected = {
        "offered": (83, 47),
        "on the right": (1, 29),
        "lower left, in its box": (26, 0.7),
        "pixels cut": (0, 59),
        "variance left": (100, 16),
    }
    for row, numbers in expected.items():
        assert rates.loc[row].to_numpy() == pytest.approx(np.array(numbers), abs=3.5), row


def test_the_command_prints_both_tables(semimedref, small_phantom):
    outcome = semimedref("mixing", image_size=32, count=40, batch_size=4)
    assert outcome.status == 0, outcome.errors
    assert re.search(r"receiver +donor +both", outcome.text) and re.search(r"as one expects +as it runs", outcome.text)
    assert "6 pairs of phantom valid, 32 px" in outcome.text


def test_a_batch_of_one_is_refused_because_it_has_no_partner(semimedref, small_phantom):
    outcome = semimedref("mixing", image_size=32, count=4, batch_size=1)
    assert outcome.status == 1 and "one pair has no partner to mix with" in outcome.errors


def test_a_report_without_a_number_has_no_wrong_one_before_or_after_mixing():
    pairs = load_split("phantom", "valid", 32)
    uncounted = replace(pairs, reports=tuple(report.without_count() for report in pairs.reports))
    table = zone_rules(uncounted, Config(image_size=32, batch_size=20, gate=0.2, mix_count="none"), proposals=40)
    assert (table.loc["accepted"] > 0).all()
    assert (table.loc[["number right before", "number right, none"]] == 100).all(axis=None)


def test_where_no_patch_can_be_offered_the_other_shares_are_not_numbers():
    nothing = Report.parse("No pulmonary infection, zero infected areas.")
    healthy = replace(load_split("phantom", "valid", 32).subset(range(4)), reports=(nothing,) * 4)
    table = zone_rules(healthy, Config(image_size=32, batch_size=2), proposals=4)
    assert (table.loc["offered"] == 0).all() and table.drop("offered").isna().all(axis=None)
    assert {"shows a lesion", "accepted", "mask true", "zones true", "number right, none"} <= set(table.index)
