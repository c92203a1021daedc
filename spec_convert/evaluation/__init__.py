"""How well a draft drafts: acceptance by position, acceptance length, speed, and whether the text stays the verifier's.

Two engines measure the same things: transformers (our own loop, runs anywhere) and vLLM (what production runs).
"""
