"""ISPG: zones predicted from the image alone, read as one more text token, and learnt from what reports name."""

import json
import math
from dataclasses import fields

import pytest
import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import load_training
from semimedref_core.data.phantom import phantom
from semimedref_core.errors import ConfigError
from semimedref_core.losses import FOCUS, NUMBER_WEIGHT, ZONE_WEIGHT, zone_loss
from semimedref_core.methods import METHODS
from semimedref_core.missing_positions import MODES, text_at_hand
from semimedref_core.networks import build_network, build_texts
from semimedref_core.patchmix import PATCH_MODES, mixed_codes, t_patchmix
from semimedref_core.reports import Report
from semimedref_core.runtime.checkpoints import from_pretrained, load_texts, save_pretrained
from semimedref_core.runtime.devices import set_forward
from semimedref_core.teacher import Teacher
from semimedref_core.tools.inspection import HostReads, parameter_table
from semimedref_core.tools.positions import counts_with, predicted_zones
from semimedref_core.views import weak_view

CONFIG = Config(image_size=32, batch_size=4, label_ratio=0.05, patch_p=1.0, gate=0.0, ispg="on")
OFF = Config(**{**CONFIG.to_dict(), "ispg": "off"})


def built(ispg=True):
    torch.manual_seed(0)
    return build_network("compact", **({"ispg": True} if ispg else {})).eval()


@pytest.fixture(scope="module")
def pairs():
    return load_training(CONFIG.dataset, CONFIG.label_ratio, CONFIG.image_size)


@pytest.fixture(scope="module")
def seen():
    """Two images and their texts as a network reads them."""
    reports = [Report.of([0, 0, 1, 0, 0, 0]), Report.of([1, 0, 0, 0, 0, 1])]
    return torch.randn(2, 1, 32, 48), build_texts()([report.render() for report in reports])


def set_gate(network, value):
    with torch.no_grad():
        network.guide.gate.fill_(value)


def test_a_gate_of_0_changes_nothing(seen):
    """Bit for bit the network without ISPG: it starts with the same weights."""
    plain, guided = built(ispg=False), built()
    set_gate(guided, 0.0)
    torch.testing.assert_close(guided(*seen).logits, plain(*seen).logits, rtol=1e-5, atol=1e-6)
    for of_text in ("image_embedding", "text_embedding"):
        assert torch.equal(getattr(guided(*seen), of_text), getattr(plain(*seen), of_text))
    assert plain(*seen).zones is None and guided(*seen).zones.shape == (2, 6)


def test_eq_19_the_token_is_the_gated_linear_map_of_the_zone_probabilities():
    guide = built().guide
    words, padding, zones = torch.randn(2, 5, 96), torch.zeros(2, 5, dtype=torch.bool), torch.randn(2, 6)
    more, hidden = guide.append(words, padding, zones)
    probabilities = 1 / (1 + (-zones).exp())
    token = math.tanh(0.1) * (probabilities @ guide.token.weight.T + guide.token.bias)
    torch.testing.assert_close(more[:, 5], token)
    assert torch.equal(more[:, :5], words) and not hidden.any()
    with guide.hidden():
        assert guide.append(words, padding, zones)[1][:, 5].all(), "hidden as padding is"
    assert guide.gate.item() == pytest.approx(0.1)


def test_an_open_gate_lets_the_predicted_zones_be_read_and_they_come_from_the_image_alone(seen):
    images, ids = seen
    network = built()
    set_gate(network, 1.0)
    before = network(images, ids)
    assert torch.equal(before.zones, network(images, ids.flip(0)).zones), "another text, the same zones"
    with torch.no_grad():
        network.guide.encoder[-1].bias.add_(3)
    after = network(images, ids)
    assert (after.logits - before.logits).abs().max() > 1e-4
    assert torch.equal(after.text_embedding, before.text_embedding)


def test_the_segmentation_loss_trains_the_token_and_not_the_zone_encoder(seen):
    network = built()
    network(*seen).logits.square().mean().backward()
    assert all(parameter.grad is None for parameter in network.guide.encoder.parameters())
    assert network.guide.gate.grad.abs() > 0 and network.guide.token.weight.grad.any()


def test_the_encoder_is_small_and_each_weight_belongs_to_a_part():
    plain, guided = (parameter_table(built(ispg)) for ispg in (False, True))
    assert guided["parameters"].sum() == sum(parameter.numel() for parameter in built().parameters())
    assert guided["parameters"].sum() - plain["parameters"].sum() < 0.05 * plain["parameters"].sum()


