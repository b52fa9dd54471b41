"""All methods by name: Semi-MedRef with our additions, the release with its own mixing, and the methods that we compare
with."""

from semimedref_core.methods.registry import METHODS, Method, method_named

__all__ = ["METHODS", "Method", "method_named"]
