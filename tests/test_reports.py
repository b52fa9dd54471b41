"""Reports: every real text can be read, and reading, writing, flipping and merging agree with one another."""

import re
from itertools import product

import mutated_reports
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semimedref_core.data.real.qata import find_qata
from semimedref_core.data.real.sources import SPLITS
from semimedref_core.reports import COUNT_WORDS, HEIGHTS, SIDES, STYLES, ZONES, Report, ReportError

zone_vectors = st.tuples(*[st.integers(0, 1)] * 6)


@st.composite
def reports(draw):
    """Any report that a text can say: also counts and lateralities that disagree with the zones, as real ones do."""
    zones, style = draw(zone_vectors), draw(st.sampled_from(STYLES))
    if not any(zones):
        return Report(zones, 0, "no", style)
    return Report(zones, draw(st.integers(1, 20)), draw(st.sampled_from(["unilateral", "bilateral"])), style)


def positions(text):
    """The zone vector of a text with these position phrases."""
    return Report.parse(f"Bilateral pulmonary infection, two infected areas, {text}.").zones


LEFT, RIGHT = (1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1)


# Real texts


@pytest.mark.parametrize("texts", STYLES)
def test_every_real_qata_report_can_be_read(real_data, texts):
    """7145 texts of each version; rendering one and reading it again says the same."""
    layout = find_qata(real_data)
    entries = [entry for split in SPLITS if split in layout.splits for entry in layout.entries(split, texts)]
    assert len(entries) >= 7145
    for entry in entries:
        report = entry.report(texts)
        assert Report.parse(report.render(), texts) == report
        if texts == "release":
            assert report.zones == entry.zones and report.render() == entry.text


# The grammar


def test_the_two_versions_of_one_report():
    """The same zones, written and counted in two ways."""
    lvit = Report.parse("Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung.")
    release = Report.parse(
        "bilateral pulmonary infection, five infected areas, upper middle lower left lung and middle lower right lung."
    )
    assert lvit.zones == release.zones == (1, 1, 1, 0, 1, 1)
    assert (lvit.lesions, lvit.style) == (2, "lvit")
    assert (release.lesions, release.style) == (5, "release")
    assert lvit.phrases == ("all left lung", "middle lower right lung")
    assert release.phrases == ("upper middle lower left lung", "middle lower right lung")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("heights", [h for h in product((0, 1), repeat=3) if any(h)])
def test_every_phrase_names_its_zones(side, heights):
    words = " ".join(name for name, bit in zip(HEIGHTS, heights, strict=True) if bit)
    named = {ZONES[k] for k, bit in enumerate(positions(f"{words} {side} lung")) if bit}
    assert named == {f"{side} {word}" for word in words.split()}


@pytest.mark.parametrize("lesions", range(1, 21))
def test_every_count_word_is_read_and_written(lesions):
    text = Report((1, 0, 0, 0, 0, 0), lesions, "unilateral").render()
    assert f", {COUNT_WORDS[lesions]} infected area{'s' if lesions > 1 else ''}, upper left lung." in text
    assert Report.parse(text).lesions == lesions


@pytest.mark.parametrize(
    "text",
    [
        "unilateral pulmonary infection, one infected area, lower right lung.",
        "bilateral pulmonary infection, nine infected areas, upper left lung and all right lung.",
        "bilateral pulmonary infection, four infected areas, upper middle lower left lung and lower right lung.",
        "no pulmonary infection, zero infected areas.",
    ],
)
def test_a_canonical_report_is_given_back_word_for_word(text):
    assert Report.parse(text).render() == str(Report.parse(text)) == text


# The oddities of real texts


@pytest.mark.parametrize(
    ("phrases", "zones"),
    [
        ("left lung", LEFT),
        ("right lung", RIGHT),
        ("all lower left lung", LEFT),
        ("all lung and all right lung", (1, 1, 1, 1, 1, 1)),
        ("all left lung and lung", (1, 1, 1, 1, 1, 1)),
        ("lowerl left lung", (0, 0, 1, 0, 0, 0)),
        ("uper middel right lung", (0, 0, 0, 1, 1, 0)),
        ("lower upper left lung", (1, 0, 1, 0, 0, 0)),
        ("upper right lung and lower left lung", (0, 0, 1, 1, 0, 0)),
    ],
)
def test_odd_phrases_of_real_reports(phrases, zones):
    """A bare side is all of it, `all` outweighs a height, a missing side is the other one, slips are read over."""
    assert positions(phrases) == zones


