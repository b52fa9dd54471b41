"""The sizes of the paper's two networks, counted by hand from their description, block by block."""

import itertools

import pytest
import torch

from semimedref_core.networks import build_network, build_texts
from semimedref_core.networks.text import grammar_tokenizer
from semimedref_core.tools.inspection import parameter_table

VOCABULARY = len(grammar_tokenizer())
STEM = "image_encoder.backbone.embeddings.patch_embeddings.weight"

# A k x k convolution from a to b channels has k k a b weights and b biases, a Linear a b + b, a norm 2 b.


def attention(width):
    """Questions, keys, values and answers: four Linears."""
    return 4 * (width * width + width)


def convnext_tiny():
    """About 27.8 million: a 4 x 4 stem; blocks of a 7 x 7 depthwise convolution, norm, two Linears and a scale."""
    widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)
    stem = 4 * 4 * 3 * 96 + 96 + 2 * 96
    blocks = sum(
        depth * ((49 * w + w) + 2 * w + (w * 4 * w + 4 * w) + (4 * w * w + w) + w)
        for w, depth in zip(widths, depths, strict=True)
    )
    between = sum(2 * a + 2 * 2 * a * b + b for a, b in itertools.pairwise(widths))
    return stem + blocks + between


def small_bert():
    """Word, place and segment embeddings with a norm, then two layers of attention and MLP, each with a norm."""
    embeddings = (VOCABULARY + 64 + 2) * 96 + 2 * 96
    layer = attention(96) + 2 * 96 + (96 * 192 + 192) + (192 * 96 + 96) + 2 * 96
    return embeddings + 2 * layer


HEAD = 3 * 3 * 96 * (24 * 16) + 24 * 16 + (24 + 1)
TEXT_PROJECTION = (96 * 768 + 768) + 2 * 768 + (768 * 768 + 768)
LINEAR_768 = 768 * 768 + 768


def guide_level(a, b, condensed):
    words = (24 * condensed + condensed) + (96 * a + a)
    attentions = 2 * (2 * a + attention(a) + 2 * a) + 1  # a norm before each and one after it; one scalar s
    up = 2 * 2 * a * b + (9 * 2 * b * b + 2 * b) + (9 * b * b + 2 * b) + (2 * b * b + 2 * b)
    return words + attentions + up


def fusion(width, last=False):
    """Two 2 x 2 convolutions without bias; a decoder layer has two attentions, an MLP of 128 and three norms."""
    layer = 2 * attention(width) + (width * 128 + 128) + (128 * width + width) + 3 * 2 * width
    there_and_back = 2 * 4 * width * width
    image = there_and_back + 2 * width + layer
    text = (96 * width + width) + 2 * width
    return image + text + (0 if last else layer + (width * 96 + 96))


def up(a, b):
    return (4 * a * b + b) + (9 * 2 * b * b + 2 * b)


COUNTS = {
    "guide_decoder": {
        "image_encoder": convnext_tiny() + 2 * 768,  # the norm of the pooled output
        "text_encoder": small_bert(),
        "level32": guide_level(768, 384, 24),
        "level16": guide_level(384, 192, 12),
        "level8": guide_level(192, 96, 9),
        "head": HEAD,
        "image_projection": LINEAR_768,
        "text_projection": TEXT_PROJECTION,
    },
    "mmi_unet": {
        "image_encoder": convnext_tiny(),
        "text_encoder": small_bert(),
        "fuse4": fusion(96),
        "fuse8": fusion(192),
        "fuse16": fusion(384),
        "fuse32": fusion(768, last=True),
        "up16": up(768, 384),
        "up8": up(384, 192),
        "up4": up(192, 96),
        "head": HEAD,
        "image_projection": LINEAR_768 + 2 * 768,
        "text_projection": TEXT_PROJECTION,
    },
}


@pytest.mark.parametrize("name", COUNTS)
def test_each_block_has_the_parameters_of_its_description_and_224_px_give_224_px(name):
    network = build_network(name)
    table = parameter_table(network)
    assert table["parameters"].to_dict() == COUNTS[name]
    assert (table["trained"] == table["parameters"]).all()
    assert table["parameters"].sum() == sum(parameter.numel() for parameter in network.parameters())
    assert convnext_tiny() // 100_000 == 278
    ids = build_texts()(["No pulmonary infection, zero infected areas."])
    out = network(torch.randn(1, 1, 224, 224), ids)
    assert out.logits.shape == (1, 1, 224, 224)
    assert out.image_embedding.shape == out.text_embedding.shape == (1, 768)
    out.logits.square().mean().backward()
    assert all(network.get_parameter(place).grad.abs().sum() > 0 for place in ("head.0.weight", STEM))
    hidden, padding = network.text_encoder(ids)
    features, _ = network.see(torch.randn(1, 1, 224, 224), hidden[-1], padding)
    assert [tuple(x.shape[1:]) for x in features] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
