"""Semi-MedRef, step by step: semi-supervised medical referring image segmentation."""

__version__ = "0.1.0"
