"""The ISPG module of a network: it predicts from the image where lesions are, for reports without positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from semimedref_core.networks.residual import ResidualBlock, group_norm
from semimedref_core.reports import ZONES


class ZoneGuide(nn.Module):
    """ISPG, image-derived soft position guidance: zones predicted from the image become one more word of the text.

    A separate small image encoder predicts the six zones. Their probabilities a become the token ``tanh(g) (W a + b)``
    (Eq. 19; the paper's equation 10 is about ISPG, and this form is ours). The gate g is learnt and starts near 0, so
    the network first learns to read the text. A gate of exactly 0 hides the token like padding.

    No gradient flows through the token to the encoder. So the encoder learns only from reports to predict the zones.

    Args:
        text_width: width of the text encoder, and of the token.
        channels: channels of the images.
        widths: channels at strides 4, 8 and 16.
    """

    def __init__(self, text_width: int, channels: int = 1, widths=(16, 24, 32)):
        super().__init__()
        a, b, c = widths
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, a, 4, 4, bias=False),
            group_norm(a),
            nn.SiLU(inplace=True),
            ResidualBlock(a, b, 2),
            ResidualBlock(b, c, 2),
            nn.AdaptiveAvgPool2d((3, 2)),  # zones are places
            nn.Flatten(),
            nn.Linear(6 * c, len(ZONES)),
        )
        self.token = nn.Linear(len(ZONES), text_width)
        self.gate = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, images: Tensor) -> Tensor:
        """Zone logits ``[B, 6]`` of images ``[B, C, H, W]``."""
        return self.encoder(images)

    def append(self, words: Tensor, padding: Tensor, zones: Tensor) -> tuple[Tensor, Tensor]:
        """Appends the token of zone logits ``[B, 6]`` to words ``[B, L, width]`` and padding ``[B, L]``."""
        token = self.gate.tanh() * self.token(zones.detach().sigmoid())
        hidden = (self.gate == 0).expand(len(words), 1)
        return torch.cat([words, token[:, None]], 1), torch.cat([padding, hidden], 1)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hides the token while the body runs; the network then reads only the text."""
        gate = self.gate.detach().clone()
        with torch.no_grad():
            self.gate.zero_()
        try:
            yield
        finally:
            with torch.no_grad():
                self.gate.copy_(gate)
