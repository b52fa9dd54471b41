"""PosAug: position phrases are hit one by one, everything else in the report stays."""

import re

import numpy as np
import pytest

from semimedref_core.data.phantom import phantom
from semimedref_core.data.real.qata import find_qata
from semimedref_core.patchmix import mixed_reports
from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN, PosAug, apply_hits, draw_hits, posaug, stretches
from semimedref_core.reports import STYLES, Report

REPORT = Report.parse("Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung.")
PHRASES = ("all left lung", "middle lower right lung")
RNG = np.random.default_rng(0)
RELEASE_LIKE = re.compile(r"(?:(?:upper|middle|lower)\s+)+(?:left|right)\s+lung", re.IGNORECASE)


def outcomes(mode, p=0.5, count=4000):
    rng = np.random.default_rng(0)
    texts = [posaug(REPORT, rng, p, mode) for _ in range(count)]
    head = "bilateral pulmonary infection, two infected areas, "
    assert all(text.startswith(head) and text.endswith(".") for text in texts), "only the positions may change"
    return [tuple(text[len(head) : -1].split(" and ")) for text in texts]


def test_each_phrase_is_hit_independently_with_probability_p():
    """Eq. 3."""
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
    with pytest.raises(ValueError, match="'blur'.*mask, fuzz, mix"):
        PosAug(mode="blur")


@pytest.mark.parametrize("p", [10, -1, float("nan")])
@pytest.mark.parametrize("ask", [PosAug, lambda p: posaug(REPORT, RNG, p), lambda p: draw_hits(RNG, p)])
def test_a_probability_that_is_none_is_refused(ask, p):
    with pytest.raises(ValueError, match="PosAug's p is a probability, 0 to 1, got"):
        ask(p)


def test_one_draw_serves_a_report_and_its_seven_mixtures():
    one = Report.parse("Unilateral pulmonary infection, one infected area, lower right lung.")
    rng = np.random.default_rng(0)
    drawn = {tuple(draw_hits(rng)) for _ in range(100)}
    assert drawn == {(), ("left",), ("right",), ("left", "right")}, "also for sides that the report does not name"
    for mixed in mixed_reports(one):
        text = apply_hits(mixed, {"left": MASK_TOKEN})
        assert "left" not in text and (MASK_TOKEN in text) == any(mixed.side("left"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("mode", ["mask", "fuzz"])
def test_the_parts_of_a_text_are_its_phrases_and_joined_they_are_the_text(style, mode):
    rng = np.random.default_rng(0)
    for code in range(64):
        report = Report.of([code >> k & 1 for k in range(6)], style=style)
        for p in (0, 0.5, 1):
            text = posaug(report, rng, p, mode)
            cut = stretches(text)
            assert "".join(part.text for part in cut) == text
            shown = [part for part in cut if part.kind not in ("frame", mode)]
            assert {part.text for part in shown} <= set(report.phrases)
            assert sum(part.kind != "frame" for part in cut) == len(report.phrases)
            if p in (0, 1):
                assert len(shown) == (0 if p else len(report.phrases))


def missed(texts):
    """Shares of texts in which the pattern finds nothing, and fewer phrases than are there (each ends in "lung")."""
    found = np.array([len(RELEASE_LIKE.findall(text)) for text in texts])
    return np.mean(found == 0), np.mean(found < [len(re.findall(r"\blung\b", text, re.IGNORECASE)) for text in texts])


def test_a_pattern_like_the_release_s_misses_phrases_of_lvit_texts_and_posaug_does_not():
    """Ledger 9."""
    reports = phantom("train", 400, size=32).reports
    nothing, a_side = missed([report.render() for report in reports])
    assert 0.25 < nothing < 0.38 and 0.37 < a_side < 0.5
    assert missed([Report.of(report.zones, style="release").render() for report in reports]) == (0, 0)
    for report in reports:
        text = posaug(Report.parse(report.render()), np.random.default_rng(0), 1.0)
        assert not any(part.kind == "position" for part in stretches(text))


def test_the_same_pattern_on_real_qata(real_data):
    """Ledger 9."""
    texts = {style: [entry.text for entry in find_qata(real_data).entries("train", style)] for style in STYLES}
    nothing, a_side = missed(texts["lvit"])
    assert 0.25 < nothing < 0.35 and 0.37 < a_side < 0.47
    assert missed(texts["release"]) == (0, 0)
    lungs = [len(re.findall(r"\blung\b", text, re.IGNORECASE)) for text in texts["lvit"]]
    assert [len(Report.parse(text).phrases) for text in texts["lvit"]] == lungs
