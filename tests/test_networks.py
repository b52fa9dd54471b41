"""The compact network, how it is saved and found again, and the tokenizer of the grammar."""

import itertools
import json
import re

import pytest
import torch

from semimedref_core.config import FIELDS, STRIDE, choices_of
from semimedref_core.networks import NETWORKS, build_network, build_pretrained, build_texts
from semimedref_core.networks.compact import Compact
from semimedref_core.networks.text import grammar_tokenizer
from semimedref_core.networks.vocabulary import tokens_needed
from semimedref_core.patchmix import mixed_reports
from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN, apply_hits
from semimedref_core.reports import STYLES, Report
from semimedref_core.runtime.checkpoints import CheckpointError, from_pretrained, save_pretrained


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("compact").eval()


@pytest.mark.parametrize("size", [(96, 96), (112, 112), (64, 128)])
def test_it_gives_one_logit_a_pixel_and_two_embeddings_at_any_size_divisible_by_16(network, size):
    ids = build_texts()(["No pulmonary infection, zero infected areas."] * 2)
    out = network(torch.randn(2, 1, *size), ids)
    assert out.logits.shape == (2, 1, *size)
    assert out.image_embedding.shape == out.text_embedding.shape == (2, 64)


def test_it_has_about_a_million_parameters(network):
    assert 0.7e6 < sum(parameter.numel() for parameter in network.parameters()) < 1.3e6


def test_samples_that_are_not_decoded_have_the_same_embeddings_and_those_that_are_the_same_logits(network):
    images, ids = torch.randn(3, 1, 32, 32), build_texts()([Report.of([0, 0, 1, 0, 0, 0]).render()] * 3)
    whole, some = network(images, ids), network(images, ids, decode=2)
    torch.testing.assert_close(whole.image_embedding, some.image_embedding)
    torch.testing.assert_close(whole.text_embedding, some.text_embedding)
    torch.testing.assert_close(whole.logits[:2], some.logits)


def test_padding_changes_nothing(network):
    texts = build_texts()
    ids = texts([Report.of([0, 0, 1, 0, 0, 0]).render()])
    longer = torch.nn.functional.pad(ids, (0, 10))
    images = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(network(images, ids).logits, network(images, longer).logits, atol=1e-5, rtol=1e-5)


def test_the_report_changes_the_prediction(network):
    texts, images = build_texts(), torch.randn(1, 1, 32, 32)
    left = Report.of([0, 0, 1, 0, 0, 0])
    a, b = (network(images, texts([report.render()])).logits for report in (left, left.flip()))
    assert (a - b).abs().max() > 1e-4


def test_a_side_that_is_no_multiple_of_16_is_refused(network):
    with pytest.raises(ValueError, match="multiples of 16.*100"):
        network(torch.randn(1, 1, 100, 96), build_texts()(["No pulmonary infection, zero infected areas."]))


def test_every_text_that_mixing_and_posaug_can_make_fits_and_has_no_unknown_word():
    """Ledger 7, our side."""
    texts, unknown = build_texts(), grammar_tokenizer().unk_token_id
    for code, style in itertools.product(range(64), STYLES):
        report = Report.of([code >> k & 1 for k in range(6)], style=style)
        for mixed in mixed_reports(report):
            for left, right in itertools.product([None, MASK_TOKEN, FUZZY_PHRASE], repeat=2):
                hits = {side: words for side, words in (("left", left), ("right", right)) if words}
                ids = texts([apply_hits(mixed, hits)])
                assert not (ids == unknown).any()


def test_tokens_decode_to_the_text_they_came_from():
    texts = build_texts()
    text = f"bilateral pulmonary infection, two infected areas, {MASK_TOKEN} and lower right lung."
    assert texts.decode(texts([text])) == [text]


def test_a_merge_that_only_doubles_the_first_phrase_passes_24_tokens_and_cutting_it_loses_the_right_lung():
    """Ledger 7, the release's side: "A and B" in place of the first phrase A, three zones spelt out."""
    own = Report.of([1] * 6, style="release")
    merged = own.render((own.phrases[0], *own.phrases))
    texts = build_texts()
    ids = texts.tokenizer(merged)["input_ids"]
    assert len(ids) > 24 and "right lung" in merged and "right lung" not in texts.tokenizer.decode(ids[:24])
    with pytest.raises(ValueError, match="this network reads at most 24; shorten it"):
        texts([merged])
    assert max(len(texts.tokenizer(mixed.render())["input_ids"]) for mixed in mixed_reports(own)) <= 24


@pytest.mark.parametrize("style", STYLES)
def test_without_the_count_two_texts_that_differ_in_it_alone_read_the_same(style):
    """Ledger 10: nothing of the number is left, not even whether it is one."""
    texts = build_texts("no_count")
    for code in range(1, 64):
        zones = tuple(code >> k & 1 for k in range(6))
        reports = [Report(zones, lesions, "unilateral", style) for lesions in (1, 2, 7)]
        ids = texts([report.render() for report in reports])
        assert (ids == ids[0]).all()
        assert texts.decode(ids[:1]) == [f"unilateral pulmonary infection, {' and '.join(reports[0].phrases)}."]
    assert texts.decode(texts([Report.of([0] * 6).render()])) == ["no pulmonary infection."]


