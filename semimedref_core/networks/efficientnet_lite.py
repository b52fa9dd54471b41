"""EfficientNet-Lite0, an image encoder; :mod:`.imagenet` has weights for it.

EfficientNet-Lite (R. Liu, Google, 2020) is EfficientNet (Tan and Le, ICML 2019, arXiv 1905.11946) without
squeeze-excitation, with ReLU6 in place of swish, and with one size of stem and head for all models. Its blocks are the
inverted residuals of MobileNetV2 (Sandler et al., CVPR 2018). The stochastic depth of its training is left out.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, relu6

# Expansion, kernel, stride of the first block, number of blocks, channels: those of EfficientNet-B0.
STAGES = (
    (1, 3, 1, 1, 16),
    (6, 3, 2, 2, 24),
    (6, 5, 2, 2, 40),
    (6, 3, 2, 3, 80),
    (6, 5, 1, 3, 112),
    (6, 5, 2, 4, 192),
    (6, 3, 1, 1, 320),
)
LAST = {2: 24, 4: 40, 10: 112, 15: 320}
"""The last block at the strides 4, 8, 16 and 32 -> its channels."""


class ConvNorm(nn.Module):
    """A convolution without bias, then batch norm: ``[B, in, H, W] -> [B, out, H/stride, W/stride]``.

    The padding is TensorFlow's "same" for sides that are multiples of the stride: along each axis kernel - stride
    zeros, and if that is odd the end has one more than the start.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.more = (kernel - stride) % 2
        around = (kernel - stride) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, around, groups=groups, bias=False)
        # Batches are small, so the running statistics move half as fast as torch's do by default.
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, (0, self.more, 0, self.more)) if self.more else x
        return self.norm(self.conv(x))


class InvertedResidual(nn.Module):
    """1x1 to more channels, a convolution of each channel, 1x1 back: ``[B, in, H, W] -> [B, out, H/stride, W/stride]``.

    No activation follows the last convolution. Where the shape stays, the input is added.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inner = expansion * inputs
        self.expand = ConvNorm(inputs, inner) if expansion > 1 else None
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, outputs)
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else relu6(self.expand(x))
        out = self.project(relu6(self.depthwise(inner)))
        return x + out if self.adds else out


class EfficientNetLite0(nn.Module):
    """The network up to its last block, with weights drawn by chance; what follows is for classes of pictures."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks, inputs = ConvNorm(3, 32, 3, 2), nn.ModuleList(), 32
        for expansion, kernel, stride, count, outputs in STAGES:
            for i in range(count):
                self.blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, 1 if i else stride))
                inputs = outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """Sees pictures.

        Args:
            images: ``[B, 3, H, W]`` red, green and blue, (x - 127) / 128 of 0 to 255; H and W multiples of 32.

        Returns:
            Four maps ``[B, C, H / s, W / s]`` at the strides s of 4, 8, 16 and 32, with the channels C of ``LAST``.
        """
        x, maps = relu6(self.stem(images)), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in LAST:
                maps.append(x)
        return maps
