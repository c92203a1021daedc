"""Ready draft configs, by name."""