def test_without_text_every_report_reads_as_one_of_all_zones():
    everywhere = "bilateral pulmonary infection, two infected areas, all left lung and all right lung."
    several = [Report.of([code >> k & 1 for k in range(6)]).render() for code in range(64)]
    assert set(build_texts("none").decode(build_texts("none")(several))) == {everywhere}


def test_what_happens_to_the_features_happens_between_encoder_and_decoder():
    """At each stride; embeddings, which are the encoders' own, stay. All features gone, the image no longer matters."""
    network, images = build_network("compact").eval(), torch.randn(2, 1, 32, 48)
    ids = build_texts()([Report.of([1, 0, 0, 0, 0, 0]).render()] * 2)
    strides = []
    plain, same = network(images, ids), network(images, ids, perturb=lambda x: strides.append(x.shape) or x)
    gone = network(images, ids, perturb=torch.zeros_like)
    assert [tuple(shape) for shape in strides] == [(2, 24, 8, 12), (2, 48, 4, 6), (2, 96, 2, 3)]
    assert torch.equal(plain.logits, same.logits)
    assert torch.equal(plain.image_embedding, gone.image_embedding)
    assert torch.equal(plain.text_embedding, gone.text_embedding)
    assert not torch.allclose(plain.logits[0], plain.logits[1]) and torch.equal(gone.logits[0], gone.logits[1])


def test_a_text_that_is_too_long_is_refused_not_cut():
    with pytest.raises(ValueError, match="this network reads at most 24; shorten it"):
        build_texts()(["upper " * 30])


@pytest.mark.parametrize("network", [torch.nn.Linear(1, 1), Compact(30)], ids=lambda network: type(network).__name__)
def test_a_network_of_another_maker_is_not_saved(network, tmp_path):
    with pytest.raises(CheckpointError, match=f"{type(network).__name__} is not a network of build_network"):
        save_pretrained(tmp_path / "out", network)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_arguments_is_read_as_before(tmp_path):
    network = build_network("compact")
    save_pretrained(str(tmp_path), network, image_size=96)
    about = json.loads((tmp_path / "config.json").read_text())
    assert about == {"network": "compact", "image_size": 96}
    again, _ = from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())


def test_arguments_that_will_not_do_are_told_with_the_file(tmp_path):
    save_pretrained(tmp_path, build_network("compact", widths=[8, 16, 32]))
    assert from_pretrained(tmp_path)[0].stage16[0].body[0].out_channels == 32
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("widths", "wide"))
    with pytest.raises(CheckpointError, match="config.json: not a network's.*wide"):
        from_pretrained(tmp_path)


def test_the_compact_network_takes_no_pretrained_encoder():
    with pytest.raises(
        ValueError, match="'compact' takes no image_encoder or text_encoder; choose one of guide_decoder, mmi_unet"
    ):
        build_pretrained("compact", text_encoder="anywhere")


def test_the_length_that_is_needed_is_that_of_the_longest_text_that_training_may_make():
    sides = ((), ("left",), ("right",), ("left", "right"))
    hits = [dict.fromkeys(hit, FUZZY_PHRASE) for hit in sides]
    for report_text, style in itertools.product(("whole", "no_count"), STYLES):
        texts = build_texts(report_text)
        for code in range(64):
            report = Report.of([code >> k & 1 for k in range(6)], style=style)
            forms = [turned for mixed in mixed_reports(report) for turned in (mixed, mixed.flip())]
            made = texts([apply_hits(form, hit) for form in forms for hit in hits])
            assert tokens_needed(texts, [report]) == [int((made != 0).sum(1).max())]


@pytest.mark.parametrize("given, told", [
    ({"text_length": 17}, r"\d of 12 texts have more than text_length = 17 tokens, .* the longest, of \S+, needs"),
    ({"text_length": 12, "report_text": "none"}, "the sentence of all zones, which report_text none reads in place"),
], ids=["whole", "none"])  # fmt: skip
def test_a_text_that_does_not_fit_is_refused_before_the_first_step(train, tmp_path, given, told):
    """Not when it is met, which may be after the last step. The length that is named will do."""
    about = {"method": "supervised", "output": tmp_path / "run"}
    outcome = train(**about, **given)
    assert outcome.status == 1 and re.search(told, outcome.errors), outcome.errors
    assert not (tmp_path / "run/metrics.jsonl").exists() and "infection" not in outcome.errors
    length = re.search(r"set --text-length (\d+)", outcome.errors)[1]
    assert train(**about, **{**given, "text_length": length}).status == 0


def test_a_network_that_never_reads_a_text_does_not_ask_to_shorten_it():
    with pytest.raises(ValueError, match="the sentence of all zones, .* has 17 tokens, .* reads at most 12; train a"):
        build_texts("none", length=12)(["any"])


def test_every_network_has_its_stride_and_is_a_choice_of_the_setting():
    """A network is added in two places: its class, and its stride, which the setting's choices are made of."""
    assert list(NETWORKS) == list(STRIDE) == list(choices_of(FIELDS["network"]))
