"""EfficientNet-Lite0, an image encoder; :mod:`.imagenet` loads its weights.

EfficientNet-Lite (R. Liu, Google, 2020) is EfficientNet (Tan and Le, ICML 2019, arXiv 1905.11946) without
squeeze-excitation, with ReLU6 instead of swish, and with the same stem and head in all models. Its blocks are the
inverted residuals of MobileNetV2 (Sandler et al., CVPR 2018). We leave out the stochastic depth of its training.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad, relu6

# Expansion, kernel, stride of the first block, number of blocks, channels: as in EfficientNet-B0.
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
"""The last block at each of the strides 4, 8, 16 and 32 -> its channels."""


class ConvNorm(nn.Module):
    """A convolution without bias, then batch norm: ``[B, in, H, W] -> [B, out, H/stride, W/stride]``.

    The padding is TensorFlow's "same" for sides that are multiples of the stride: kernel - stride zeros along each
    axis. If this number is odd, the end gets one zero more than the start.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.more = (kernel - stride) % 2
        around = (kernel - stride) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, around, groups=groups, bias=False)
        # Batches are small, so the running statistics change half as fast as torch's default.
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, (0, self.more, 0, self.more)) if self.more else x
        return self.norm(self.conv(x))


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution, a 1x1 projection: ``[B, in, H, W] -> [B, out, H/stride, W/stride]``.

    No activation follows the last convolution. If the shape does not change, the input is added.
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
    """The network up to its last block, with random weights. The layers after it, for classification, are left out."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks, inputs = ConvNorm(3, 32, 3, 2), nn.ModuleList(), 32
        for expansion, kernel, stride, count, outputs in STAGES:
            for i in range(count):
                self.blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, 1 if i else stride))
                inputs = outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """Encodes pictures.

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
