"""`python -m spec_convert`: the same as `spec-convert`."""

from spec_convert.cli import main

main()
