"""The paper's two networks: shapes, what reads what, training, saving."""

import json
from dataclasses import replace

import pytest
import torch

from semimedref_core.config import Config
from semimedref_core.methods.registry import METHODS
from semimedref_core.networks import build_network, build_texts
from semimedref_core.networks.guide_decoder import CondensedWords, GuideLevel, line_codes
from semimedref_core.networks.mmi_unet import Fusion
from semimedref_core.networks.text import grammar_tokenizer
from semimedref_core.reports import Report
from semimedref_core.runtime.checkpoints import from_pretrained
from semimedref_core.tools.inspection import HostReads, gradient_norms, parameter_table

pytestmark = pytest.mark.usefixtures("one_thread")
PAPER = ("guide_decoder", "mmi_unet")
SMALL = {"model_type": "convnext", "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}
SMALL_SWIN = {"model_type": "swin", "embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]}
SMALL_V2 = {**SMALL, "model_type": "convnextv2"}
VOCABULARY = len(grammar_tokenizer())
TEXT = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}  # with dropout


@pytest.fixture(params=PAPER)
def name(request):
    return request.param


@pytest.fixture
def network(name):
    """With a small backbone and embeddings of 32, in eval mode."""
    torch.manual_seed(0)
    return build_network(name, image=SMALL, embedding=32).eval()


def reports(count=2, length=24):
    ids = build_texts()([Report.of([0, 0, 1, 0, 0, 0]).render()] * count)
    return torch.nn.functional.pad(ids, (0, length - 24))


# Shapes and gradients


@pytest.mark.parametrize("image", [SMALL, SMALL_V2, SMALL_SWIN], ids=lambda image: image["model_type"])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_every_weight_learns_at_any_size_divisible_by_32(name, image, size):
    torch.manual_seed(0)
    network = build_network(name, image=image, embedding=32)
    out = network(torch.randn(2, 1, *size), reports(), decode=2)
    assert out.logits.shape == (2, 1, *size)
    assert out.image_embedding.shape == out.text_embedding.shape == (2, 32)
    loss = out.logits.square().mean() + out.image_embedding.square().sum() + out.text_embedding.square().sum()
    loss.backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("image", [SMALL, SMALL_V2, SMALL_SWIN], ids=lambda image: image["model_type"])
def test_walked_stage_by_stage_the_backbone_gives_what_it_gives_as_a_whole(image):
    torch.manual_seed(0)
    encoder = build_network("guide_decoder", image=image).image_encoder.eval()
    x = picture = torch.randn(2, 1, 224, 224)  # at this size no window of a Swin is larger than its map
    for k in range(4):
        x = encoder.stage(k, x)
    whole = encoder.backbone(picture.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder.pool(x), whole.pooler_output)


@pytest.mark.parametrize("image", [SMALL, SMALL_SWIN], ids=lambda image: image["model_type"])
def test_in_half_precision_every_weight_learns_and_the_host_never_waits(name, image):
    """At 64 px. Below, torch's own bfloat16 convolution on a CPU leaves the gradient of taps that only ever touch
    padding undefined."""
    network = build_network(name, image=image, embedding=32)
    with HostReads() as host:
        with torch.autocast("cpu", torch.bfloat16):
            out = network(torch.randn(2, 1, 64, 64), reports())
        assert out.logits.dtype == torch.bfloat16
        sum(tensor.float().square().mean() for tensor in vars(out).values() if tensor is not None).backward()
    assert host.reads == [] and host.operations > 100
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_a_small_picture_leaves_no_trace_in_the_next_one():
    network = build_network("guide_decoder", image=SMALL_SWIN).eval()
    large, small = torch.randn(1, 1, 224, 224), torch.randn(1, 1, 32, 32)
    before = network(large, reports(1)).logits
    network(small, reports(1))
    assert torch.equal(network(large, reports(1)).logits, before)


def test_a_side_that_is_no_multiple_of_32_is_refused(network):
    with pytest.raises(ValueError, match="multiples of 32.*48"):
        network(torch.randn(1, 1, 64, 48), reports(1))
    with pytest.raises(ValueError, match="image_size must be a multiple of 32 for mmi_unet, got 48"):
        Config(network="mmi_unet", image_size=48)


def test_samples_that_are_not_decoded_have_the_same_embeddings_and_those_that_are_the_same_logits(network):
    images, ids = torch.randn(3, 1, 32, 32), reports(3)
    whole = network(images, ids)
    for n in (0, 2):
        some = network(images, ids, decode=n)
        assert some.logits.shape == (n, 1, 32, 32)
        torch.testing.assert_close(whole.image_embedding, some.image_embedding)
        torch.testing.assert_close(whole.text_embedding, some.text_embedding)
        torch.testing.assert_close(whole.logits[:n], some.logits)


# Words


def test_what_happens_to_the_features_happens_between_encoder_and_decoder(network):
    network = network.eval()
    images, ids, shapes = torch.randn(2, 1, 64, 64), build_texts()([Report.of([1] * 6).render()] * 2), []
    plain, same = network(images, ids), network(images, ids, perturb=lambda x: shapes.append(x.shape[2]) or x)
    gone = network(images, ids, perturb=torch.zeros_like)
    assert shapes == [16, 8, 4, 2] and torch.equal(plain.logits, same.logits)
    assert not torch.allclose(plain.logits, gone.logits)
    assert torch.equal(plain.image_embedding, gone.image_embedding)


def test_padding_changes_nothing_also_beyond_the_24_tokens_of_the_release(network):
    images = torch.randn(2, 1, 32, 32)
    for level in network.children():
        if isinstance(level, GuideLevel):
            level.scale.data.fill_(1.0)  # not the 0.01 at the start, which would hide what the words do
    ids = reports()
    words = int((ids[0] != 0).sum())
    assert words < 24
    bare = network(images, ids[:, :words])
    for length in (24, 50):
        padded = network(images, reports(length=length))
        for one, other in zip(vars(bare).values(), vars(padded).values(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("place", [2, 30, 59])
def test_each_word_counts_also_beyond_the_24th(network, place):
    images, ids = torch.randn(1, 1, 32, 32), torch.randint(4, VOCABULARY, (1, 60))
    other = ids.clone()
    other[0, place] = ids[0, place] % (VOCABULARY - 5) + 5
    a, b = network(images, ids), network(images, other)
    assert (a.logits - b.logits).abs().max() > 0
    assert (a.text_embedding - b.text_embedding).abs().max() > 1e-4


def test_each_window_of_24_words_is_condensed_by_the_same_weights():
    condense = CondensedWords(text_width=8, channels=4, condensed=9)
    words, padding = torch.randn(2, 48, 8), torch.zeros(2, 48, dtype=torch.bool)
    padding[1, 20:] = True
    both, empty = condense(words, padding)
    one, _ = condense(words[:, :24], padding[:, :24])
    assert both.shape == (2, 18, 4) and empty.sum(1).tolist() == [0, 9] and empty[1, 9:].all()
    torch.testing.assert_close(both[:, :9], one)


def test_the_words_reach_the_image_embedding_of_mmi_unet_alone():
    images = torch.randn(1, 1, 32, 32)
    for name in PAPER:
        network = build_network(name, image=SMALL).eval()
        a, b = (network(images, build_texts()([r.render()])) for r in (Report.of([1] * 6), Report.of([0] * 6)))
        assert torch.equal(a.image_embedding, b.image_embedding) == (name == "guide_decoder")


def test_more_words_than_the_encoder_has_places_for_are_refused(network):
    with pytest.raises(ValueError, match="65 tokens.* 64 positions"):
        network(torch.randn(1, 1, 32, 32), torch.full((1, 65), 5))


def test_position_codes_are_those_of_the_formula_and_no_two_pixels_of_the_largest_map_share_one():
    codes = line_codes(7, 8, "cpu")
    for i, k in ((0, 0), (3, 1), (6, 3)):
        angle = torch.tensor(i / 10_000 ** (2 * k / 8))
        torch.testing.assert_close(codes[i, 2 * k : 2 * k + 2], torch.stack([angle.sin(), angle.cos()]))
    many = line_codes(28 * 28, 96, "cpu")
    assert (torch.cdist(many, many) + torch.eye(len(many))).min() > 0.1


# As released: each block against its formula, written out


def attend(module, asking, answering, values, padding=None):
    """Attention of each head by itself, from the weights of torch's module."""
    width = module.embed_dim // module.num_heads
    parts = zip(module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True)
    q, k, v = (
        (x @ weight.T + bias).unflatten(2, (-1, width)).transpose(1, 2)
        for x, (weight, bias) in zip((asking, answering, values), parts, strict=True)
    )
    scores = q @ k.transpose(2, 3) / width**0.5
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None], -torch.inf)
    return module.out_proj((scores.softmax(3) @ v).transpose(1, 2).flatten(2))


def post_norm_layer(layer, x, other, own_padding=None, other_padding=None):
    """A decoder layer of DETR: each sum is normed after it is made."""
    x = layer.norm1(x + attend(layer.self_attn, x, x, x, own_padding))
    x = layer.norm2(x + attend(layer.multihead_attn, x, other, other, other_padding))
    return layer.norm3(x + layer.linear2(layer.linear1(x).relu()))


def chance_weights(module):
    """Also of norms and biases, which start at 1 and 0 and would hide where they stand."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3)
    return module.eval()


@pytest.fixture
def words_and_padding():
    """Two texts of 24 words, the second one of 10 and padding."""
    torch.manual_seed(1)
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[1, 10:] = True
    return torch.randn(2, 24, 8), padding


def test_a_fusion_is_the_post_norm_layer_of_each_of_the_two_and_gives_x_plus_v(words_and_padding):
    words, padding = words_and_padding
    fuse, x = chance_weights(Fusion(16, text_width=8)), torch.randn(2, 16, 6, 4)
    small = torch.nn.functional.conv2d(x, fuse.reduce.weight, stride=2)
    image, text = fuse.image_norm(small.flatten(2).mT), fuse.text_norm(fuse.words(words))
    told = post_norm_layer(fuse.image_reads, image, text, other_padding=padding)
    v = torch.nn.functional.conv_transpose2d(told.mT.unflatten(2, (3, 2)), fuse.restore.weight, stride=2)
    expected = fuse.text_update(post_norm_layer(fuse.text_reads, text, image, own_padding=padding))
    fused, update = fuse(x, words, padding)
    torch.testing.assert_close(fused, x + v)
    torch.testing.assert_close(update, expected)
    assert fuse.image_reads.self_attn.num_heads == fuse.image_reads.multihead_attn.num_heads == 8
    assert {layer.p for layer in fuse.modules() if isinstance(layer, torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (2, 3), (7, 7), (56, 28)])
def test_a_fusion_takes_maps_of_any_size_and_says_nothing_of_the_last_row_and_column_of_an_odd_one(
    size, words_and_padding
):
    fuse, x = chance_weights(Fusion(16, text_width=8)), torch.randn(2, 16, *size)
    fused, update = fuse(x, *words_and_padding)
    assert fused.shape == x.shape and update.shape == (2, 24, 8)
    told = (fused - x).abs().sum((0, 1)) > 0
    height, width = (each if each == 1 else each // 2 * 2 for each in size)
    assert told[:height, :width].all() and told.sum() == height * width


def test_the_next_stage_gets_x_plus_v_plus_x_and_the_next_fusion_the_original_words_plus_the_last_update():
    network = build_network("mmi_unet", image=SMALL, embedding=32).eval()
    fusions = [network.fuse4, network.fuse8, network.fuse16, network.fuse32]
    fused, entered = [], []
    for fuse, stage in zip(fusions, network.image_encoder.backbone.encoder.stages, strict=True):
        fuse.register_forward_hook(lambda _, given, back: fused.append((*given[:2], *back)))
        stage.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    words = network.text_encoder.read(reports())[:, 1:]
    with torch.no_grad():
        features, pooled = network.see(torch.randn(2, 1, 64, 64), words, (words == 0).all(2))
    assert torch.equal(fused[0][1], words) and fused[3][3] is None
    for (x, _, x_plus_v, update), (_, text, _, _), enters in zip(fused, fused[1:], entered[1:], strict=False):
        torch.testing.assert_close(enters, x_plus_v + x)
        torch.testing.assert_close(text, words + update)
        assert (x_plus_v - x).abs().max() > 0.01 and update.abs().max() > 0.01
    assert all(torch.equal(feature, each[2]) for feature, each in zip(features, fused, strict=True))
    assert torch.equal(pooled, features[3].mean((2, 3)))


def test_a_guide_level_norms_before_each_attention_and_its_answer_after_it(words_and_padding):
    level, x = chance_weights(GuideLevel(16, 8, text_width=8, condensed=12)), torch.randn(2, 16, 4, 6)
    seen = []
    level.up.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    words, padding = words_and_padding
    level(x, torch.randn(2, 8, 8, 12), words, padding)
    dense, empty = level.words(words, padding)
    place, order = line_codes(24, 16, "cpu"), line_codes(12, 16, "cpu")
    y = x.flatten(2).mT
    normed = level.self_norm(y)
    answer = attend(level.self_attention.attention, normed + place, normed + place, normed)
    y = y + level.self_answer_norm(answer)
    normed = level.cross_norm(y)
    answer = attend(level.cross_attention.attention, normed + place, dense + order, dense, empty)
    y = y + level.scale * level.cross_answer_norm(answer)
    torch.testing.assert_close(seen[0].flatten(2).mT, y)


def test_mmi_unet_drops_out_in_training_alone_and_guide_decoder_never(network, name):
    images, ids = torch.randn(2, 1, 32, 32), reports()
    assert torch.equal(network(images, ids).logits, network(images, ids).logits)
    network.train()
    again = torch.equal(network(images, ids).logits, network(images, ids).logits)
    assert again == (name == "guide_decoder")


# The release's way with padding and with texts of another length, and ours


def logits_with_padding_attended(network, images, ids):
    """The release's: whatever the text encoder says of padding is read like a word."""
    words = network.text_encoder(ids)[0][-1]
    nowhere = torch.zeros(words.shape[:2], dtype=torch.bool)
    features, _ = network.see(images, words, nowhere)
    return network.segment(features, words, nowhere)


@torch.no_grad()
def test_ledger_18_with_padding_attended_its_length_changes_the_logits_and_masked_it_does_not(network, name):
    if name == "guide_decoder":
        for level in (network.level32, network.level16, network.level8):
            level.scale.fill_(1.0)  # as if learnt: 0.01 would hide what the words do
    images, lengths = torch.randn(2, 1, 32, 32), (24, 48)
    short, long = (logits_with_padding_attended(network, images, reports(length=length)) for length in lengths)
    assert (short - long).abs().max() > 1e-3
    short, long = (network(images, reports(length=length)) for length in lengths)
    torch.testing.assert_close(vars(short), vars(long), atol=1e-5, rtol=1e-5)


def condensed_as_released(weights, words):
    """The release's: one convolution, whose input channels are the 24 places of a text."""
    return weights.project(weights.condense(words))


def test_ledger_19_the_release_takes_exactly_24_tokens_and_windows_take_any_number():
    ours, words = CondensedWords(text_width=8, channels=4, condensed=9), torch.randn(2, 40, 8)
    for length in (20, 40):
        with pytest.raises(RuntimeError, match=f"24 channels.* {length} channels"):
            condensed_as_released(ours, words[:, :length])
        condensed, _ = ours(words[:, :length], torch.zeros(2, length, dtype=torch.bool))
        assert condensed.shape == (2, -(-length // 24) * 9, 4)
    cut = condensed_as_released(ours, words[:, :24])  # what the release makes of 40 tokens
    whole, _ = ours(words, torch.zeros(2, 40, dtype=torch.bool))
    torch.testing.assert_close(whole[:, :9], cut)
    other = words.clone()
    other[:, 39] += 1.0
    assert not torch.equal(ours(other, torch.zeros(2, 40, dtype=torch.bool))[0], whole)


# A frozen text encoder, training, saving


def test_a_frozen_text_encoder_has_no_gradient_and_no_dropout_also_in_training(name):
    network = build_network(name, image=SMALL, text=TEXT, frozen_text=True).train()
    assert network.training and not any(module.training for module in network.text_encoder.modules())
    images, ids = torch.randn(2, 1, 32, 32), reports()
    assert torch.equal(network.text_encoder(ids)[0], network.text_encoder(ids)[0])
    out = network(images, ids)
    norms = gradient_norms({"mask": out.logits.mean(), "text": out.text_embedding.square().sum()}, network)
    assert norms["text encoder"].isna().all() and norms.loc["text", "ITCL projections"] > 0
    assert parameter_table(network).loc["text_encoder", "trained"] == 0
    trained = build_network(name, image=SMALL, text=TEXT).train()
    assert trained.text_encoder.bert.training
    assert not torch.equal(trained.text_encoder(ids)[0], trained.text_encoder(ids)[0])


def test_it_is_trained_saved_and_found_again(name, train, tmp_path, monkeypatch):
    """The whole loop, at a small size: the student learns, the frozen encoder of neither network moves."""
    settings = {"image": SMALL, "embedding": 32, "text": TEXT, "frozen_text": True}
    built, first = [], {}

    def build(name, image_encoder, text_encoder):
        built.append(build_network(name, **settings))
        first.update({key: value.clone() for key, value in built[-1].state_dict().items()})
        return built[-1]

    monkeypatch.setitem(METHODS, "semi_medref", replace(METHODS["semi_medref"], build=build))
    outcome = train(output=tmp_path, network=name)
    assert outcome.status == 0, outcome.errors
    about = json.loads((tmp_path / "student" / "config.json").read_text())
    assert about["network"] == name and about["arguments"] == settings
    for role in ("student", "teacher"):
        network, _ = from_pretrained(tmp_path / role)
        after = network.state_dict()
        frozen = [key for key in after if key.startswith("text_encoder.")]
        assert frozen and all(torch.equal(after[key], first[key]) for key in frozen)
        assert not torch.equal(after["head.0.weight"], first["head.0.weight"])
        assert not network.training and network.text_encoder.frozen
    images, ids = torch.randn(1, 1, 32, 32), reports(1)
    again, _ = from_pretrained(tmp_path / "student")
    torch.testing.assert_close(again(images, ids).logits, built[0].eval()(images, ids).logits)
