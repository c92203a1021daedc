"""Served by vLLM: the plugin that teaches a stock vLLM every unified draft, and the command line that starts it.

Nothing in this package's `__init__` or `versions` imports vLLM; the modules that vLLM itself loads do.
"""
