"""The demo: the main job on a small real model, offline, from a draft trained on the spot to the unified directory."""