def test_the_loss_of_two_samples_by_hand():
    """One names the first zone, one names none; probabilities 0.8 and 0.2."""
    likely, unlikely = math.log(4), -math.log(4)
    zones = torch.full((2, 6), unlikely)
    zones[0, 0] = likely
    easy = -(0.2**FOCUS) * math.log(0.8)
    of_first, of_second = (-math.log(0.8) + 5 * easy) / 6, easy
    number = (((0.8 + 5 * 0.2 - 1) / 6) ** 2 + (6 * 0.2 / 6) ** 2) / 2
    expected = (of_first + of_second) / 2 + NUMBER_WEIGHT * number
    assert zone_loss(zones, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-5)


def test_a_zone_that_is_missed_costs_more_than_one_too_many_that_is_hardly_believed():
    missed, believed = torch.full((1, 6), -2.0), torch.full((1, 6), -2.0)
    assert zone_loss(missed, torch.tensor([63])) > 20 * zone_loss(believed, torch.tensor([0]))


def batches(pairs, config):
    return Batches(pairs.labelled, pairs.unlabelled, config, build_texts(), THIRDS)


def test_half_of_the_students_reports_lose_their_positions_and_the_teacher_reads_them_whole(pairs):
    texts, bare = build_texts(), {"labelled": [], "mixed": []}
    on, off = batches(pairs, CONFIG), batches(pairs, OFF)
    for step in range(40):
        with_ispg, without = on(step), off(step)
        for name in (field.name for field in fields(with_ispg.unlabelled)):
            if name != "text_choices":
                assert _same(getattr(with_ispg.unlabelled, name), getattr(without.unlabelled, name)), name
        told, whole = with_ispg.labelled.input_ids, texts.decode(without.labelled.input_ids)
        for text, was in zip(texts.decode(told), whole, strict=True):
            assert text in (was, text_at_hand(Report.parse(was), "removed"))
            bare["labelled"].append(text != was)
        for one in with_ispg.unlabelled.text_choices:
            lungs = ["lung" in text or "[UNK_POS]" in text for text in texts.decode(one[1:])]
            assert len(set(lungs)) == 1, "one draw serves a report and its mixtures"
            bare["mixed"].append(not lungs[0])
    assert [sum(hits) / len(hits) for hits in bare.values()] == pytest.approx([0.5, 0.5], abs=0.12)


@pytest.mark.parametrize("mode", PATCH_MODES)
def test_the_zones_of_a_mixed_image_are_those_that_its_report_would_name(pairs, mode):
    unlabelled = batches(pairs, Config(**{**OFF.to_dict(), "patch_mode": mode, "posaug_p": 0.0}))(0).unlabelled
    p = torch.rand(4, 1, 32, 32)
    how = unlabelled.proposal, 16, mode, 0.3
    _, _, ids, accepted = t_patchmix(p, p, unlabelled.text_choices, *how)
    assert accepted.any()
    codes = mixed_codes(unlabelled.codes, accepted, p, *how)
    assert codes.tolist() == [Report.parse(text).code for text in build_texts().decode(ids)]


@pytest.mark.parametrize("w_u", [0.0, 0.5])
def test_the_loss_of_a_step_has_the_zones_of_all_that_the_student_saw(pairs, w_u):
    network, asked = built(), []
    network.register_forward_hook(lambda net, args, seen: asked.append(seen.zones))
    batch = batches(pairs, CONFIG)(0)
    losses = METHODS["semi_medref"].step(network, Teacher(built()), batch, w_u, CONFIG)
    (zones,) = asked
    assert len(zones) == (12 if w_u else 4)
    if not w_u:
        torch.testing.assert_close(losses["loss_zones"], zone_loss(zones, batch.labelled.codes))
    others = losses["loss_labelled"] + CONFIG.itcl_weight * losses["loss_itcl"]
    if w_u:
        others = others + w_u * losses["loss_mixed"]
        others = others + w_u * CONFIG.itcl_unlabelled_weight * losses["loss_itcl_unlabelled"]
    torch.testing.assert_close(losses["loss"], others + ZONE_WEIGHT * losses["loss_zones"])


@pytest.mark.parametrize("patch_mode", PATCH_MODES)
def test_a_step_trains_every_weight_and_never_waits_for_the_device(pairs, patch_mode):
    config = Config(**{**CONFIG.to_dict(), "patch_mode": patch_mode})
    student, teacher = built().train(), Teacher(built())
    batch = batches(pairs, config)(0)
    with HostReads() as host:
        METHODS["semi_medref"].step(student, teacher, batch, 0.5, config)["loss"].backward()
        teacher.update(student, 0.9)
    assert host.reads == []
    assert [name for name, parameter in student.named_parameters() if parameter.grad is None] == []


