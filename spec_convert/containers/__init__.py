"""Readers of weight files: names, shapes, dtypes and byte positions, never the weights and never any code."""
