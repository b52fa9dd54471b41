"""The residual block of the small networks."""

from __future__ import annotations

from torch import Tensor, nn


def group_norm(channels: int) -> nn.Module:
    """Group norm with eight groups of channels. Unlike batch norm, it does not depend on the other samples of a
    batch."""
    return nn.GroupNorm(8, channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm around a shortcut: ``[B, in, H, W] -> [B, out, H/stride, W/stride]``."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            group_norm(outputs),
            nn.SiLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            group_norm(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, stride, stride, bias=False)
        self.activation = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))
