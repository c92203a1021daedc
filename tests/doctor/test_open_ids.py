"""A native draft of which nothing tells what its layer ids count: the doctor tries both, and says what to type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from spec_convert import convert
from spec_convert.cli import run
from spec_convert.doctor.examination import Examination
from spec_convert.errors import Refused

from . import toy

KEY = "eagle_aux_hidden_state_layer_ids"


@pytest.fixture
def native(eagle3: Path, tmp_path: Path) -> Callable[[list[int]], Path]:
    """The trained draft as ModelOpt exports it, with these layer ids where its trainers write none."""

    def write(ids: list[int]) -> Path:
        unified = json.loads((eagle3 / "config.json").read_text())
        config = unified["transformer_layer_config"] | {
            "architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": unified["draft_vocab_size"], KEY: ids,
            "torch_dtype": "float32",
            "eagle_config": {
                "use_aux_hidden_state": True, "use_input_layernorm_in_first_layer": True, "use_last_layernorm": True,
                "use_mtp_layernorm": False, "next_layer_regular": True,
            },
        }  # fmt: skip
        tensors = {
            name.replace("layers.0.", "midlayer."): tensor
            for name, tensor in load_file(eagle3 / "model.safetensors").items()
            if name != "t2d"
        }
        folder = tmp_path / "native"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write


@pytest.mark.parametrize(("ids", "counted"), [(toy.FED, "boundary"), ([i - 1 for i in toy.FED], "output")])
def test_what_the_ids_count_is_found_by_trying_both(
    ids: list[int], counted: str, native: Callable[[list[int]], Path], verifier: Path,
    examined: Callable[..., Examination],
) -> None:  # fmt: skip
    """The norm placement is wrong beside it: files of this kind do not tell that one, either."""
    draft = native(list(ids))
    mended = draft.with_name("mended")
    with pytest.raises(Refused, match="layer ids"):
        convert(draft, mended, verifier=verifier)
    examination = examined(draft)
    assert examination.counting == counted
    assert not examination.clean
    words = (examination.command or "").split()
    assert words[words.index("--aux-layer-convention") + 1] == counted
    assert "--aux-layer-ids" not in words
    assert run(["-q", *[word.replace("OUTPUT", str(mended)) for word in words[1:]]]) == 0
    assert json.loads((mended / "config.json").read_text())[KEY] == list(toy.FED)
    assert examined(mended).clean
