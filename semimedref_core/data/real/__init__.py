"""Readers of real datasets, and the doctor that looks through their folders."""
