"""The mixing explorer: one pair goes through the functions that mix a batch, and a refused patch says why."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from semimedref_core import patchmix
from semimedref_core.anatomy import QATA
from semimedref_core.data.phantom import phantom
from semimedref_core.figures import mixing as figures
from semimedref_core.reports import ZONES, Report
from semimedref_core.widgets.mixing import MixingExplorer, mix_pair

SIZE = 96
BOXES = QATA.boxes(SIZE, SIZE)
LEFT, RIGHT = Report.of([0, 0, 1, 0, 0, 0]), Report.of([0, 0, 0, 0, 1, 0])
LEFT_UP = Report.of([1, 0, 0, 0, 0, 0])
BOTH, HEALTHY = Report.of([0, 0, 1, 0, 1, 0]), Report.of([0] * 6)


@pytest.fixture(scope="module")
def pairs():
    return phantom("valid", count=12, size=SIZE)


@pytest.fixture(scope="module")
def probs(pairs):
    return gaussian_filter(pairs.masks.astype(np.float32), (0, 2, 2))


def mix(reports=(LEFT, BOTH), sure=0.8, **changes):
    """A receiver that shows 0 and is nowhere ill, a donor that shows 1 and is ill everywhere."""
    images = np.stack([np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE))]).astype(np.float32)
    ask = {"zone": 4, "place": (0.5, 0.5), "block": 24, "mode": "position", "gate": 0.5, "boxes": BOXES}
    return mix_pair(images, images * sure, reports, **ask | changes)


def test_image_target_and_text_of_an_accepted_pair_change_together():
    """Eq. 6, Eq. 7 and Eq. 8, by hand."""
    found = mix()
    y0, x0, y1, x1 = found.patch
    m = np.zeros((SIZE, SIZE), np.float32)
    m[y0:y1, x0:x1] = 1
    assert found.refused == "" and found.mean == pytest.approx(0.8)
    assert np.array_equal(found.image, m) and np.array_equal(found.target, m * np.float32(0.8))
    assert found.report == LEFT.merge(RIGHT)
    top, left, bottom, right = BOXES[4]
    assert top <= y0 < y1 <= bottom and left <= x0 < x1 <= right


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reports": (LEFT, RIGHT)}, "no compatible zone: the two reports name opposite sides"),
        ({"reports": (LEFT, HEALTHY)}, "no compatible zone: the donor's report names none"),
        ({"zone": 0}, "no compatible zone: the donor's report does not name left upper"),
        ({"zone": 4, "named_by": "receiver"}, "no compatible zone: the receiver's report does not name right middle"),
        ({"reports": (HEALTHY, BOTH), "named_by": "receiver"}, "no compatible zone: the receiver's report names none"),
        ({"reports": (LEFT, LEFT_UP), "named_by": "both"}, "no compatible zone: no zone is named by both"),
        ({"named_by": "both"}, "no compatible zone: one of the two reports does not name right middle"),
        ({"gate": 0.9}, "mean probability 0.80 below the gate 0.90"),
        ({"mode": "probability", "gate": 0.9}, "no confident pixel: the teacher is nowhere in a zone of the donor as"),
        ({"boxes": np.zeros((6, 4), int)}, "empty patch: no pixel of it lies in the zone's box"),
    ],
)
def test_a_refused_pair_says_why_and_nothing_changes(changes, why):
    """Eq. 5: all three or none."""
    found = mix(**changes)
    assert found.refused.startswith(why)
    assert not found.image.any() and not found.target.any()
    assert found.report == changes.get("reports", (LEFT,))[0]


def test_by_the_receivers_rule_the_patch_lies_in_a_zone_of_its_own_report_and_the_text_keeps_its_zones():
    found = mix(zone=2, named_by="receiver", mix_count="none")
    assert found.refused == "" and found.report.zones == LEFT.zones and found.report.lesions is None
    assert mix(reports=(LEFT, HEALTHY), zone=2, named_by="receiver").refused == "", "the donor need not name any"


def test_random_mode_takes_any_zone_and_the_text_follows_all_the_same():
    found = mix(reports=(LEFT, HEALTHY), mode="random", zone=3)
    assert found.refused == "" and found.report.zones == (0, 0, 1, 1, 0, 0)


def test_in_probability_mode_the_place_picks_one_of_the_confident_pixels():
    probs = np.zeros((2, SIZE, SIZE), np.float32)
    top, left, *_ = BOXES[2]
    probs[1, top + 4 : top + 8, left + 5 : left + 9] = 1
    corners = set()
    for place in (0.0, 0.5, 1.0):
        found = mix_pair(probs, probs, (LEFT, LEFT), BOXES, 0, (place, 0.5), 2, "probability", 0.25)
        assert found.refused == "" and found.report == patchmix.mixed_reports(LEFT)[1 + ZONES.index("left lower")]
        corners.add(found.patch)
    assert len(corners) == 3


def test_one_pair_is_mixed_as_the_same_pair_in_a_batch_is(pairs, probs):
    """Eq. 4 to 8 for the pairs of a batch, once together and once each for itself."""
    plan = patchmix.propose(np.random.default_rng(0), pairs.reports, np.tile(BOXES, (12, 1, 1)), p=1.0)
    tensors = {name: torch.as_tensor(value) for name, value in vars(plan).items()}
    x, p = (torch.as_tensor(a, dtype=torch.float32)[:, None] for a in (pairs.images, probs))
    numbers = torch.arange(7).repeat(12, 1)[..., None]
    mixed, target, chosen, accepted = patchmix.t_patchmix(x, p, numbers, tensors, 32, "position", 0.3)
    assert accepted.any() and not accepted.all()
    for i, j in enumerate(plan.partner):
        if plan.zones[i] < 0:
            continue
        pair = pairs.subset([i, j])
        alone = mix_pair(
            pair.images, probs[[i, j]], pair.reports, BOXES, int(plan.zones[i]), plan.centres[i], 32, "position", 0.3
        )
        assert np.array_equal(alone.image, mixed[i, 0]) and np.array_equal(alone.target, target[i, 0])
        assert (alone.refused == "") == bool(accepted[i])
        assert alone.report == patchmix.mixed_reports(pairs.reports[i])[int(chosen[i])]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'mosaic'.*position, probability, random"):
        mix(mode="mosaic")


@pytest.fixture
def explorer(pairs, probs):
    """Samples whose texts agree on a zone, a patch that is a third of the picture, and a gate that accepts all."""
    two = [(i, j) for i in range(12) for j in range(12) if i != j]
    zones = {(i, j): patchmix.compatible_zones(pairs.reports[i], pairs.reports[j]) for i, j in two}
    i, j = next(pair for pair in two if zones[pair])
    return MixingExplorer(pairs, probs, BOXES, receiver=i, donor=j, zone=zones[i, j][0], size=0.3, gate=0.0)


def test_moving_a_control_changes_picture_and_text_and_a_closed_gate_says_why(explorer):
    i, j = explorer.controls["receiver"].value, explorer.controls["donor"].value
    assert explorer.said.value.startswith("accepted") and "The text now reads" in explorer.said.value
    accepted = explorer.picture.value
    explorer.controls["gate"].value = 1.0
    assert "refused: mean probability" in explorer.said.value and "below the gate 1.00" in explorer.said.value
    assert explorer.picture.value != accepted
    explorer.controls["donor"].value = i
    assert "never its own donor" in explorer.said.value
    explorer.controls["donor"].value = j
    explorer.controls["gate"].value = 0.0
    assert explorer.picture.value == accepted, "the same values give the same picture"
    assert plt.get_fignums() == []


def test_a_patch_that_is_dragged_is_answered_once_and_as_the_sliders_are(explorer):
    answers = []
    explorer.said.observe(lambda _: answers.append("line"), "value")
    explorer.picture.observe(lambda _: answers.append("picture"), "value")
    explorer.pad.place = (0.2, 0.9)
    assert (explorer.controls["down"].value, explorer.controls["across"].value) == (0.2, 0.9)
    assert answers.count("picture") == 1 and answers.count("line") <= 1
    dragged, patch = explorer.picture.value, explorer.pad.patch
    explorer.controls["down"].value = 0.6
    assert explorer.pad.place == (0.6, 0.9) and explorer.pad.patch != patch, "the picture follows the sliders"
    explorer.controls["down"].value = 0.2
    assert explorer.picture.value == dragged and explorer.pad.patch == patch


def test_a_patch_at_the_edge_of_its_zone_says_so_and_is_cut_to_the_zone(explorer):
    assert "Drag the patch" in explorer.pad.note
    explorer.pad.place = (1.0, 0.0)
    assert "at the edge of the zone's box" in explorer.pad.note
    top, left, bottom, right = BOXES[explorer.controls["zone"].value]
    y0, x0, y1, x1 = explorer.pad.patch
    assert (y1, x0) == (bottom, left) and y0 >= top and x1 <= right
    assert "100% down and 0% across" in explorer.pad.label, "for who cannot see it"


def test_a_patch_can_be_dragged_only_where_its_place_decides(explorer):
    assert explorer.pad.moves and explorer.pad.accepted
    explorer.controls["gate"].value = 1.0
    assert explorer.pad.moves and not explorer.pad.accepted, "a refused one can be moved to a better place"
    explorer.controls["mode"].value = "probability"
    assert not explorer.pad.moves and "The teacher's map decides" in explorer.pad.note
    explorer.controls["mode"].value = "position"
    explorer.controls["zone"].value = explorer.pairs.reports[explorer.controls["donor"].value].zones.index(0)
    assert not explorer.pad.moves and not any(explorer.pad.patch) and "No patch is proposed" in explorer.pad.note


def test_every_control_says_what_it_is_and_waits_until_it_is_let_go(explorer):
    for control in explorer.controls.values():
        assert control.description and not getattr(control, "continuous_update", False)


def test_words_that_differ_are_marked_in_both_reports_and_equal_ones_are_not():
    figure = figures.rewritten_reports([(LEFT, "right middle", LEFT.merge(RIGHT))])
    marked = {}
    for text in figure.axes[0].texts:
        if text.get_bbox_patch():
            marked.setdefault(text.get_bbox_patch().get_facecolor()[:3], []).append(text.get_text())
    plt.close(figure)
    gone, come = marked.values()
    assert gone == ["unilateral", "one", "area,"]
    assert {"bilateral", "two", "areas,", "right"} <= set(come) and "pulmonary" not in come
