"""One training step: what is looked at how often, what has gradients, and that the host never waits."""

from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from semimedref_core import semi_medref as step
from semimedref_core import views
from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches, plan_mixing
from semimedref_core.data.datasets import load_training
from semimedref_core.losses import dice_ce
from semimedref_core.methods import METHODS, method_named, reported_places
from semimedref_core.networks import build_texts
from semimedref_core.networks.compact import Compact
from semimedref_core.patchmix import PATCH_MODES
from semimedref_core.tools.inspection import HostReads, Passes

CONFIG = Config(image_size=32, batch_size=4, label_ratio=0.05, patch_p=1.0, gate=0.0)


@pytest.fixture(scope="module")
def pairs():
    return load_training(CONFIG.dataset, CONFIG.label_ratio, CONFIG.image_size)


@pytest.fixture
def networks():
    return untrained("semi_medref")


def untrained(method):
    torch.manual_seed(0)
    student = METHODS[method].build("compact")
    return student, METHODS[method].teacher(student)


def batches(pairs, config=CONFIG):
    plan = METHODS[config.method].plan
    return Batches(pairs.labelled, pairs.unlabelled, config, build_texts(), THIRDS, plan=plan)


def test_a_semi_medref_step_makes_one_pass_of_the_teacher_and_one_of_the_student(pairs, networks):
    """Ledger 6: the release's teacher looks twice.

    Four labelled, four mixed and four weak samples; the weak ones, for ITCL, need the student's encoders only.
    """
    student, teacher = networks
    looked, learned = Passes(teacher.network), Passes(student)
    METHODS["semi_medref"].step(student, teacher, batches(pairs)(0), 0.5, CONFIG)
    assert looked.made == [(4, 4)]
    assert learned.made == [(12, 8)]


def test_during_burn_in_the_teacher_is_not_asked(pairs, networks):
    student, teacher = networks
    looked, learned = Passes(teacher.network), Passes(student)
    METHODS["semi_medref"].step(student, teacher, batches(pairs)(0), 0.0, CONFIG)
    assert looked.made == [] and learned.made == [(4, 4)]


def test_the_partners_pseudo_labels_are_the_permuted_ones(pairs, networks):
    """Ledger 6: the release asks the teacher again to learn what it knows."""
    _, teacher = networks
    unlabelled, partner = batches(pairs)(0).unlabelled, torch.tensor([2, 0, 3, 1])
    weak = views.weak_view(unlabelled.images, unlabelled.affine)
    with torch.no_grad():
        once = teacher(weak, unlabelled.input_ids).logits.sigmoid()
        again = teacher(weak[partner], unlabelled.input_ids[partner]).logits.sigmoid()
    torch.testing.assert_close(again, once[partner], rtol=0, atol=1e-5)
    assert (again - once).abs().max() > 1e-3


@pytest.mark.parametrize("patch_mode", PATCH_MODES)
@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_the_device(pairs, method, patch_mode):
    """On the meta device tensors have shapes but no values, so whatever asks for a value on the host fails."""
    student, teacher = untrained(method)
    student.to("meta"), teacher.network.to("meta")
    config = Config(**{**CONFIG.to_dict(), "patch_mode": patch_mode, "method": method})
    batch = _to(batches(pairs, config)(0), torch.device("meta"))
    losses = METHODS[method].step(student, teacher, batch, 0.5, config)
    losses["loss"].backward()
    teacher.update(student, 0.9)
    assert losses["loss"].device.type == "meta"


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 0], lambda x: x.cpu(), lambda x: x.tolist()],
)
def test_the_meta_device_does_catch_host_syncs(wait):
    with pytest.raises((RuntimeError, NotImplementedError)):
        wait(torch.ones(3, device="meta"))


@pytest.mark.parametrize("method", METHODS)
def test_no_step_reads_a_value_on_the_way(pairs, method):
    """What the meta device cannot show: the real operations, with values, forward, backward and EMA."""
    student, teacher = untrained(method)
    batch = batches(pairs, Config(**{**CONFIG.to_dict(), "method": method}))(0)
    with HostReads() as host:
        METHODS[method].step(student, teacher, batch, 0.5, CONFIG)["loss"].backward()
        teacher.update(student, 0.9)
    assert host.reads == [] and host.operations > 500


