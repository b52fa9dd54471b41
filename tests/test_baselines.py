"""The baselines: each learns what its paper says, in the frame that all methods share."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from semimedref_core import views
from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import load_training
from semimedref_core.losses import dice_ce
from semimedref_core.methods import METHODS, ad_mt, baselines, bcp, lvit, resmatch
from semimedref_core.networks import Twins, build_network, build_texts
from semimedref_core.preparing import prepare
from semimedref_core.reports import Report
from semimedref_core.runtime.checkpoints import from_pretrained, save_tensors
from semimedref_core.step import training_step

CONFIG = Config(image_size=32, batch_size=4, pseudo_labels="teacher", teacher_view="same", strong_view="release")
BASELINES = [name for name in METHODS if name not in ("supervised", "semi_medref", "semi_medref_release")]
HARD = ("cutmix", "flip_sync", "resmatch")  # learn the teacher's rounded map
ASKS_ITSELF = ("fixmatch", "unimatch", "unimatch_text")
SURE = 9.0  # a logit, of probability 0.9999


@pytest.fixture(scope="module")
def pairs():
    return load_training(CONFIG.dataset, CONFIG.label_ratio, CONFIG.image_size)


def batch_of(pairs, method, **settings):
    config = replace(CONFIG, method=method, **settings)
    plan = METHODS[method].plan
    return Batches(pairs.labelled, pairs.unlabelled, config, build_texts(), THIRDS, plan=plan)(0), config


class Says:
    """In the place of a network: answers with the given logits, one after the other, and notes what it was shown."""

    def __init__(self, *logits):
        self.logits, self.seen = list(logits), []

    def __call__(self, images, input_ids, perturb=None):
        self.seen.append(SimpleNamespace(images=images, input_ids=input_ids, perturb=perturb))
        return SimpleNamespace(logits=self.logits[len(self.seen) - 1])


class NotAsked:
    def __call__(self, *_):
        raise AssertionError("the teacher is only evaluated")


def confident_dice_ce(logits, p, confidence):
    """As FixMatch and UniMatch have it, where nothing is asked of the reports."""
    return baselines.rounded_dice_ce(logits, p, torch.ones_like(p), confidence)


def teachers(*logits, turn=0.0):
    """In the place of :class:`.AlternateTeachers`: each says one thing."""
    return SimpleNamespace(both=[Says(one) for one in logits], turn=torch.tensor([turn]))


def unlabelled_loss(method, student, teacher, batch, config):
    """L_u of a method; of CPS both networks look at labelled pairs first."""
    if method == "cps":
        return METHODS[method].step(student, teacher, batch, 1.0, config)["loss_unlabelled"]
    return METHODS[method].step.args[0](student, teacher, batch, config)


def maps(seed=0, scale=3.0):
    return scale * torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def both_views(unlabelled, photometry=None):
    weak = views.weak_view(unlabelled.images, unlabelled.affine)
    return weak, views.strong_view(weak, **(photometry or unlabelled.photometry))


def test_mean_teacher_is_the_squared_distance_of_probabilities_between_strong_and_weak_view(pairs):
    batch, config = batch_of(pairs, "mean_teacher")
    student, teacher = Says(maps(1)), Says(maps(2))
    loss = baselines.mean_teacher(student, teacher, batch, config)
    torch.testing.assert_close(loss, ((maps(1).sigmoid() - maps(2).sigmoid()) ** 2).mean())
    weak, strong = both_views(batch.unlabelled)
    assert torch.equal(teacher.seen[0].images, weak) and torch.equal(student.seen[0].images, strong)
    assert torch.equal(student.seen[0].input_ids, batch.unlabelled.input_ids)


def test_pixels_that_are_not_sure_are_left_out_of_both_terms():
    """By hand: of four pixels the third, p = 0.6, is out; the others are lesion, lesion, none."""
    p = torch.tensor([0.99, 0.97, 0.6, 0.02]).view(1, 1, 1, 4)
    logits = torch.tensor([1.0, -0.5, 2.0, 0.3], requires_grad=True)
    loss = confident_dice_ce(logits.view(1, 1, 1, 4), p, 0.95)
    q = torch.tensor([1.0, -0.5, 0.3]).sigmoid()
    cross_entropy = -(q[0].log() + q[1].log() + (1 - q[2]).log()) / 4
    dice = 1 - 2 * (q[0] + q[1]) / (q.sum() + 2)
    torch.testing.assert_close(loss, cross_entropy + dice, rtol=1e-4, atol=0)
    loss.backward()
    assert logits.grad[2] == 0 and logits.grad[[0, 1, 3]].all()


def test_where_nothing_is_sure_nothing_is_learnt_and_where_all_counts_it_is_the_loss_of_masks():
    p, logits = torch.full((2, 1, 4, 4), 0.7), torch.randn(2, 1, 4, 4, requires_grad=True)
    loss = confident_dice_ce(logits, p, 0.95)
    loss.backward()
    assert loss < 1e-6 and not logits.grad.any()
    torch.testing.assert_close(confident_dice_ce(logits, p, 0.5), dice_ce(logits, torch.ones_like(p)), rtol=0, atol=0)


def test_fixmatch_labels_the_weak_view_itself_and_learns_on_the_strong_one(pairs):
    batch, config = batch_of(pairs, "fixmatch", confidence=0.8)
    student = Says(maps(1), maps(2))
    loss = baselines.fixmatch(student, NotAsked(), batch, config)
    labels, learns = student.seen
    for seen, view in zip((labels, learns), both_views(batch.unlabelled), strict=True):
        assert torch.equal(seen.images, view) and torch.equal(seen.input_ids, batch.unlabelled.input_ids)
    torch.testing.assert_close(loss, confident_dice_ce(maps(2), maps(1).sigmoid(), 0.8))
    stricter = baselines.fixmatch(Says(maps(1), maps(2)), NotAsked(), batch, replace(config, confidence=0.99))
    assert stricter < loss


def pasted(box):
    """Pixels of a box (y0, x0, y1, x1)."""
    inside, (y0, x0, y1, x1) = torch.zeros(32, 32, dtype=bool), box
    inside[y0:y1, x0:x1] = True
    return inside


def mix(maps, partner, boxes):
    """Box by box, sample by sample, with slices and ``where``: ``[B, 1, H, W]``."""
    rows = zip(partner.tolist(), boxes.tolist(), strict=True)
    return torch.stack([torch.where(pasted(box), maps[j], maps[i]) for i, (j, box) in enumerate(rows)])


@pytest.mark.parametrize("method", ["unimatch", "unimatch_text"])
def test_unimatch_learns_on_two_strong_views_with_boxes_and_a_weak_one_whose_channels_are_dropped(pairs, method):
    batch, config = batch_of(pairs, method, confidence=0.8)
    student, proposal = Says(*(maps(i) for i in range(4))), batch.unlabelled.proposal
    loss = unlabelled_loss(method, student, NotAsked(), batch, config)
    neighbours = {name: value[[3, 0, 1, 2]] for name, value in batch.unlabelled.photometry.items()}
    weak, one = both_views(batch.unlabelled)
    _, two = both_views(batch.unlabelled, neighbours)
    one, two = (
        mix(view, proposal["partner"], boxes) for view, boxes in zip((one, two), proposal["boxes"], strict=True)
    )
    texts = batch.unlabelled.input_ids, *batch.unlabelled.text_choices.unbind(1), batch.unlabelled.input_ids
    for seen, view, text in zip(student.seen, (weak, one, two, weak), texts, strict=True):
        assert torch.equal(seen.images, view) and torch.equal(seen.input_ids, text)
    assert (one - two).abs().mean((1, 2, 3)).all()
    p = maps(0).sigmoid()
    targets = [mix(p, proposal["partner"], boxes) for boxes in proposal["boxes"]]
    terms = [confident_dice_ce(maps(1 + v), targets[v], 0.8) for v in (0, 1)] + [confident_dice_ce(maps(3), p, 0.8)]
    torch.testing.assert_close(loss, terms[0] / 4 + terms[1] / 4 + terms[2] / 2)
    perturb = [seen.perturb for seen in student.seen]
    dropped = perturb[3](torch.ones(8, 64, 3, 3))
    assert perturb[:3] == [None] * 3
    assert set(dropped.unique().tolist()) == {0, 2} and torch.equal(dropped.amax((2, 3)), dropped.amin((2, 3)))
    assert 0.4 < (dropped == 0).float().mean() < 0.6


def test_the_two_unimatches_mix_the_same_and_only_one_of_them_tells(pairs):
    own, told = (batch_of(pairs, method)[0].unlabelled for method in ("unimatch", "unimatch_text"))
    assert all(torch.equal(own.proposal[name], told.proposal[name]) for name in ("partner", "boxes"))
    empty = own.proposal["boxes"][..., 2].T == 0
    assert empty.any() and not empty.all()
    same = (told.text_choices == told.input_ids[:, None]).all(2)
    assert same[empty].all() and not same.all()
    assert (own.text_choices == own.input_ids[:, None]).all()


def test_cps_lets_each_network_learn_what_the_other_says_of_all_images(pairs):
    batch, config = batch_of(pairs, "cps")
    answers = [[maps(i).requires_grad_() for i in (1, 2)], [maps(i).requires_grad_() for i in (3, 4)]]
    twins = SimpleNamespace(first=Says(*answers[0]), second=Says(*answers[1]))
    losses = METHODS["cps"].step(twins, NotAsked(), batch, 0.4, config)
    weak, _ = both_views(batch.unlabelled)
    x_l = views.weak_view(batch.labelled.images, batch.labelled.affine)
    for network in (twins.first, twins.second):
        assert [torch.equal(seen.images, x) for seen, x in zip(network.seen, (x_l, weak), strict=True)] == [True] * 2
    y = views.place_masks(batch.labelled.masks, batch.labelled.affine)
    rounded = [[(each.detach() > 0).float() for each in of_network] for of_network in answers]
    crossed = [dice_ce(answers[k][i], rounded[1 - k][i]) for k in (0, 1) for i in (0, 1)]
    torch.testing.assert_close(losses["loss_unlabelled"], sum(crossed))
    torch.testing.assert_close(losses["loss_labelled"], dice_ce(answers[0][0], y) + dice_ce(answers[1][0], y))
    torch.testing.assert_close(losses["loss"], losses["loss_labelled"] + 0.4 * losses["loss_unlabelled"])
    for i in (0, 1):
        (gradient,) = torch.autograd.grad(losses["loss_unlabelled"], answers[0][i], retain_graph=True)
        (alone,) = torch.autograd.grad(crossed[i], answers[0][i], retain_graph=True)
        torch.testing.assert_close(gradient, alone, msg="a label has no gradient")


def test_twins_start_differently_the_first_as_any_network_of_this_seed(pairs):
    torch.manual_seed(3)
    twins = Twins("compact")
    torch.manual_seed(3)
    alone = build_network("compact").state_dict()
    assert all(value.equal(alone[name]) for name, value in twins.first.state_dict().items())
    assert not twins.second.head[0].weight.equal(twins.first.head[0].weight)


def test_cutmix_pastes_the_partner_into_image_and_target_and_leaves_the_text(pairs):
    batch, config = batch_of(pairs, "cutmix")
    unlabelled, student = batch.unlabelled, Says(maps(1))
    loss = baselines.cutmix(student, Says(maps(2)), batch, config)
    _, strong = both_views(unlabelled)
    partner, (box,) = unlabelled.proposal["partner"], unlabelled.proposal["boxes"]
    assert torch.equal(student.seen[0].images, mix(strong, partner, box))
    assert (partner != torch.arange(4)).any()
    assert torch.equal(student.seen[0].input_ids, unlabelled.input_ids)
    torch.testing.assert_close(loss, dice_ce(maps(1), mix((maps(2) > 0).float(), partner, box)))


def test_of_a_mixed_image_the_pixels_of_a_donor_whose_infection_is_not_found_teach_nothing(pairs):
    batch, config = batch_of(pairs, "cutmix", pseudo_labels="reported")
    batch = replace(batch, unlabelled=replace(batch.unlabelled, regions=torch.ones_like(batch.unlabelled.regions)))
    found = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 32, 32)
    loss = baselines.cutmix(Says(maps(1)), Says(found * 2 * SURE - SURE), batch, config)
    partner, (box,) = batch.unlabelled.proposal["partner"], batch.unlabelled.proposal["boxes"]
    teaches = mix(found, partner, box)
    inside = views.place_masks(batch.unlabelled.regions, batch.unlabelled.affine)  # a view may show what is no picture
    expected = dice_ce(maps(1), mix(found * inside, partner, box), teaches)
    assert 0 < teaches.mean() < 1
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("view", ["same", "mirrored"])
def test_flip_sync_mirrors_image_target_and_words_whatever_the_setting_says(pairs, view):
    batch, config = batch_of(pairs, "flip_sync", teacher_view=view)
    student, teacher = Says(maps(1)), Says(maps(2))
    loss = baselines.flip_sync(student, teacher, batch, config)
    weak, strong = both_views(batch.unlabelled)
    assert torch.equal(student.seen[0].images, strong) and torch.equal(teacher.seen[0].images, weak.flip(3))
    torch.testing.assert_close(loss, dice_ce(maps(1), (maps(2) > 0).float().flip(3)))
    own, read = (build_texts().decode(each.seen[0].input_ids) for each in (student, teacher))
    assert own == build_texts().decode(batch.unlabelled.input_ids)
    swap = {"left": "right", "right": "left"}
    for before, after in zip(own, read, strict=True):
        assert after == Report.parse(before).flip().render()
        words = re.findall(r"\w+", before)
        assert sorted(re.findall(r"\w+", after)) == sorted(swap.get(word, word) for word in words)
    assert own != read


@pytest.mark.parametrize("method", ["mean_teacher", *ASKS_ITSELF, "cutmix", "resmatch"])
def test_where_the_settings_say_so_who_labels_sees_the_mirror_image_and_the_label_is_mirrored_back(pairs, method):
    batch, config = batch_of(pairs, method, teacher_view="mirrored", confidence=0.6)
    same = replace(config, teacher_view="same")
    asks_itself = method in ASKS_ITSELF
    p, answers = maps(9, scale=8), [maps(i) for i in range(1, 4)]

    def loss(says, config):
        student = Says(*([says] if asks_itself else []), *answers)
        teacher = NotAsked() if asks_itself else Says(says)
        value = unlabelled_loss(method, student, teacher, batch, config)
        return value, (student if asks_itself else teacher).seen[0], student.seen[int(asks_itself) :]

    (value, labels, learns), (expected, _, learnt) = loss(p.flip(3), config), loss(p, same)
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    assert torch.equal(labels.images, both_views(batch.unlabelled)[0].flip(3))
    assert torch.equal(labels.input_ids, batch.unlabelled.mirrored_ids)
    for one, other in zip(learns, learnt, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.input_ids, other.input_ids)


def test_resmatch_changes_image_and_words_each_for_itself(pairs, monkeypatch):
    """The words by its own probability, whatever the setting says."""
    for p in (0.0, 1.0):
        monkeypatch.setattr(resmatch, "TEXT_P", p)
        batch, config = batch_of(pairs, "resmatch", posaug_p=1 - p, posaug_mode="mask")
        student = Says(maps(1))
        resmatch.resmatch(student, Says(maps(2)), batch, config)
        assert torch.equal(student.seen[0].images, both_views(batch.unlabelled)[1])
        own, read = (build_texts().decode(ids) for ids in (batch.unlabelled.input_ids, student.seen[0].input_ids))
        hidden = [re.sub(r"(upper |middle |lower |all )+(left|right) lung", "[UNK_POS]", text) for text in own]
        assert read == (hidden if p else own) and hidden != own


def test_resmatch_weighs_each_sample_by_how_sure_its_map_is_of_the_lesion(pairs):
    """By hand: sure of half the image, unsure of one row, sure that there is none, and a toss of a coin."""
    batch, config = batch_of(pairs, "resmatch")
    p = torch.full((4, 1, 32, 32), 0.3)
    p[0, 0, :16], p[1, 0, 5], p[2], p[3] = 0.95, 0.6, 0.1, 0.5
    quality = [2 * 0.95 - 1, 2 * 0.6 - 1, 1 - 2 * 0.1, 0.0]
    torch.testing.assert_close(resmatch.quality(p), torch.tensor(quality))
    loss = resmatch.resmatch(Says(maps(1)), Says(p.logit()), batch, config)
    each = [q * dice_ce(maps(1)[[i]], (p[[i]] >= 0.5).float()) for i, q in enumerate(quality)]
    torch.testing.assert_close(loss, sum(each) / 4)


def test_lvit_learns_the_teachers_map_on_the_weak_view_and_the_mask_whose_text_is_most_similar(pairs):
    batch, config = batch_of(pairs, "lvit")
    student = Says(maps(1))
    loss = lvit.lvit(student, Says(maps(2)), batch, config)
    weak, _ = both_views(batch.unlabelled)
    assert torch.equal(student.seen[0].images, weak)
    assert torch.equal(student.seen[0].input_ids, batch.unlabelled.input_ids)
    masks = views.place_masks(batch.labelled.masks, batch.labelled.affine)
    of_language = lvit.lv_loss(maps(1).sigmoid(), batch.unlabelled.codes, masks, batch.labelled.codes)
    assert of_language > 0.1
    torch.testing.assert_close(loss, dice_ce(maps(1), (maps(2) > 0).float()) + 0.1 * of_language)


def test_the_contrastive_label_is_lent_by_the_most_similar_text_and_compared_by_its_cosine():
    """By hand: two zones, none, and another one against one zone of the two, three with both, and none."""
    similarity = lvit.text_similarity(torch.tensor([3, 0, 8]), torch.tensor([1, 7, 0]))
    expected = torch.tensor([[1 / 2**0.5, 2 / 6**0.5, 0], [0, 0, 1], [0, 0, 0]])
    torch.testing.assert_close(similarity, expected)
    p = torch.tensor([[0.6, 0.8], [0.1, 0.2], [0.5, 0.5]]).view(3, 1, 1, 2)
    masks = torch.tensor([[1.0, 1], [1, 0], [0, 0]]).view(3, 1, 1, 2)
    loss = lvit.lv_loss(p, torch.tensor([3, 0, 8]), masks, torch.tensor([1, 7, 0]))
    # The first borrows the second mask, the second one that is empty, and for the third no text is alike.
    torch.testing.assert_close(loss, torch.tensor(((1 - 0.6) + 1) / 2))


def test_bcp_mixes_labelled_and_unlabelled_images_both_ways_and_halves_what_pseudo_labels_weigh(pairs):
    batch, config = batch_of(pairs, "bcp")
    labelled, unlabelled = batch.labelled, batch.unlabelled
    says = torch.cat([maps(1), maps(3)])
    student = Says(says)
    loss = bcp.bcp(student, Says(maps(2)), batch, config)
    weak, _ = both_views(unlabelled)
    x = views.weak_view(labelled.images, labelled.affine)
    y, pseudo = views.place_masks(labelled.masks, labelled.affine), (maps(2) > 0).float()
    inside = torch.stack([pasted(box) for box in unlabelled.proposal["boxes"][0].tolist()])[:, None]
    assert (inside.sum((1, 2, 3)) == 21**2).all(), "two thirds of 32 px"
    mixed = torch.cat([torch.where(inside, weak, x), torch.where(inside, x, weak)])
    assert torch.equal(student.seen[0].images, mixed)
    assert torch.equal(student.seen[0].input_ids, torch.cat([labelled.input_ids, unlabelled.input_ids]))
    inwards, outwards = (
        dice_ce(logits, y, of_masks.float()) + 0.5 * dice_ce(logits, pseudo, (~of_masks).float())
        for logits, of_masks in ((maps(1), ~inside), (maps(3), inside))
    )
    torch.testing.assert_close(loss, inwards + outwards)


def test_bcp_leaves_out_what_is_pasted_of_an_infection_that_was_not_found(pairs):
    batch, config = batch_of(pairs, "bcp", pseudo_labels="reported")
    nowhere, logits = torch.full((4, 1, 32, 32), -SURE), torch.cat([maps(1), maps(3)]).requires_grad_()
    bcp.bcp(Says(logits), Says(nowhere), batch, config).backward()
    inside = torch.stack([pasted(box) for box in batch.unlabelled.proposal["boxes"][0].tolist()])[:, None]
    of_masks = torch.cat([~inside, inside])
    assert not logits.grad[~of_masks].any() and logits.grad[of_masks].all()


@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_ad_mt_learns_what_teachers_agree_on_and_where_they_do_not_what_is_surer(pairs, turn):
    batch, config = batch_of(pairs, "ad_mt", confidence=0.8)
    unlabelled, teacher, student = batch.unlabelled, teachers(maps(2), maps(3), turn=turn), Says(maps(1))
    loss = ad_mt.ad_mt(student, teacher, batch, config)
    weak, strong = both_views(unlabelled)
    for one in teacher.both:
        assert torch.equal(one.seen[0].images, weak) and torch.equal(one.seen[0].input_ids, unlabelled.input_ids)
    p, own = [maps(2).sigmoid(), maps(3).sigmoid()], maps(1).sigmoid()
    weights = [(q * q.log() + (1 - q) * (1 - q).log()).exp() for q in p]
    mean = (weights[0] * p[0] + weights[1] * p[1]) / (weights[0] + weights[1])
    conflict = (maps(2) > 0) != (maps(3) > 0)
    if turn:
        partner, (box,) = unlabelled.proposal["partner"], unlabelled.proposal["boxes"]
        strong, mean, conflict = (mix(each, partner, box) for each in (strong, mean, conflict))
    assert torch.equal(student.seen[0].images, strong)
    assert torch.equal(student.seen[0].input_ids, unlabelled.input_ids)
    surer = (own - 0.5).abs() > (mean - 0.5).abs()
    assert (conflict & surer).any() and (conflict & ~surer).any()
    torch.testing.assert_close(loss, confident_dice_ce(maps(1), torch.where(conflict & surer, own, mean), 0.8))


def test_the_surer_of_two_teachers_decides():
    p = torch.tensor([[0.95, 0.4], [0.4, 0.95]])[:, None, None, None]
    assert (ad_mt.ensemble(p) > 0.5).all()
    same = torch.tensor([0.2, 0.2]).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(ad_mt.ensemble(same), same[0])


def test_teachers_follow_by_turns_of_up_to_fifty_steps_and_the_evaluated_one_at_every_step():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    teacher = ad_mt.AlternateTeachers(student)
    assert not teacher.network.training and not any(p.requires_grad for p in teacher.network.parameters())
    moved = []
    for step in range(120):
        student[0].weight.data.fill_(step + 2.0)
        before = [network[0].weight.item() for network in teacher.network.children()]
        turn = teacher.turn.item()
        teacher.update(student, 0.75)
        after = [network[0].weight.item() for network in teacher.network.children()]
        expected = [0.75 * b + 0.25 * (step + 2) if k in (0, 1 + turn) else b for k, b in enumerate(before)]
        assert after == pytest.approx(expected)
        moved.append(turn)
    switches = [i for i in range(1, 120) if moved[i] != moved[i - 1]]
    lengths = [b - a for a, b in zip([0, *switches], switches, strict=False)]
    assert moved[0] == 0 and len(set(lengths)) > 1 and max(lengths) <= 50


def test_a_run_of_ad_mt_goes_on_exactly_with_both_teachers_and_their_turns(pairs, monkeypatch, tmp_path):
    monkeypatch.setattr(ad_mt, "PERIOD", 3)
    config = replace(CONFIG, method="ad_mt", steps=12, burn_in=0.0)

    def new_run(seed):
        return prepare(replace(config, seed=seed), "cpu", pairs)

    def run_to(run, step):
        while run.state.step < step:
            training_step(run.state, whole.batches(run.state.step), config, run.accelerator)

    whole, resumed = new_run(0), new_run(1)
    run_to(whole, 5)
    whole.state.save(tmp_path / "checkpoint")
    run_to(whole, 12)
    resumed.state.restore(tmp_path / "checkpoint")
    assert resumed.state.step == 5
    run_to(resumed, 12)
    averages = whole.state.teacher.network
    assert averages.step.item() == 12 and 1 < averages.turns[:12].sum() < 11
    for name, network in whole.state.networks.items():
        theirs = resumed.state.networks[name].state_dict()
        assert all(value.equal(theirs[key]) for key, value in network.state_dict().items())
    first, second, third = (network.head[0].weight for network in averages.children())
    assert not (first.equal(second) or first.equal(third) or second.equal(third))


@pytest.mark.parametrize("method", BASELINES)
def test_the_cut_to_reported_zones_is_every_methods_or_no_ones(pairs, method):
    """All networks see lesion everywhere. Nobody minds, unless the reports are asked, which do not name all zones."""
    batch, config = batch_of(pairs, method)
    losses = {}
    for setting in ("teacher", "reported"):
        everywhere = [Says(*[torch.full((8 if method == "bcp" else 4, 1, 32, 32), SURE)] * 4) for _ in range(2)]
        everywhere.append(Says(*[torch.full((4, 1, 32, 32), SURE)] * 2))
        student = SimpleNamespace(first=everywhere[0], second=everywhere[1]) if method == "cps" else everywhere[0]
        teacher = teachers(*everywhere[2].logits[:2]) if method == "ad_mt" else everywhere[2]
        loss = unlabelled_loss(method, student, teacher, batch, replace(config, pseudo_labels=setting))
        losses[setting] = loss.item()
    assert losses["reported"] > losses["teacher"] + 0.2
    if method not in ("bcp", "lvit"):  # which also hold it against true masks, that are not everywhere
        assert losses["teacher"] < 0.01


@pytest.mark.parametrize("method", ["mean_teacher", *ASKS_ITSELF, "cps", "ad_mt", *HARD])
def test_an_infection_that_is_reported_and_not_found_teaches_nothing(pairs, method):
    batch, config = batch_of(pairs, method, pseudo_labels="reported")
    assert batch.unlabelled.codes.all() and batch.labelled.codes.all()
    nowhere, sees = [torch.full((4, 1, 32, 32), -SURE)] * 4, [maps(i) for i in range(4)]
    student = Says(*(nowhere[:1] + sees if method in ASKS_ITSELF else sees))
    if method == "cps":
        student = SimpleNamespace(first=Says(*nowhere), second=Says(*nowhere))
    teacher = teachers(*nowhere[:2]) if method == "ad_mt" else Says(*nowhere)
    assert unlabelled_loss(method, student, teacher, batch, config) == 0


@pytest.mark.parametrize("method", BASELINES)
def test_every_part_learns_but_those_of_itcl_and_the_teacher_from_nothing(pairs, method):
    batch, config = batch_of(pairs, method)
    torch.manual_seed(0)
    student = METHODS[method].build("compact")
    teacher = METHODS[method].teacher(student)
    losses = METHODS[method].step(student, teacher, batch, 0.4, replace(config, confidence=0.5))
    torch.testing.assert_close(losses["loss"], losses["loss_labelled"] + 0.4 * losses["loss_unlabelled"])
    losses["loss_unlabelled"].backward()
    without = {name for name, parameter in student.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in student.named_parameters() if "_projection" in name}
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


@pytest.mark.parametrize("method", BASELINES)
def test_burn_in_is_supervised_training(pairs, method):
    batch, config = batch_of(pairs, method)
    torch.manual_seed(0)
    student = METHODS[method].build("compact")
    networks: list[nn.Module] = [student.first, student.second] if method == "cps" else [student]
    alone = Batch(batch.labelled, None)
    losses = METHODS[method].step(student, NotAsked(), alone, 0.0, config)
    expected = sum(METHODS["supervised"].step(each, None, alone, 0.0, config)["loss"] for each in networks)
    assert set(losses) == {"loss", "loss_labelled"} and losses["loss"].equal(expected)


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_trains_from_the_command_line_and_leaves_a_network_like_any_other(train, tmp_path, method):
    outcome = train(output=tmp_path, method=method, steps=2, burn_in=0, eval_every=0)
    assert outcome.status == 0, outcome.errors
    results = json.loads((tmp_path / "results.json").read_text())
    alone = sum(parameter.numel() for parameter in build_network("compact").parameters())
    assert (results["method"], results["unlabelled"], results["parameters"]) == (method, 18, alone)
    for name in ("student", "teacher"):
        network, _ = from_pretrained(tmp_path / name)
        assert sum(parameter.numel() for parameter in network.parameters()) == alone
    (line,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if "loss" in line)
    assert line["loss_unlabelled"] > 0


def test_the_help_of_train_lists_every_method_and_says_what_baselines_get(command_line):
    text = " ".join(command_line("train", "--help").text.split())
    about = re.search(r"--method \{(.*?)\}", text)[1].replace(" ", "")
    assert about.split(",") == list(METHODS)
    assert "ours: pseudo-labels as the teacher gives them, or only inside the zones that the report names" in text


def test_a_network_is_judged_with_the_texts_it_was_trained_with(train, semimedref, tmp_path):
    """Reports that it did not read in training it does not read later; if told to, it is judged otherwise."""
    assert train(output=tmp_path, report_text="none", eval_every=0).status == 0
    student = tmp_path / "student"
    network, about = from_pretrained(student)
    assert about["report_text"] == "none"

    def judged():
        return semimedref("evaluate", checkpoint=student).text

    assert judged().startswith("  ".join(f"{name} {100 * value:.1f} %" for name, value in about["valid"].items()))
    weights = network.state_dict()
    for layer in ("fuse16.attention.out_proj.weight", "fuse8.attention.out_proj.weight"):
        weights[layer] *= 1000  # four steps leave a network that hardly minds what it reads
    save_tensors(student / "model.safetensors", weights)
    unread = judged()
    (student / "config.json").write_text(json.dumps({**about, "report_text": "whole"}))
    assert judged() != unread
