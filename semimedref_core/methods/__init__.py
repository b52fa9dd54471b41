"""Every method by name: Semi-MedRef with our additions, the release as it mixes, and what they are compared with."""

from semimedref_core.methods.registry import METHODS, Method, method_named

__all__ = ["METHODS", "Method", "method_named"]
