"""Conversations as data sets spell them, read into one form."""
