"""Samples on disk: shards of safetensors with a manifest that hold whole samples, and the community's files.

What `prepare` writes (tokens and masks) and what `generate` and `collect` write (hidden states beside them) is the same
store; a prepared one has no states.
"""
