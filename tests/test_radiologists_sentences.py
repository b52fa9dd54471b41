"""Sentences as radiologists write them, with the zones that they mean. The reader names these zones, or none."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from semimedref_core.free_reports import FreeReport
from semimedref_core.places import Token, places_in
from semimedref_core.positions import LEFT_TO_RIGHT, LUNGS, QUADRANTS
from semimedref_core.reading_words import KINDS, kind_of

LEFT = "left upper, left middle, left lower"
RIGHT = "right upper, right middle, right lower"

READ = [
    # a finding and its place
    ("Dense consolidation in the right middle lobe with air bronchograms.", "right middle"),
    ("Ill-defined airspace opacity is seen in the left lower zone, suspicious for pneumonia.", "left lower"),
    ("There is a 12 mm spiculated nodule in the right upper lobe.", "right upper"),
    ("Rounded mass, left upper zone, measuring 4.2 x 3.1 cm.", "left upper"),
    ("Multifocal ground-glass opacities in both lower lobes, in keeping with COVID-19.", "left lower, right lower"),
    ("Bibasilar atelectasis.", "left lower, right lower"),
    ("Biapical scarring", "left upper, right upper"),
    ("LLL collapse.", "left lower"),
    ("RML infiltrate, likely representing aspiration.", "right middle"),
    ("Tree-in-bud nodularity throughout the left upper lobe", "left upper"),
    ("Persistent right basal opacity.", "right lower"),
    ("The right upper zone is opacified.", "right upper"),
    ("Peripheral reticulonodular shadowing in the left mid zone.", "left middle"),
    ("Fluffy perilobular opacities in the right lower lobe.", "right lower"),
    ("New consolidation in the left lower lobe compared with the previous radiograph.", "left lower"),
    ("Compared to the prior study, the opacity in the right lower lobe has increased.", "right lower"),
    ("Small pleural effusion at the left base.", "left lower"),
    ("Opacity in the left lower lobe which may represent pneumonia.", "left lower"),
    ("Airspace oedema in both lower zones.", "left lower, right lower"),
    # beside what is normal
    ("The left lung is well aerated. Opacity in the right lower lobe.", "right lower"),
    ("Left lung preserved. Right lower lobe consolidation.", "right lower"),
    ("Left lung intact. Haze in the right upper zone.", "right upper"),
    ("Opacity in the right lower lobe, the left lung is clear.", "right lower"),
    ("Right lower lobe consolidation, left lung clear.", "right lower"),
    ("The right lung is clear, patchy opacity in the left lower lobe.", "left lower"),
    ("Left lower lobe opacity, contralateral lung clear.", "left lower"),
    ("Consolidation in the left upper lobe; the right lung is fully expanded.", "left upper"),
    ("LUL nodule. The remainder of the left lung is clear.", "left upper"),
    ("Both lungs are otherwise clear. RLL pneumonia.", "right lower"),
    ("The lungs are clear except for an opacity in the left lower lobe.", "left lower"),
    ("Right lower lobe opacity, no consolidation in the left lung.", "right lower"),
    ("The right lower lobe shows consolidation and the left lung is clear.", "right lower"),
    ("Opacity in the right lower lobe with clear left lung", "right lower"),
    ("RUL: clear. RML: clear. RLL: consolidation. LUL: clear. LLL: clear.", "right lower"),
    ("The right lung is free of consolidation. Infiltrate in the left upper lobe.", "left upper"),
    ("Normal left lung. Consolidation of the right lower zone.", "right lower"),
    ("The right lower lobe is not involved. The left lower lobe is consolidated.", "left lower"),
    ("Heart size is normal. No pneumothorax. Left basal consolidation.", "left lower"),
    ("Right upper lobe opacity, heart normal.", "right upper"),
    # beside what is gone, surgery, devices
    ("The right upper lobe opacity has resolved. New infiltrate in the left lower lobe.", "left lower"),
    ("The left lower lobe opacity is gone. RUL nodule.", "right upper"),
    ("Resolution of the previously seen LLL opacity. Consolidation in the RML.", "right middle"),
    ("Right upper lobe mass was resected. Nodule in the left lower lobe.", "left lower"),
    ("Status post right upper lobectomy. Consolidation in the left lower lobe.", "left lower"),
    ("Surgical clips in the right upper lobe. Opacity in the left lower zone.", "left lower"),
    ("Pacemaker in the left chest. Right lower lobe pneumonia.", "right lower"),
    ("Pacemaker over the left upper zone. Right lower lobe pneumonia.", "right lower"),
    ("Chest tube in the left hemithorax. Right upper lobe consolidation.", "right upper"),
    ("Elevated left hemidiaphragm. Opacity in the right lower lobe.", "right lower"),
    ("Old rib fracture left. Haze in the right lower zone.", "right lower"),
    # headings and lines
    ("FINDINGS: Opacity in the left lower lobe.\nIMPRESSION: Left lower lobe pneumonia.", "left lower"),
    ("INDICATION: rule out right upper lobe mass.\nFINDINGS: Consolidation in the left lower lobe.", "left lower"),
    ("Technique: AP view. Left lower lobe opacity. Impression: pneumonia.", "left lower"),
    ("No consolidation in the left lung.\n- Opacity in the right lower lobe", "right lower"),
    ("Opacity in the\nright lower lobe", "right lower"),
    # as people write for their own data
    ("left lower lung", "left lower"),
    ("infection in both lungs", f"{LEFT}, {RIGHT}"),
    ("Also lower right lung.", "right lower"),
    ("Location: right middle lobe", "right middle"),
    ("2 spots, upper left lung", "left upper"),
    ("white area in the lower part of the left lung", "left lower"),
    ("blurry area, upper left lung", "left upper"),
    ("GGO left lower lobe, right upper lobe", "left lower, right upper"),
    ("left lower lung and right upper lung are affected", "left lower, right upper"),
]  # fmt: skip

SILENT_OR = [
    # (text, the zones that are meant); the reader may be silent here
    ("The left lung is barely aerated.", LEFT),
    ("Opacity in the right lower lobe; left lung unusual.", f"right lower, {LEFT}"),
    ("Left lower lobe pneumonia, improving.", "left lower"),
    ("Patchy opacity right lower lobe and lingula.", ""),
    ("Right perihilar opacity. LUL nodule.", ""),
    ("Basal opacity. LUL nodule.", ""),
    ("Consolidation on the left. RLL nodule.", ""),
    ("Right lung: lower lobe consolidation. Left lung: clear.", "right lower"),
    ("Opacity in the RLL with small left basal effusion.", "right lower"),
    ("RLL consolidation. Effusion at the left base.", "right lower"),
    ("Nodule in the RUL or LUL.", ""),
    ("Decreased opacity in the left lower lobe.", "left lower"),
    ("Possible consolidation in the right lower lobe.", "right lower"),
    ("No change in the left lower lobe opacity. New opacity in the right upper lobe.", "left lower, right upper"),
    ("No resolution of the left lower lobe pneumonia. RUL nodule.", "left lower, right upper"),
    ("No new opacity in the left lung. RUL nodule.", ""),
    ("No improvement of right lower lobe opacity.", "right lower"),
    ("The opacity in the left lower lobe has not resolved.", "left lower"),
    ("The opacity in the left lower lobe has nearly resolved.", "left lower"),
    ("Opacity in the LLL has resolved and opacity in the RLL persists.", "right lower"),
    ("The left lung is not clear.", LEFT),
    ("Opacity in the right lower lobe and left lower lobe is clear.", ""),
    ("Consolidation in the left lower lobe has replaced that in the right lower lobe.", "left lower"),
    ("The right lung is hazy apart from the upper zone.", "right middle, right lower"),
    ("The left lung is whiter than the right lung.", LEFT),
    ("Opacities resolved in the left lung, remaining in the right lung", RIGHT),
    ("Infection: left lower lobe yes, right lower lobe no", "left lower"),
]  # fmt: skip

NOTHING = [
    "The left lung is well aerated.",
    "Left lung preserved.",
    "Left lung intact.",
    "left lung fully expanded",
    "Left lower lobe is adequately ventilated",
    "The left lower lobe opacity is gone.",
    "Right upper lobe mass was resected.",
    "Right upper lobectomy.",
    "Status post left lower lobe resection.",
    "Left lower lobe nodule has disappeared.",
    "Interval resolution of right lower lobe pneumonia.",
    "The previously seen opacity in the right upper lobe is no longer visible.",
    "Left lung fine.",
    "left lung ok",
    "Good aeration of the left lung",
    "Left lung symmetrical with right lung",
    "The right lung shows no opacity.",
    "Right lung expanded",
    "Left upper zone spared.",
    "Left lower lobe unremarkable",
    "Left lung lacks opacities.",
    "Left lung sans opacity",
    "Left lung devoid of lesions",
    "lesion-free left lung",
    "The left lung is lesion-free.",
    "Pacemaker in the left hemithorax",
    "Left chest drain tip in the left upper zone",
    "Right lower lobe?",
    "?RLL pneumonia",
    "? LLL consolidation",
    "Is there consolidation in the left lower lobe? No.",
    "Left lower lobe opacity: none",
    "LLL consolidation: absent",
    "Left lung. No opacity.",
    "Heart and left lung normal",
    "No evidence of consolidation; right lower lobe.",
    "No opacity in the left lung or\nright lower lobe.",
    "No opacity, e.g. in the left lower lobe.",
    "No consolidation vs. left lower lobe",
    "Left lung:\n- clear",
    "No acute opacity in the\nLLL.",
    "NO OPACITY IN THE LEFT LUNG OR\nRIGHT LOWER LOBE.",
    "History of left lower lobe pneumonia.",
    "Indication: right upper lobe mass.",
    "Recommend CT of the right lower lobe",
    "Opacity in the right lower lobe on the prior study.",
    "Nipple shadow in the right lower zone.",
    "Old healed fracture of the left lower ribs.",
    "The right lower lobe consolidation seen before has vanished.",
    "Opacity in the left lower lobe. The left lung is clear.",
    "Consolidation on the right, left lung sharp.",
    "Opacity seen; left lung attractive.",
    "Hyperinflated left lung",
    "Vessels of the left lower lobe",
    "Left lower lobe volume is maintained.",
    "The left lower lobe contains air.",
    "Artefact in the left lower zone",
    "The left lung has cleared.",
    "Left lower lobe opacity subsided.",
    "Left lower lobe opacity abated",
    "Right lower lobe opacity underwent drainage",
    "Excised left upper lobe tumour",
    "treated left upper lobe tumour",
    "No pneumothorax at the left upper zone.",
    "Neither left nor right lung shows opacity.",
    "Absence of opacity in the left lower lobe",
    "Cannot exclude consolidation in the left lower lobe",
    "The left lung is as expected.",
    "0 lesions in the left lower lobe",
    "left lower lobe (-)",
    "left lower lobe: 0",
    "In 2019 there was an opacity in the left lower lobe.",
    "Opacity at the left base, likely a vessel.",
    "Opacity at the left base, consistent with soft tissue.",
    "Suspicion of LLL pneumonia not confirmed",
    "Shift of the heart away from the left lung",
    "Lungs clear, in particular the left lower lobe.",
    "Comparison: left lower lobe mass.",
]


def named(text, layout=LUNGS):
    return set(layout.named(FreeReport.of(text, layout).zones))


def zones_of(told):
    return set(filter(None, told.split(", ")))


def mirrored(text):
    """The words of the other side, also in "LLL"."""
    other = {"left": "right", "right": "left", "l": "r", "r": "l"}

    def swap(found):
        word = other[found[0].lower()]
        return word.upper() if found[0].isupper() else word.capitalize() if found[0].istitle() else word

    return re.sub(r"\b(?:left|right|[lr](?=[uml]l\b))", swap, text, flags=re.IGNORECASE)


@pytest.mark.parametrize("text, zones", READ)
def test_the_zones_that_a_radiologist_means_are_read(text, zones):
    assert named(text) == zones_of(zones)


@pytest.mark.parametrize("text, zones", SILENT_OR)
def test_where_a_sentence_is_hard_the_reader_names_what_is_meant_or_nothing(text, zones):
    assert named(text) in (set(), zones_of(zones))


@pytest.mark.parametrize("text", NOTHING)
def test_a_place_that_is_sound_or_gone_or_only_mentioned_is_not_named(text):
    assert named(text) == set()


@pytest.mark.parametrize("text, zones", [*READ, *((text, "") for text in NOTHING)])
def test_the_mirrored_sentence_names_the_mirrored_zones(text, zones):
    assert named(mirrored(text)) == zones_of(mirrored(zones))


@given(st.from_regex(r"[a-z]{2,12}", fullmatch=True), st.sampled_from(["LLL", "right upper zone", "left lung"]))
def test_a_word_that_the_reader_does_not_know_leaves_the_sentence_open(word, place):
    """Whatever it may mean, and also if another sentence is clear."""
    assume(kind_of(word) == "u" and not places_in(word, [Token(word, 0, len(word))], LUNGS))
    assume(word not in ("left", "right", "rib", "ribs") and all(word not in row for row in LUNGS.grammar.rows))
    for text in (
        f"The {place} {word}",
        f"The {place} is {word}.",
        f"{word} {place}",
        f"Opacity in the {place} is {word}.",
        f"Opacity in the {place} {word}",
        f"The {place} {word} opacity",
    ):
        assert named(text) == named(f"Haze in the right lower lobe. {text}") == set(), text


def test_a_word_has_one_kind():
    words = [word for words in KINDS.values() for word in words.split()]
    assert [word for word in {*words} if words.count(word) > 1] == []


@pytest.mark.parametrize("text, layout, zones", [
    ("The upper left corner is smooth.", QUADRANTS, ""),
    ("Upper left corner intact.", QUADRANTS, ""),
    ("Spot in the upper left corner, lower right corner normal.", QUADRANTS, "left upper"),
    ("The mole in the upper left quadrant was excised. New mole, bottom right.", QUADRANTS, "right lower"),
    ("Melanoma of the skin, upper left quadrant", QUADRANTS, "left upper"),
    ("The polyp on the left is gone", LEFT_TO_RIGHT, ""),
    ("A polyp on the left", LEFT_TO_RIGHT, "left"),
    ("no polyp on the left, one on the right", LEFT_TO_RIGHT, ""),
])  # fmt: skip
def test_with_other_layouts_an_unknown_word_may_be_a_finding(text, layout, zones):
    assert named(text, layout) == zones_of(zones)
