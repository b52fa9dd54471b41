"""Readers of real datasets, and the doctor that checks their folders."""
