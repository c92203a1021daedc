"""The state dict inside what torch.save wrote: a dict of tensors, at the top or under one well-known key."""

from __future__ import annotations

from spec_convert.containers.refusal import damaged, few, unreadable
from spec_convert.containers.torch_objects import View
from spec_convert.errors import Unreadable

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
SAVE = "Save the state dict alone: torch.save(model.state_dict(), FILE), or better as safetensors."


def find_views(value: object, *, file: str) -> dict[str, View]:
    """The tensors by name. Anything beside them is refused, because nothing here is dropped without a reason."""
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        message = f"holds a list of {len(value)} token ids, as FR-Spec's are, and no weights"
        hint = "Name the draft itself. SGLang takes such a list with --speculative-token-map."
        raise unreadable("no-weights", file, message, hint)
    if not isinstance(value, dict):
        raise damaged(file, f"holds a {_kind(value)}, not a dict of tensors", SAVE)
    if not any(isinstance(item, View) for item in value.values()):
        value = _unwrap(value, file)
    views = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, View)}
    others = [str(name) for name in value if name not in views]
    if others:
        raise damaged(file, f"holds more than named tensors: {few(others)}", SAVE)
    if not views:
        raise damaged(file, "holds no tensors", SAVE)
    return views


def _unwrap(value: dict[object, object], file: str) -> dict[object, object]:
    inner = {name: value[name] for name in WRAPPERS if isinstance(value.get(name), dict)}
    if len(inner) == 1:
        (found,) = inner.values()
        assert isinstance(found, dict)
        return found
    raise _no_tensors(value, list(inner), file)


def _no_tensors(value: dict[object, object], wrappers: list[str], file: str) -> Unreadable:
    if wrappers:
        return damaged(file, f"holds several state dicts: {few(wrappers)}", SAVE)
    keys = few(str(key) for key in value)
    return damaged(file, f"holds no tensors; its keys: {keys}" if keys else "holds an empty dict", SAVE)


def _kind(value: object) -> str:
    return "single tensor" if isinstance(value, View) else type(value).__name__.replace("NoneType", "None")
