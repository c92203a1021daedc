"""Drafts before and after training: their shape, their first weights, their checkpoints."""