SIDE_LIKE = "light bright fright might night rigth rihgt rght lefft lef lft felt cleft theft left-right both".split()


@pytest.mark.parametrize("word", SIDE_LIKE)
@pytest.mark.parametrize("phrase", ["lower {} lung", "{} lung", "all {} lung", "upper left lung and lower {} lung"])
def test_a_side_is_never_guessed(word, phrase):
    text = f"Bilateral pulmonary infection, two infected areas, {phrase.format(word)}."
    with pytest.raises(ReportError, match=re.escape(repr(word))):
        Report.parse(text)


@pytest.mark.parametrize("word", "fall ball tall slower flower supper riddle fiddle lover".split())
def test_nor_is_a_height_where_it_may_be_another_word(word):
    with pytest.raises(ReportError, match=repr(word)):
        Report.parse(f"Unilateral pulmonary infection, one infected area, {word} left lung.")


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=7), st.sampled_from(["lower {} lung", "{} lung"]))
def test_a_word_that_is_no_side_never_makes_one(word, phrase):
    text = f"Unilateral pulmonary infection, one infected area, {phrase.format(word)}."
    try:
        report = Report.parse(text)
    except ReportError:
        return
    assert word in ("left", "right") and report.sides == (word,)


def test_no_infection():
    report = Report.parse("No pulmonary infection, zero infected areas.")
    assert report == Report.of((0,) * 6)
    assert (report.zones, report.lesions, report.laterality, report.phrases) == ((0,) * 6, 0, "no", ())


def test_one_infected_areas():
    text = "Unilateral pulmonary infection, one infected areas, lower left lung."
    assert Report.parse(text).render() == "unilateral pulmonary infection, one infected area, lower left lung."


@pytest.mark.parametrize("end", ["..", ". .", "", " ", ".\n", "  . "])
def test_full_stops_and_spaces_at_the_end_do_not_matter(end):
    text = "Unilateral pulmonary infection, one infected area, lower left lung"
    assert Report.parse(text + end) == Report.parse(text + ".")


def test_mosmed_says_unilateral_of_both_sides():
    """The words stay as they are; the zones are those of both phrases."""
    text = "Unilateral pulmonary infection, three infected areas, left lung and middle right lung."
    report = Report.parse(text)
    assert report.zones == (1, 1, 1, 0, 1, 0) and report.laterality == "unilateral"
    assert report.render() == text.lower().replace(" left lung", " all left lung")


def test_a_count_that_disagrees_with_the_phrases_is_kept():
    report = Report.parse("Bilateral pulmonary infection, nine infected areas, upper left lung and lower right lung.")
    assert report.lesions == 9 and sum(report.zones) == 2


@given(reports(), st.randoms(use_true_random=False))
def test_letter_case_does_not_matter(report, random):
    text = "".join(random.choice((str.upper, str.lower))(letter) for letter in report.render())
    assert Report.parse(text, report.style) == report


# What holds of every report


@given(reports())
def test_reading_what_was_written_gives_the_report_back(report):
    again = Report.parse(report.render(), report.style)
    assert again == report and again.style == report.style
    assert Report.parse(report.render()) == report, "also where the style has to be read off the text"
    assert again.render() == report.render()


@given(reports())
def test_the_style_is_read_off_the_text_where_it_shows(report):
    """It shows where a side is named completely."""
    if all(report.side("left")) or all(report.side("right")):
        assert Report.parse(report.render()).style == report.style


@given(reports())
def test_flipping_swaps_the_sides_and_flipping_twice_changes_nothing(report):
    flipped = report.flip()
    assert flipped.side("left") == report.side("right") and flipped.side("right") == report.side("left")
    assert (flipped.lesions, flipped.laterality, flipped.style) == (report.lesions, report.laterality, report.style)
    assert flipped.flip() == report
    swapped = report.render().replace("left", "?").replace("right", "left").replace("?", "right")
    assert Report.parse(swapped) == flipped, "the same as exchanging the words"


@given(reports(), reports())
def test_merging_unites_the_zones_whichever_comes_first(one, other):
    merged = one.merge(other)
    assert merged.zones == other.merge(one).zones
    assert merged.zones == tuple(max(pair) for pair in zip(one.zones, other.zones, strict=True))
    assert Report.parse(merged.render(), merged.style) == merged


