"""Training-time test: all chains of a draft at once, each step fed with the one before it."""
