"""All the damaged checkpoints: importing the modules below fills the table."""

from __future__ import annotations

from . import damaged_configs, damaged_pickles, damaged_safetensors, damaged_torch_files, odd_files
from .damaged_configs import KEYS
from .making import CASES

__all__ = ["CASES", "KEYS", "MODULES"]
MODULES = (damaged_safetensors, damaged_torch_files, damaged_pickles, damaged_configs, odd_files)
