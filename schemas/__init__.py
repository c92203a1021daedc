"""The published JSON Schemas, generated from the models in the code (`python -m spec_convert.published schemas`)."""
