"""T-PatchMix: image, target and text are changed together or not at all, and patches lie where the rules say."""

import numpy as np
import pytest
import torch

from semimedref_core import patchmix
from semimedref_core.anatomy import THIRDS
from semimedref_core.networks import build_texts
from semimedref_core.patchmix import compatible_zones, mixed_reports, propose, t_patchmix
from semimedref_core.reports import ZONES, Report
from semimedref_core.views import draw_geometry

SIZE, BLOCK = 48, 12
BOXES = THIRDS.boxes(SIZE, SIZE)


def lesions(reports, confidence):
    """Teacher maps [B, 1, 48, 48]: one lesion in the middle of each zone that a report names."""
    probs = torch.zeros(len(reports), 1, SIZE, SIZE)
    for p, report, sure in zip(probs, reports, confidence, strict=True):
        for (y0, x0, y1, x1), named in zip(BOXES, report.zones, strict=True):
            if named:
                p[0, y0 + 2 : y1 - 2, x0 + 3 : x1 - 3] = float(sure)
    return probs


def mix(seed, mode, batch=16, gate=0.5):
    """A batch whose images show exactly what the teacher's maps mark, so that both can be compared after mixing."""
    rng = np.random.default_rng(seed)
    reports = [Report.of([int(code) >> k & 1 for k in range(6)]) for code in rng.integers(0, 64, batch)]
    probs = lesions(reports, rng.choice([0.3, 0.95], batch))
    texts = build_texts()
    proposal = propose(rng, reports, np.tile(BOXES, (batch, 1, 1)), mode, p=0.9)
    tensors = {name: torch.as_tensor(value) for name, value in vars(proposal).items()}
    choices = torch.stack([texts([r.render() for r in mixed_reports(report)]) for report in reports])
    mixed, target, ids, accepted = t_patchmix(probs.clone(), probs, choices, tensors, BLOCK, mode, gate)
    told = [Report.parse(text) for text in texts.decode(ids)]
    return reports, probs, proposal, mixed, target, told, accepted


@pytest.mark.parametrize("mode", patchmix.PATCH_MODES)
def test_what_the_image_shows_the_target_marks_and_the_text_says_are_the_same_for_a_thousand_samples(mode):
    pasted = 0
    for seed in range(63):
        reports, probs, _, mixed, target, told, accepted = mix(seed, mode)
        assert torch.equal(mixed, target), "the target must mark what the image shows, pixel by pixel"
        for i, report in enumerate(reports):
            shown = {k for k, (y0, x0, y1, x1) in enumerate(BOXES) if target[i, 0, y0:y1, x0:x1].any()}
            named = {k for k, bit in enumerate(told[i].zones) if bit}
            assert shown <= named, f"the text hides {[ZONES[k] for k in shown - named]}"
            if accepted[i]:
                pasted += 1
                assert len(named - {k for k, bit in enumerate(report.zones) if bit}) <= 1
                assert told[i].lesions == sum(told[i].zones), "how many lesions there are now, nobody knows"
            else:
                assert torch.equal(target[i], probs[i]) and told[i] == report, "a refused sample stays as it was"
    assert pasted > 100


@pytest.mark.parametrize("mode", patchmix.PATCH_MODES)
def test_count_and_laterality_agree_with_the_zones_of_a_mixed_text(mode):
    *_, told, accepted = mix(3, mode)
    assert accepted.any()
    for report, pasted in zip(told, accepted, strict=True):
        if pasted:
            sides = any(report.side("left")) + any(report.side("right"))
            assert report.laterality == ("no", "unilateral", "bilateral")[sides]


def test_any_zone_that_the_donor_names_is_pasted_in_time_not_only_those_of_its_first_phrase():
    """The released code looks at the first phrase only, so bilateral reports give patches of the left lung only."""
    bilateral = [
        Report.parse(
            "Bilateral pulmonary infection, three infected areas, upper lower left lung and middle right lung."
        )
    ] * 8
    rng = np.random.default_rng(0)
    zones = {int(z) for _ in range(40) for z in propose(rng, bilateral, np.tile(BOXES, (8, 1, 1))).zones}
    assert zones == {-1, *(k for k, bit in enumerate(bilateral[0].zones) if bit)}