@given(reports(), reports())
def test_a_merged_report_agrees_with_itself(one, other):
    """As many sides as zones lie in; lesions added up (lvit) or zones counted (release)."""
    merged = one.merge(other)
    sides = any(merged.side("left")) + any(merged.side("right"))
    assert merged.laterality == ("no", "unilateral", "bilateral")[sides]
    assert merged.style == one.style
    counted = sum(merged.zones) if one.style == "release" else min(one.lesions + other.lesions, 20)
    assert merged.lesions == counted


@given(reports())
def test_the_code_holds_the_zones_as_bits(report):
    assert report.zones == tuple(report.code >> k & 1 for k in range(6))
    assert [zone for zone, bit in zip(ZONES, report.zones, strict=True) if bit] == [
        f"{side} {height}" for side in SIDES for height, bit in zip(HEIGHTS, report.side(side), strict=True) if bit
    ]


@given(zone_vectors)
def test_a_report_made_of_zones_agrees_with_them(zones):
    """By default one lesion a side (lvit), or one a zone (release)."""
    lvit, release = Report.of(zones), Report.of(zones, style="release")
    assert lvit.zones == release.zones == zones
    assert lvit.lesions == any(zones[:3]) + any(zones[3:]) == len(lvit.phrases)
    assert release.lesions == sum(zones)


def test_phrases_can_be_replaced():
    """As PosAug does: the rest of the text stays."""
    report = Report.of((1, 0, 0, 0, 0, 1))
    assert report.render(("[UNK_POS]", report.phrases[1])) == (
        "bilateral pulmonary infection, two infected areas, [UNK_POS] and lower right lung."
    )


# Texts that are no reports


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("the lungs are clear", "expected '<Uni"),
        ("", "expected '<Uni"),
        ("Unilateral pulmonary infection, one infected area.", "contradict"),
        ("No pulmonary infection, zero infected areas, left lung.", "contradict"),
        ("Unilateral pulmonary infection, zero infected areas, left lung.", "contradict"),
        ("Unilateral pulmonary infection, umpteen infected areas, left lung.", "'umpteen' is no count word"),
        ("Unilateral pulmonary infection, one infected area, lower left kidney.", "'kidney' is no position word"),
        ("Unilateral pulmonary infection, one infected area, lower left.", "no position such as"),
        ("Unilateral pulmonary infection, one infected area, left right lung.", "no position such as"),
        ("Unilateral pulmonary infection, one infected area, lower lung.", "neither the left nor the right"),
        ("Bilateral pulmonary infection, two infected areas, lung and lung.", "neither the left nor the right"),
    ],
)
def test_the_error_holds_the_text_and_what_is_wrong_with_it(text, why):
    with pytest.raises(ReportError) as error:
        Report.parse(text)
    assert repr(text) in str(error.value) and why in str(error.value)


def test_real_reports_with_something_changed_are_read_right_or_refused():
    """Nothing but a ReportError, no side guessed, no zone that no word names; ``mutated_reports.py`` does many more."""
    found = mutated_reports.read_all(mutated_reports.real_reports(), 5000, seed=1)
    assert found["guessed"] == [] and found["read"] > 100 and found["refused"] > 1000


words = st.sampled_from(["left", "right", "upper", "lower", "all", "lung", "and", "no", "unilateral", ",", ".", "x"])


@given(st.text() | st.lists(words).map(" ".join), st.booleans())
def test_any_text_is_read_or_refused(text, as_phrases):
    """Nothing but a ReportError comes out, and what is read can be written and read again."""
    if as_phrases:
        text = f"unilateral pulmonary infection, one infected area, {text}"
    try:
        report = Report.parse(text)
    except ReportError as error:
        assert repr(text) in str(error)
    else:
        assert Report.parse(report.render()) == report


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (((1, 0), 1, "unilateral"), "six 0/1 values"),
        (((2, 0, 0, 0, 0, 0), 1, "unilateral"), "six 0/1 values"),
        (((1, 0, 0, 0, 0, 0), 21, "unilateral"), "0 to 20, got 21"),
        (((1, 0, 0, 0, 0, 0), 1, "trilateral"), "got 'trilateral'"),
        (((1, 0, 0, 0, 0, 0), 1, "no"), "contradict"),
        (((1, 0, 0, 0, 0, 0), 1, "unilateral", "sgseg"), "unknown report style 'sgseg'"),
    ],
)
def test_parts_that_cannot_be_a_report_are_refused(parts, why):
    with pytest.raises(ReportError, match=why):
        Report(*parts)
