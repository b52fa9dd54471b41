"""PosAug: position phrases are hit one by one, everything else in the report stays."""

import numpy as np
import pytest

from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN, draw_hits, posaug
from semimedref_core.reports import Report

REPORT = Report.parse("Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung.")
PHRASES = ("all left lung", "middle lower right lung")


def outcomes(mode, p=0.5, count=4000):
    rng = np.random.default_rng(0)
    texts = [posaug(REPORT, rng, p, mode) for _ in range(count)]
    head = "bilateral pulmonary infection, two infected areas, "
    assert all(text.startswith(head) and text.endswith(".") for text in texts), "only the positions may change"
    return [tuple(text[len(head) : -1].split(" and ")) for text in texts]


def test_each_phrase_is_hit_independently_with_probability_p():
    pairs = outcomes("mask", p=0.3)
    hit = np.array([[phrase == MASK_TOKEN for phrase in pair] for pair in pairs])
    np.testing.assert_allclose(hit.mean(0), 0.3, atol=0.03)
    assert abs(hit.all(1).mean() - 0.09) < 0.02
    assert {phrase for pair in pairs for phrase in pair} == {*PHRASES, MASK_TOKEN}


@pytest.mark.parametrize(("mode", "words"), [("mask", {MASK_TOKEN}), ("fuzz", {FUZZY_PHRASE})])
def test_a_mode_uses_its_own_replacement_only(mode, words):
    assert {phrase for pair in outcomes(mode) for phrase in pair} - set(PHRASES) == words


def test_mix_draws_mask_and_fuzz_evenly():
    hits = [phrase for pair in outcomes("mix") for phrase in pair if phrase not in PHRASES]
    assert abs(np.mean([phrase == MASK_TOKEN for phrase in hits]) - 0.5) < 0.03


def test_p_0_leaves_the_report_alone_and_p_1_hits_every_phrase():
    rng = np.random.default_rng(0)
    assert posaug(REPORT, rng, 0.0) == REPORT.render()
    assert not any(phrase in posaug(REPORT, rng, 1.0) for phrase in PHRASES)


def test_a_report_without_infection_has_no_phrase_to_hit():
    nothing = Report.of([0] * 6)
    assert posaug(nothing, np.random.default_rng(0), 1.0) == nothing.render()


def test_the_zones_that_itcl_uses_are_those_of_the_untouched_report():
    code = REPORT.code
    posaug(REPORT, np.random.default_rng(0), 1.0)
    assert REPORT.code == code


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="'blur'.*mask, fuzz, mix"):
        draw_hits(np.random.default_rng(0), mode="blur")
