"""The drafts as small, readable torch modules: one implementation for validation, evaluation and training."""
