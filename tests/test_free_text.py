"""Free texts: what they say of a place is read without a guess, mirrored, hidden and mixed; else left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semimedref_core.free_reports import FreeReport
from semimedref_core.missing_positions import MODES, text_at_hand
from semimedref_core.patchmix import PATCH_MODES, PATCH_ZONES, compatible_zones, mixed_reports, zone_choices
from semimedref_core.posaug import MASK_TOKEN, apply_hits, draw_hits
from semimedref_core.positions import HEIGHTS, LAYOUTS, LEFT_TO_RIGHT, LUNGS, NOWHERE, QUADRANTS, SIDES, Positions
from semimedref_core.reports import Report

RETINA = Positions(
    names=("nasal", "temporal"),
    shares=((0, 0, 1, 0.5), (0, 0.5, 1, 1)),
    words=(("nasal", "nasally"), ("temporal", "temporally")),
)


def named(text, layout=LUNGS):
    """The names of the zones that a text names, as a set."""
    zones = FreeReport.of(text, layout).zones
    return {name for name, bit in zip(layout.names, zones, strict=True) if bit}


@pytest.mark.parametrize("text, zones", [
    ("right lower lobe", "right lower"),
    ("Patchy opacity in the right lower lobe.", "right lower"),
    ("lower left lung", "left lower"),
    ("1 infected area, lower left lung", "left lower"),
    ("bilateral lower zones", "left lower, right lower"),
    ("Consolidation of the lower lobe of the right lung, 3.5 cm wide", "right lower"),
    ("Left mid-zone haze; right basal haze", "left middle, right lower"),
    ("upper and middle left lung", "left upper, left middle"),
    ("left upper, middle and lower lobes", "left upper, left middle, left lower"),
    ("right middle and lower zones and the lower left lung", "right middle, right lower, left lower"),
    ("left and right lower lobes", "left lower, right lower"),
    ("opacities in both bases", "left lower, right lower"),
    ("upper lobe on the right and lower lobe on the left", "right upper, left lower"),
    ("RLL consolidation, LUL nodule", "right lower, left upper"),
    ("all right lung", "right upper, right middle, right lower"),
    ("left lung", "left upper, left middle, left lower"),
    ("The left lung is clear. Opacity in the right upper zone.", "right upper"),
    ("Right lung: clear. Left base: hazy.", "left lower"),
    ("No opacity in the left lung but the right lower lobe is consolidated.", "right lower"),
    ("There is consolidation in the lower left lung, no effusion.", "left lower"),
    ("Right lower lobe pneumonia without pleural effusion or pneumothorax", "right lower"),
    ("Haze, left base, no evidence of effusion, no pneumothorax.", "left lower"),
])  # fmt: skip
def test_a_place_in_the_lungs_is_read_in_any_order_of_words(text, zones):
    assert named(text) == set(zones.split(", "))
    assert named(text.upper()) == named(text)


@pytest.mark.parametrize("text", [
    "1 infected area",
    "lower lobe opacity",
    "opacity in the lower lobe and in the left upper lobe",
    "left upper lobe and lower lobe",
    "lower left and right lung",
    "opacity in the right lung (lower)",
    "the upper two thirds of the right lung",
    "left upper, middle and lower right lung",
    "bilateral pulmonary infection",
    "left-sided effusion",
    "No opacity in the left lung.",
    "No effusion, right lower lobe opacity",
    "Left lower lobe, no effusion",
    "Opacity in the left lower lobe, no longer seen",
    "Opacity in the left lower lobe, no effusion in the right lower lobe",
    "No opacity in the left lower lobe, no effusion",
    "The opacity in the left lower lobe has resolved, no effusion",
    "No consolidation in the left lower lobe, right lower lobe or lingula",
    "The right lower lobe is clear.",
    "Left lung: clear",
    "Left lung: no opacity",
    "Opacity of the right lower lobe has resolved.",
    "opacity in the right or left lower lobe",
    "both lungs except the left upper zone",
    "opacity below the right lower lobe",
    "the base of the left upper lobe",
    "right upper quadrant pain",
    "left upper arm",
    "",
])  # fmt: skip
def test_where_a_text_leaves_the_place_open_it_names_no_zone(text):
    assert named(text) == set()


@pytest.mark.parametrize("text, layout, zones", [
    ("Brown lesion in the upper left corner", QUADRANTS, "left upper"),
    ("top-right quadrant and bottom left", QUADRANTS, "right upper, left lower"),
    ("spots all over the left half", QUADRANTS, "left upper, left lower"),
    ("upper half", QUADRANTS, ""),
    ("lesion on the left", LEFT_TO_RIGHT, "left"),
    ("central lesion and one on the right", LEFT_TO_RIGHT, "centre, right"),
    ("spots on both sides", LEFT_TO_RIGHT, "left, right"),
    ("left arm", LEFT_TO_RIGHT, ""),
    ("not on the left", LEFT_TO_RIGHT, ""),
    ("Haemorrhage nasally.", RETINA, "nasal"),
    ("right lower lobe", NOWHERE, ""),
])  # fmt: skip
def test_other_layouts_are_read_by_their_own_words(text, layout, zones):
    assert named(text, layout) == set(filter(None, zones.split(", ")))


@pytest.mark.parametrize("style", ["lvit", "release"])
def test_reports_of_the_strict_grammar_say_the_same_to_the_lenient_reader(style):
    for code in range(64):
        report = Report.of([code >> k & 1 for k in range(6)], style=style)
        read = FreeReport.of(report.render(), LUNGS)
        assert read.zones == report.zones
        assert (
            read.phrases == report.phrases and read.phrase_sides == report.phrase_sides and read.sides == report.sides
        )
        assert FreeReport.of(report.flip().render(), LUNGS).zones == read.flip().zones


WORDS = (
    "left right upper lower middle mid lobe lung lungs zone zones both bilateral all and , . ; of the in no not or "
    "clear is opacity area 2 base apex RLL LUL but without near arm"
).split()


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_no_zone_is_named_that_the_text_does_not_name(text):
    """Its side stands in the text, and its height does or the whole lung is meant."""
    words = set(text.lower().split())
    sides = {"left": {"left", "both", "bilateral", "lul"}, "right": {"right", "both", "bilateral", "rll"}}
    heights = {"upper": {"upper", "apex", "lul"}, "middle": {"middle", "mid"}, "lower": {"lower", "base", "rll"}}
    for zone in named(text):
        side, height = zone.split()
        assert sides[side] & words and (heights[height] | {"lung", "lungs", "all"}) & words


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join), st.sampled_from(sorted(LAYOUTS)))
def test_a_mirrored_text_names_the_mirrored_zones_and_mirrored_twice_it_is_itself(text, name):
    layout = LAYOUTS[name]
    report = FreeReport.of(text, layout)
    flipped = report.flip()
    if report.mirrors:
        assert flipped.zones == tuple(report.zones[k] for k in layout.swapped)
        assert FreeReport.of(flipped.text, layout).zones == flipped.zones
        assert (flipped.flip().text, flipped.flip().zones) == (text, report.zones)
    else:
        assert flipped is report


@pytest.mark.parametrize("side, height", [(side, height) for side in SIDES for height in HEIGHTS])
def test_what_a_sentence_denies_is_not_named(side, height):
    place = f"the {side} {height} lobe"
    for text in (f"No opacity in {place}.", f"There is no evidence of disease in {place}", f"{place} is normal"):
        assert named(text) == set()
        assert named(f"{text} Consolidation of the right lower lobe.".replace("normal C", "normal. C")) <= {
            "right lower"
        }


@pytest.mark.parametrize("text, layout, mirrored", [
    ("Opacity in the Right lower lobe, LEFT effusion", LUNGS, "Opacity in the Left lower lobe, RIGHT effusion"),
    ("RLL consolidation", LUNGS, "LLL consolidation"),
    ("No opacity in the left lung", LUNGS, "No opacity in the right lung"),
    ("Haemorrhage nasally.", RETINA, "Haemorrhage temporally."),
    ("lesion in the centre", LEFT_TO_RIGHT, "lesion in the centre"),
])  # fmt: skip
def test_a_text_is_mirrored_with_its_picture(text, layout, mirrored):
    report = FreeReport.of(text, layout)
    assert report.mirrors and str(report.flip()) == mirrored


@pytest.mark.parametrize("text, layout", [
    ("leftward shift", LUNGS),
    ("nodule right below the hilum", LUNGS),
    ("R lung hazy", LUNGS),
    ("at 3 o'clock", QUADRANTS),
    ("Infiltrat rechts unten", LUNGS),
    ("no nasal haemorrhage", RETINA),
    ("RLL nodule or scar", LUNGS),
])  # fmt: skip
def test_a_word_of_a_side_that_is_not_understood_keeps_the_picture_as_it_lies(text, layout):
    report = FreeReport.of(text, layout)
    assert not report.mirrors and report.flip() is report


def test_zones_without_a_mirror_image_keep_the_picture_as_it_lies():
    layout = Positions(names=("corner",), shares=((0, 0, 0.4, 0.4),), words=(("corner",),))
    assert layout.mirror is None
    assert not FreeReport.of("in the corner", layout).mirrors
    assert FreeReport.of("somewhere", layout).mirrors


def test_left_may_be_the_patients():
    """Read so, the text is about the other half of the image, and what is written about it too."""
    text, patient = "Opacity in the right lower lobe.", LUNGS.of_the_patient()
    report = FreeReport.of(text, patient)
    assert report.zones == FreeReport.of(text, LUNGS).flip().zones
    assert report.merge(report.naming([0, 0, 0, 0, 0, 1])).text == f"{text} Also lower left lung."
    assert FreeReport.of("RLL nodule", patient).zones == report.zones


def test_zones_of_a_table_win_over_the_text():
    report = FreeReport.of("Some opacity.", LUNGS, (0, 0, 1, 0, 0, 0))
    assert report.located and report.zones == (0, 0, 1, 0, 0, 0) and report.code == 4 and report.sides == ("left",)
    assert report.flip().zones == (0, 0, 0, 0, 0, 1)


def test_a_mixed_text_is_the_own_one_and_a_sentence_about_the_pasted_zone():
    own = FreeReport.of("Haze in the left lower lobe", LUNGS)
    mixed = mixed_reports(own)
    assert len(mixed) == 7 and mixed[0] == own
    assert mixed[6].text == "Haze in the left lower lobe. Also lower right lung."
    assert mixed[3] == own, "it names this zone already"
    for k, report in enumerate(mixed[1:]):
        assert (
            report.zones == tuple(own.zones[i] | (i == k) for i in range(6)) == FreeReport.of(report.text, LUNGS).zones
        )
    assert mixed_reports(own, "keep") == [own] * 7


@pytest.mark.parametrize("mode", PATCH_MODES)
def test_a_text_that_names_no_zone_neither_gives_nor_takes_a_patch(mode):
    sure, unsure = FreeReport.of("left lower lobe", LUNGS), FreeReport.of("an opacity", LUNGS)
    for rule in PATCH_ZONES:
        assert zone_choices(sure, unsure, mode, rule) == zone_choices(unsure, sure, mode, rule) == []
        assert zone_choices(sure, sure, mode, rule) != []
    assert mixed_reports(unsure) == [unsure] * 7


def test_zones_of_opposite_halves_are_not_mixed_and_those_over_the_middle_go_with_either():
    left, centre, right = (FreeReport.of(text, LEFT_TO_RIGHT) for text in ("left", "centre", "right"))
    assert compatible_zones(left, right) == []
    assert compatible_zones(left, centre) == compatible_zones(right, centre) == [1]


def test_posaug_hides_the_phrases_of_the_sides_that_are_hit():
    report = FreeReport.of("Haze in the left lower lobe and the right upper zone.", LUNGS)
    assert apply_hits(report, {"left": MASK_TOKEN}) == f"Haze in the {MASK_TOKEN} and the right upper zone."
    vague = "Haze in a region of the lung and a region of the lung."
    assert apply_hits(report, {"left": LUNGS.vague, "right": LUNGS.vague}) == vague
    hits = draw_hits(np.random.default_rng(0), 1.0, "fuzz", QUADRANTS.vague)
    assert apply_hits(FreeReport.of("spot, lower left", QUADRANTS), hits) == "spot, a region of the image"
    assert apply_hits(FreeReport.of("a spot", QUADRANTS), hits) == "a spot"


def test_positions_can_be_taken_out_of_a_free_text():
    report = FreeReport.of("Haze in the left lower lobe.", LUNGS)
    told = {mode: text_at_hand(report, mode) for mode in MODES}
    assert told["full"] == report.text and told["removed"] == "Haze." and told["masked"] == f"Haze in the {MASK_TOKEN}."
    assert told["fuzzy"] == "Haze in a region of the lung." and told["wrong-side"] == "Haze in the right lower lobe."
