"""What several dialects share: the rows of their layers, their sizes and their part of the unified config."""
