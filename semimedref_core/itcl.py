"""ITCL: the position-guided image-text contrastive loss. Its soft positives are shared anatomical zones.

Two pairs whose reports name overlapping zones are partly positives of each other, by the Jaccard index of their zone
vectors, ``P_ij = |a_i and a_j| / |a_i or a_j|``; see :func:`semimedref_kernels.soft_contrastive_loss` for the loss.
"""

from __future__ import annotations

from torch import Tensor

from semimedref_kernels import soft_contrastive_loss


def itcl(image_embedding: Tensor, text_embedding: Tensor, codes: Tensor, tau: float = 0.07) -> Tensor:
    """The loss of a batch of projected embeddings.

    Args:
        image_embedding, text_embedding: ``[N, D]``, any length; normalised here.
        codes: ``[N]`` zone codes 0 to 63 (:attr:`semimedref_core.reports.Report.code`).
        tau: temperature.

    Returns:
        Scalar loss, at least 0.
    """
    return soft_contrastive_loss(image_embedding.float(), text_embedding.float(), codes, tau, normalize=True)