def test_the_student_learns_from_everything_and_the_teacher_from_nothing(pairs, networks):
    student, teacher = networks
    losses = METHODS["semi_medref"].step(student, teacher, batches(pairs)(0), 0.5, CONFIG)
    losses["loss"].backward()
    without = [name for name, parameter in student.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


def test_the_papers_step_is_ours_where_the_settings_have_none_of_our_additions(pairs):
    """Bit for bit, as the preset ``paper`` has it; the preset ``compact`` has all of them."""
    paper = Config(**{**CONFIG.to_dict(), "pseudo_labels": "teacher", "teacher_view": "same", "unfound": "image"})
    for config, same in ((paper, True), (CONFIG, False)):
        losses = []
        for of_method in (step.semi_medref, METHODS["semi_medref"].step):
            student, teacher = untrained("semi_medref")
            torch.manual_seed(1)
            losses.append(of_method(student, teacher, batches(pairs, config)(0), 0.5, config))
        found = {name: losses[0][name].equal(losses[1][name]) for name in losses[0]}
        assert all(found.values()) if same else not found["loss_mixed"]


def test_the_loss_is_the_sum_that_the_paper_gives(pairs, networks):
    """Eq. 17"""
    student, teacher = networks
    losses = METHODS["semi_medref"].step(student, teacher, batches(pairs)(0), 0.4, CONFIG)
    expected = (
        losses["loss_labelled"]
        + CONFIG.itcl_weight * losses["loss_itcl"]
        + 0.4 * (losses["loss_mixed"] + CONFIG.itcl_unlabelled_weight * losses["loss_itcl_unlabelled"])
    )
    torch.testing.assert_close(losses["loss"], expected)


def pseudo_targets(pairs, networks, **settings):
    """What the student is asked to segment when the teacher sees lesion everywhere, with the batch it is about."""
    student, _ = networks
    config = Config(**{**CONFIG.to_dict(), "patch_p": 0.0, **settings})
    asked = []

    def noted(logits, target, weight=None):
        asked.append((target, weight))
        return logits.mean()

    everywhere = lambda weak, ids: SimpleNamespace(logits=torch.full_like(weak, 9.0))  # noqa: E731
    batch = batches(pairs, config)(0)
    METHODS["semi_medref"].step(student, everywhere, batch, 0.5, config, mask_loss=noted)
    return asked[1], batch.unlabelled


def test_pseudo_labels_lie_where_the_report_lets_lesions_be(pairs, networks):
    """Ledger 5: ours."""
    (target, _), unlabelled = pseudo_targets(pairs, networks)
    allowed = views.place_masks(unlabelled.regions, unlabelled.affine)
    assert torch.equal(target, allowed)
    assert 0 < allowed.mean() < 1


def test_the_releases_pseudo_labels_are_what_the_teacher_says_wherever_it_is(pairs, networks):
    """Ledger 5: the release's."""
    (target, weight), _ = pseudo_targets(pairs, networks, pseudo_labels="teacher")
    assert target.all() and weight.all()


def test_a_target_is_trusted_unless_a_reported_infection_is_missing_in_it():
    """Ledger 5. Found, not found, and rightly empty."""
    target, codes = torch.zeros(3, 1, 8, 8), torch.tensor([4, 4, 0])
    target[0, 0, 2, 3] = 1
    assert reported_places.found_images(target, codes, Config(pseudo_labels="reported")).tolist() == [1, 0, 1]
    assert reported_places.found_images(target, codes, Config(pseudo_labels="teacher")).tolist() == [1, 1, 1]


def test_an_infection_that_the_teacher_did_not_find_teaches_nothing():
    logits, found = torch.randn(3, 1, 8, 8), torch.ones(3, 1, 8, 8)
    trusted = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand_as(found)
    expected = (dice_ce(logits[:1], found[:1]) + dice_ce(logits[2:], found[2:])) / 2
    torch.testing.assert_close(dice_ce(logits, found, trusted), expected)
    assert dice_ce(logits, found, torch.zeros_like(found)) == 0


def test_pixels_left_out_add_no_loss_and_have_no_gradient():
    logits, target = torch.randn(2, 1, 4, 8, requires_grad=True), torch.randint(0, 2, (2, 1, 4, 8)).float()
    left_out = torch.zeros(2, 1, 4, 8, dtype=torch.bool)
    left_out[..., 4:] = True
    loss = dice_ce(logits, target, (~left_out).float())
    half = DiceCELoss(sigmoid=True, lambda_ce=0.5)(logits[..., :4], target[..., :4])  # the mean is over all pixels
    torch.testing.assert_close(loss, half, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert not logits.grad[left_out].any() and logits.grad[~left_out].all()


def test_zones_that_are_named_and_not_found_are_those_of_the_report_without_lesion_in_the_target():
    """Two samples of 4 x 4 pixels: three of six zones named, of these one found, one empty, one outside the view."""
    boxes = torch.zeros(2, 6, 4, dtype=torch.long)
    boxes[:, 0], boxes[:, 1], boxes[:, 2] = torch.tensor([[0, 0, 2, 2], [1, 0, 4, 2], [0, 2, 4, 4]])
    target = torch.zeros(2, 1, 4, 4)
    target[:, 0, 0, 1] = 1
    left_out = reported_places.unfound_zones(target, torch.tensor([0b001011, 0]), boxes)
    assert left_out[0, 0].int().tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert not left_out[1].any(), "nothing is reported, so nothing is missed"


@pytest.mark.parametrize("unfound", ["image", "zone"])
def test_a_reported_zone_that_the_teacher_leaves_empty_is_not_taught_to_be_empty(pairs, networks, unfound):
    """The teacher finds a lesion in one named zone; what the student predicts in another costs nothing, or does."""
    student, _ = networks
    config = Config(**{**CONFIG.to_dict(), "patch_p": 0.0, "unfound": unfound, "pseudo_labels": "teacher"})
    batch = batches(pairs, config)(0)
    unlabelled, targets = batch.unlabelled, torch.zeros(4, 1, 32, 32)
    for i, (code, zones) in enumerate(zip(unlabelled.codes.tolist(), unlabelled.zone_boxes.tolist(), strict=True)):
        first = next(k for k in range(6) if code >> k & 1)
        y0, x0, y1, x1 = zones[first]
        targets[i, 0, y0:y1, x0:x1] = 1
    left_out = reported_places.unfound_zones(targets, unlabelled.codes, unlabelled.zone_boxes)
    assert left_out.any()
    seen = {}

    def watched(images, texts, decode):
        prediction = student(images, texts, decode=decode)
        seen["logits"] = prediction.logits
        prediction.logits.retain_grad()
        return prediction

    teacher = lambda *_: SimpleNamespace(logits=targets.flip(3) * 18 - 9)  # noqa: E731 - it sees the mirror image
    METHODS["semi_medref"].step(watched, teacher, batch, 0.5, config)["loss"].backward()
    gradient = seen["logits"].grad[4:]
    assert gradient[~left_out].any() and bool(gradient[left_out].any()) == (unfound == "image")


def test_the_segmentation_loss_is_dice_plus_cross_entropy():
    """Eq. 13"""
    logits, target = torch.randn(4, 1, 8, 8), torch.randint(0, 2, (4, 1, 8, 8)).float()
    torch.testing.assert_close(dice_ce(logits, target), DiceCELoss(sigmoid=True)(logits, target))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("w_u", [0.0, 0.5])
def test_methods_that_share_a_seed_see_the_same_labelled_views(pairs, method, w_u):
    """So that a comparison of methods is one of methods: the same batch, and seen as it is."""
    with_rest = batches(pairs, Config(**{**CONFIG.to_dict(), "method": method}))(7)
    alone = Batches(pairs.labelled, None, CONFIG, build_texts(), THIRDS)(7).labelled
    for field in fields(alone):
        assert torch.equal(getattr(alone, field.name), getattr(with_rest.labelled, field.name))
    student, teacher = untrained(method)
    learners = [module for module in student.modules() if isinstance(module, Compact)]
    looked = {id(network): [] for network in learners}
    for network in learners:
        network.register_forward_pre_hook(lambda network, seen: looked[id(network)].append(seen))
    METHODS[method].step(student, teacher, with_rest, w_u, CONFIG)
    x = views.weak_view(alone.images, alone.affine)
    for seen in looked.values():
        assert sum(torch.equal(images[:4], x) and torch.equal(ids[:4], alone.input_ids) for images, ids in seen) == 1


def test_every_labelled_pair_is_seen_once_an_epoch_and_batches_depend_on_step_and_seed_alone(pairs):
    batch_of = batches(pairs)
    assert len(pairs.labelled) == 40
    seen = torch.cat([batch_of(step).labelled.images for step in range(10)])
    assert len({image.numpy().tobytes() for image in seen}) == 40
    assert _equal(batch_of(3), batches(pairs)(3))
    assert not _equal(batch_of(3), batches(pairs, Config(**{**CONFIG.to_dict(), "seed": 1}))(3))


@pytest.mark.parametrize("view", ["same", "mirrored"])
@pytest.mark.parametrize("method", ["mean_teacher", "fixmatch", "flip_sync", "cps", "lvit"])
def test_a_method_that_mixes_nothing_gets_no_texts_for_it_and_learns_the_same(pairs, method, view):
    """The plan draws last, so the rest of the batch stays. Texts of mirror images are made where they are read."""
    config = Config(**{**CONFIG.to_dict(), "method": method, "teacher_view": view})
    plain = batches(pairs, config)
    mixing = Batches(pairs.labelled, pairs.unlabelled, config, build_texts(), THIRDS, plan=plan_mixing)
    trained = [untrained(method) for _ in range(2)]
    for number in range(3):
        spared, all_drawn = plain(number), mixing(number)
        assert spared.unlabelled.text_choices is None and spared.unlabelled.proposal is None
        assert (spared.unlabelled.mirrored_ids is None) == (view == "same" and method != "flip_sync")
        rest = replace(all_drawn.unlabelled, text_choices=None, proposal=None)
        assert _equal(spared, replace(all_drawn, unlabelled=rest))
        losses = []
        for (student, teacher), batch in zip(trained, (spared, all_drawn), strict=True):
            torch.manual_seed(number)
            loss = METHODS[method].step(student, teacher, batch, 0.5, config)["loss"]
            student.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in student.parameters():
                    parameter -= 0.01 * (0 if parameter.grad is None else parameter.grad)
            teacher.update(student, 0.9)
            losses.append(loss)
        assert losses[0].equal(losses[1])


def test_unlabelled_pairs_carry_no_masks(pairs):
    assert pairs.unlabelled.masks is None
    assert not set(pairs.labelled.names) & set(pairs.unlabelled.names)


@pytest.mark.parametrize("w_u", [0.0, 0.5])
def test_hard_positives_are_the_usual_contrastive_loss_and_leave_the_rest_alone(pairs, networks, w_u):
    student, teacher = networks
    hard = Config(**{**CONFIG.to_dict(), "positives": "hard"})
    batch = batches(pairs)(0)
    given = []
    for config in (CONFIG, hard):
        torch.manual_seed(1)
        given.append(METHODS["semi_medref"].step(student, teacher, batch, w_u, config))
    labelled = batch.labelled
    seen = student(views.weak_view(labelled.images, labelled.affine), labelled.input_ids)
    u, v = (nn.functional.normalize(each) for each in (seen.image_embedding, seen.text_embedding))
    z, own = u @ v.T / CONFIG.tau, torch.arange(4)
    info_nce = (nn.functional.cross_entropy(z, own) + nn.functional.cross_entropy(z.T, own)) / 2
    torch.testing.assert_close(given[1]["loss_itcl"], info_nce)
    changed = {name for name in given[0] if not given[0][name].equal(given[1][name])}
    assert changed == {name for name in given[0] if name.startswith("loss_itcl")} | {"loss"}


@pytest.mark.parametrize("method", [name for name in METHODS if name != "semi_medref_release"])
def test_settings_of_semi_medref_alone_change_nothing_in_other_methods(pairs, method):
    other = {"itcl_weight": 1.0, "itcl_unlabelled_weight": 2.0, "tau": 0.5, "positives": "hard", "unfound": "image"}
    other |= {"gate": 0.9}
    losses = []
    for settings in ({}, *({name: value} for name, value in other.items())):
        config = Config(**{**CONFIG.to_dict(), "method": method, "pseudo_labels": "teacher", **settings})
        student, teacher = untrained(method)
        losses.append(METHODS[method].step(student, teacher, batches(pairs, config)(0), 0.5, config)["loss"].item())
    found = {name for name, loss in zip(other, losses[1:], strict=True) if loss != losses[0]}
    assert found == (set(other) - {"unfound"} if method == "semi_medref" else set())  # here nothing is unfound


def test_an_unknown_method_is_refused_by_name():
    with pytest.raises(ValueError, match=f"'fully_magic'; choose one of {', '.join(METHODS)}"):
        method_named("fully_magic")


def _to(value, device):
    if value is None:
        return None
    if is_dataclass(value):
        return type(value)(*(_to(getattr(value, field.name), device) for field in fields(value)))
    if isinstance(value, dict):
        return {name: _to(item, device) for name, item in value.items()}
    return value.to(device)


def _equal(a, b):
    if a is None or b is None:
        return a is b
    if is_dataclass(a):
        return all(_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, dict):
        return all(_equal(a[name], b[name]) for name in a)
    return torch.equal(a, b)