def test_the_zones_of_the_phantom_can_be_learnt_from_its_images():
    pairs = phantom("train", 32, 32)
    torch.manual_seed(0)
    guide = build_network("compact", ispg=True).guide
    images = weak_view(torch.from_numpy(pairs.images)[:, None], torch.eye(2, 3).expand(32, -1, -1))
    codes = torch.tensor([report.code for report in pairs.reports])
    optimizer, losses = torch.optim.AdamW(guide.parameters(), 3e-3), []
    for _ in range(40):
        losses.append(zone_loss(guide(images), codes))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_in_half_precision_the_predicted_zones_are_float32_like_all_that_a_loss_reads(seen):
    network = built()
    set_forward(network, torch.device("cpu"), "bf16")
    assert network(*seen).zones.dtype == network(*seen).logits.dtype == torch.float32


def test_a_checkpoint_with_ispg_comes_back_as_it_was(tmp_path, seen):
    network = built()
    save_pretrained(tmp_path, network, build_texts(), image_size=32)
    again, about = from_pretrained(tmp_path)
    assert about["arguments"] == {"ispg": True} and load_texts(tmp_path).length == 24
    assert torch.equal(again(*seen).logits, network(*seen).logits)
    assert torch.equal(again(*seen).zones, network(*seen).zones)


def test_the_token_speaks_in_whole_reports_and_in_soft_alone(tmp_path):
    """In all other modes another prediction of the zones changes nothing; ``hard`` reads it as a sentence."""
    pairs, texts, network = phantom("valid", 8, 32), build_texts(), built()
    set_gate(network, 2.0)
    with torch.no_grad():
        network.guide.encoder[-1].bias.fill_(-9)
        for parameter in network.fuse16.parameters():
            parameter.mul_(3)
    modes = [*MODES, "soft", "hard"]
    none = {mode: counts_with(network, pairs, texts, mode) for mode in modes}
    assert (predicted_zones(network, pairs, texts) < 0.5).all()
    assert (none["hard"] == none["removed"]).all(), "no zone, no phrase"
    with torch.no_grad():
        network.guide.encoder[-1].bias.fill_(9)
    every = {mode: counts_with(network, pairs, texts, mode) for mode in modes}
    assert {mode for mode in modes if (every[mode] != none[mode]).any()} == {"full", "soft", "hard"}


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ispg") / "run"
    outcome = train(output=folder, ispg="on")
    assert outcome.status == 0, outcome.errors
    return folder


def test_a_run_with_ispg_logs_its_loss_and_its_table_has_what_comes_back(trained, semimedref):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss_zones"] > 0 for line in lines if "loss" in line)
    outcome = semimedref("evaluate", checkpoint=trained / "teacher", reports="all")
    assert (outcome.status, outcome.errors) == (0, "")
    rows = [line.split()[0] for line in outcome.text.splitlines()]
    assert rows.count("soft") == rows.count("hard") == 2
    assert all(f"recovery, {mode}: " in outcome.text for mode in ("soft", "hard", "oracle"))


def test_a_run_with_ispg_that_was_stopped_goes_on_as_if_it_had_not(trained, train, tmp_path, monkeypatch):
    from semimedref_core import training

    done = training.training_step

    def stopped(state, *args):
        if state.step == 2:
            raise KeyboardInterrupt
        return done(state, *args)

    monkeypatch.setattr(training, "training_step", stopped)
    assert train(output=tmp_path, ispg="on").status == 130
    monkeypatch.undo()
    assert train(output=tmp_path, ispg="on", resume=True).status == 0
    for network in ("student", "teacher"):
        once, again = (from_pretrained(folder / network)[0].state_dict() for folder in (trained, tmp_path))
        assert all(torch.equal(value, again[name]) for name, value in once.items())


@pytest.mark.parametrize("settings", [{"network": "mmi_unet"}, {"network": "guide_decoder"}, {"method": "cps"}])
def test_a_network_or_method_without_ispg_is_told_by_name(settings):
    with pytest.raises(ConfigError, match=f"needs network compact.*{next(iter(settings.values()))}.*set ispg to off"):
        Config(ispg="on", image_size=64, **settings)


def _same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) if isinstance(a, dict) else torch.equal(a, b)