@pytest.mark.parametrize("mode", patchmix.PATCH_MODES)
def test_a_patch_lies_in_its_zone_in_the_donors_view_and_in_the_receivers_when_views_move_apart(mode):
    """Else a lesion of the donor's upper zone would be seen in the receiver's middle zone, which no text names."""
    rng = np.random.default_rng(0)
    reports = [Report.of([1] * 6)] * 32
    probs = torch.from_numpy(rng.random((32, 1, SIZE, SIZE), dtype=np.float32))
    geometry = draw_geometry(rng, 32, "strong")
    boxes = geometry.zone_boxes(BOXES, SIZE, SIZE)
    found = 0
    for _ in range(10):
        proposal = propose(rng, reports, boxes, mode, p=1.0)
        tensors = {name: torch.as_tensor(value) for name, value in vars(proposal).items()}
        patches, zones = patchmix.patch_boxes(probs, **tensors, block=BLOCK, mode=mode, gate=0.5)
        for i in np.flatnonzero(zones.numpy() >= 0):
            y0, x0, y1, x1 = patches[i].tolist()
            assert y1 > y0 and x1 > x0
            for view in (i, proposal.partner[i]):
                top, left, bottom, right = boxes[view, zones[i]]
                assert top <= y0 and left <= x0 and y1 <= bottom and x1 <= right
            found += 1
    assert found > 100


