"""The two fused operations of Semi-MedRef. They need only torch and do not use the core package."""

from semimedref_kernels.patch_mix import patch_mix
from semimedref_kernels.soft_contrastive import jaccard, soft_contrastive_loss

__all__ = ["jaccard", "patch_mix", "soft_contrastive_loss"]
