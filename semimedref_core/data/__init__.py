"""Datasets, splits, views and batches."""