def test_boxes_that_do_not_meet_have_nothing_in_common():
    one = np.array([[0, 0, 8, 8], [0, 0, 8, 8], [4, 4, 4, 9]])
    two = np.array([[4, 2, 12, 6], [8, 0, 12, 8], [0, 0, 9, 9]])
    assert patchmix.common_boxes(one, two).tolist() == [[4, 2, 8, 6], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_whose_report_decides_where_a_patch_lies():
    """The paper's rule needs the receiver to name the zone, ours the donor; each takes what the other refuses
    (Eq. 4, Ledger 2)."""
    rng, left, both = np.random.default_rng(0), Report.of([0, 1, 1, 0, 0, 0]), Report.of([0, 0, 1, 0, 0, 1])
    healthy = Report.of([0] * 6)
    assert [compatible_zones(left, both, whose) for whose in patchmix.PATCH_ZONES] == [[1, 2], [2, 5], [2]]
    assert [compatible_zones(left, healthy, whose) for whose in patchmix.PATCH_ZONES] == [[1, 2], [], []]
    assert [compatible_zones(healthy, left, whose) for whose in patchmix.PATCH_ZONES] == [[], [1, 2], []]
    assert [compatible_zones(left, left.flip(), whose) for whose in patchmix.PATCH_ZONES] == [[], [], []]
    reports = [Report.of([int(code) >> k & 1 for k in range(6)]) for code in rng.integers(0, 64, 200)]
    boxes, drawn = np.tile(BOXES, (200, 1, 1)), {}
    for whose in patchmix.PATCH_ZONES:
        proposal = drawn[whose] = propose(np.random.default_rng(1), reports, boxes, p=1.0, named_by=whose)
        for own, partner, zone in zip(reports, proposal.partner, proposal.zones, strict=True):
            named = {"receiver": own.zones[zone], "donor": reports[partner].zones[zone]}
            assert zone < 0 or all(named[name] for name in named if whose in (name, "both"))
    assert (drawn["receiver"].zones != drawn["donor"].zones).any()
    assert (drawn["both"].zones < 0).sum() > max((drawn[name].zones < 0).sum() for name in ("receiver", "donor"))


def test_by_the_receivers_report_a_patch_adds_no_zone_to_the_text():
    reports = [
        Report.of([int(code) >> k & 1 for k in range(6)]) for code in np.random.default_rng(0).integers(1, 64, 99)
    ]
    zones = propose(np.random.default_rng(1), reports, np.tile(BOXES, (99, 1, 1)), p=1.0, named_by="receiver").zones
    told = [mixed_reports(report)[zone + 1] for report, zone in zip(reports, zones, strict=True)]
    assert (zones >= 0).any() and [text.zones for text in told] == [report.zones for report in reports]


def test_a_left_only_sample_never_takes_from_a_right_only_donor():
    left = Report.parse("Unilateral pulmonary infection, one infected area, lower left lung.")
    right, both = left.flip(), Report.of([0, 0, 1, 0, 1, 0])
    assert compatible_zones(left, right) == compatible_zones(right, left) == []
    assert compatible_zones(left, both) == [2, 4]
    assert compatible_zones(both, right) == [5]
    assert compatible_zones(Report.of([0] * 6), right) == [5], "a healthy sample takes from anyone"


def test_the_gate_is_the_mean_teacher_probability_in_the_patch():
    _, probs, _, _, _, _, accepted = mix(5, "position", gate=0.5)
    assert accepted.any() and not accepted.all()
    _, _, _, _, _, _, open_gate = mix(5, "position", gate=0.0)
    _, _, _, _, untouched, _, closed = mix(5, "position", gate=1.0)
    assert open_gate.sum() > accepted.sum() and not closed.any()
    assert torch.equal(untouched, probs)


def test_probability_driven_patches_are_centred_on_confident_foreground_inside_one_zone():
    reports, probs, proposal, *_ = mix(1, "probability", batch=32)
    tensors = {name: torch.as_tensor(value) for name, value in vars(proposal).items()}
    boxes, zones = patchmix.patch_boxes(probs, **tensors, block=2, mode="probability", gate=0.5)
    assert (zones >= 0).any()
    for (y0, x0, y1, x1), zone, donor in zip(boxes, zones, proposal.partner, strict=True):
        if zone >= 0:
            assert probs[donor, 0, y0:y1, x0:x1].max() >= 0.5
            assert reports[donor].zones[zone]
        else:
            assert (y1 - y0) * (x1 - x0) == 0
    assert len({tuple(box.tolist()) for box in boxes}) > 8, "the pixel is drawn by chance"


def test_where_texts_are_kept_a_mixed_sample_is_told_as_before():
    """The ablation of Eq. 8: seven texts as ever, so that the rest of the step does not change."""
    own = Report.of([0, 1, 0, 0, 0, 1], lesions=3)
    assert mixed_reports(own, "keep") == [own] * 7
    assert mixed_reports(own, "rewrite") == mixed_reports(own) and len({r.code for r in mixed_reports(own)}) == 5


def test_a_sample_is_never_its_own_donor_and_an_unknown_mode_is_refused():
    reports = [Report.of([1] * 6)] * 4
    proposal = propose(np.random.default_rng(0), reports, np.tile(BOXES, (4, 1, 1)), p=1.0)
    assert all(zone == -1 for i, zone in enumerate(proposal.zones) if proposal.partner[i] == i)
    with pytest.raises(ValueError, match="'mosaic'.*position, probability, random"):
        propose(np.random.default_rng(0), reports, np.tile(BOXES, (4, 1, 1)), "mosaic")
    tensors = {name: torch.as_tensor(value) for name, value in vars(proposal).items()}
    pictures, texts = torch.zeros(4, 1, SIZE, SIZE), torch.zeros(4, 7, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="'probabilty'.*position, probability, random"):
        t_patchmix(pictures, pictures, texts, tensors, BLOCK, "probabilty", 0.5)
    for wrong in (texts[:, 0], texts[:, :6]):
        with pytest.raises(ValueError, match=r"text_choices must be \[B, 7, L\], one text more than zones, got \[4, "):
            t_patchmix(pictures, pictures, wrong, tensors, BLOCK, "position", 0.5)
    with pytest.raises(ValueError, match="unknown rule 'neighbour' for zones; choose one of receiver, donor, both"):
        propose(np.random.default_rng(0), reports, np.tile(BOXES, (4, 1, 1)), p=1.0, named_by="neighbour")


@pytest.mark.parametrize(
    "setting, known", [({"mix_text": "rewrte"}, "rewrite, keep"), ({"mix_count": "zone"}, "zones")]
)
def test_a_misspelt_rule_for_the_mixed_text_is_refused(setting, known):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"unknown {name} '{value}'; choose one of .*{known}"):
        mixed_reports(Report.of([0, 0, 1, 0, 0, 0]), **setting)
