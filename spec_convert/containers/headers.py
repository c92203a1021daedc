"""The tensors of one weight file, whichever container it is."""

from __future__ import annotations

from spec_convert.containers.safetensors import read_safetensors
from spec_convert.containers.sniff import HEAD, Kind, sniff
from spec_convert.tensor import Files, Tensor


def read_headers(files: Files, file: str, size: int) -> tuple[Kind, dict[str, Tensor], dict[str, str]]:
    """The container, its tensors, and what its writer said of it, for which only safetensors have a place."""
    with files.open(file) as stream:
        kind = sniff(stream.read(HEAD), file=file)
        if kind == "safetensors":
            return kind, *read_safetensors(stream, file=file, size=size)
        # The pickle reader costs a few milliseconds to import, and most checkpoints do without it.
        if kind == "torch-zip":
            from spec_convert.containers.torch_zip import read_torch_zip

            return kind, read_torch_zip(stream, file=file, size=size), {}
        from spec_convert.containers.torch_legacy import read_torch_legacy

        return kind, read_torch_legacy(stream, file=file, size=size), {}
