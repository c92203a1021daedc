"""Packed rows of training data: documents end to end, in an order that depends on the seed alone."""
