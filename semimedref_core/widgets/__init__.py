"""Widgets for the notebooks: move something, and see image, mask and text change together."""
