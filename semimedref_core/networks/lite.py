"""The lite network: EfficientNet-Lite0 encodes the picture; the rest is as in the compact network.

It has about 3.7 million weights. The weights of the encoder start from ImageNet. The encoder's maps at strides 4, 8 and
16 are projected to few channels. The map at stride 32 is added to the one at stride 16, as in a feature pyramid (Lin et
al., CVPR 2017).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from semimedref_core.config import STRIDE
from semimedref_core.networks.compact import SmallNetwork, group_norm
from semimedref_core.networks.efficientnet_lite import LAST, EfficientNetLite0
from semimedref_core.networks.encoders import TEXT_POSITIONS
from semimedref_core.networks.imagenet import MEAN, STD


class Lite(SmallNetwork):
    """The lite network; see above. The encoder has random weights; :func:`.build_pretrained` loads those of ImageNet.

    Args:
        vocabulary: number of token ids; id 0 is padding.
        widths: channels at strides 4, 8 and 16, after the encoder.
        text_width: width of the text encoder.
        embedding: D of the ITCL projections.
        ispg, channels, text_positions: see :meth:`.compact.SmallNetwork.add_text_and_decoder`.

    Raises:
        ValueError: from ``forward`` if the image's sides are not multiples of 32.
    """

    stride = STRIDE["lite"]
    parts: ClassVar = {"image encoder": ("image_encoder", "reduce"), **SmallNetwork.parts}

    def __init__(
        self,
        vocabulary: int,
        widths=(32, 64, 128),
        text_width: int = 96,
        embedding: int = 64,
        ispg: bool = False,
        channels: int = 1,
        text_positions: int = TEXT_POSITIONS,
    ):
        super().__init__()
        self.image_encoder = EfficientNetLite0()
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), group_norm(outputs), nn.SiLU(inplace=True))
            for inputs, outputs in zip(LAST.values(), (*widths, widths[-1]), strict=True)
        )
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.add_text_and_decoder(vocabulary, widths, text_width, embedding, ispg, channels, text_positions)

    def see(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # A picture has mean 0 and standard deviation 1. Here each channel gets the mean and deviation of ImageNet, and
        # a grey picture gets three channels.
        maps = self.image_encoder(images * self.std + self.mean)
        stride4, stride8, stride16, stride32 = (reduce(x) for reduce, x in zip(self.reduce, maps, strict=True))
        return stride4, stride8, stride16 + interpolate(stride32, scale_factor=2.0)
