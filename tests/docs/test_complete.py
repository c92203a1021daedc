"""Nothing that a user can type, read or set is left out of the pages."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from spec_convert import hookspecs, operations, tensor_map
from spec_convert.cli import cli as group
from spec_convert.documentation import ours
from spec_convert.findings import Depth
from spec_convert.formats import Described, Draft, Export, Format, Layout, Native, Request, UnifiedDraft, UnifiedType
from spec_convert.operations import Operation
from spec_convert.reports import RENDERERS
from spec_convert.rules import RULES
from spec_convert.validation.settings import KEYS, SEVERITIES

from .pages import GUIDES, ROOT, Page

COMMANDS, FORMATS, RULE_PAGE, VALIDATING, PLUGINS, ENVIRONMENT = (
    Page(ROOT / "docs" / f"{name}.md")
    for name in ("commands", "formats", "rules", "validating", "plugins", "environment")
)
HOOKS = [hook for hook in vars(hookspecs).values() if hasattr(hook, "spec_convert_spec")]
CODE = ("spec_convert", "plugins", "training", "benchmarks")
# Found by how they begin, wherever they stand, in messages too; of others' variables not those that only tests set.
OURS = re.compile(r"\bSPEC_CONVERT_[A-Z0-9_]*[A-Z0-9]\b")
OTHERS = re.compile(r"\b(?:HF|VLLM|GITHUB)_[A-Z_]*[A-Z]\b")


def in_table(page: Page) -> set[str]:
    """What stands as `code` in the first cell of the page's tables."""
    return set(re.findall(r"^\| `([^`]+)`", page.text, re.MULTILINE))


def test_every_verb_has_a_place_among_the_commands() -> None:
    folders = {"spec_convert.cli": ROOT / "spec_convert/cli", "spec_convert.training.cli": ROOT / "training/cli"}
    modules_of_verbs = {f"{package}.{path.stem}" for package, folder in folders.items() for path in folder.glob("*.py")}
    group.list_commands(click.Context(group))  # asks plugins for theirs
    callbacks = {name: command.callback for name, command in group.commands.items()}
    verbs = {name for name, call in callbacks.items() if getattr(call, "__module__", "") in modules_of_verbs}
    assert len(verbs) > 15
    assert verbs <= COMMANDS.anchors


@pytest.mark.parametrize("name", sorted(command.name or "" for command in group.commands.values()))
def test_every_verb_is_met_in_a_guide(name: str) -> None:
    generated = ("commands.md", "formats.md", "rules.md")
    guides = [page.text for page in GUIDES if page.path.name not in generated]
    assert any(f"spec-convert {name}" in text or f"`{name}`" in text for text in guides)


def test_every_rule_can_be_linked_to() -> None:
    assert RULES.keys() <= RULE_PAGE.anchors


def test_every_format_can_be_linked_to() -> None:
    assert ours().formats.keys() <= FORMATS.anchors


def test_every_option_of_validate_is_explained() -> None:
    options = {
        option for param in group.commands["validate"].params for option in param.opts if option.startswith("--")
    }
    assert {option for option in options - {"--help"} if f"`{option}" not in VALIDATING.text} == set()


def test_every_level_every_renderer_and_every_input_of_the_action_is_explained() -> None:
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    assert {word for word in (*Depth, *RENDERERS, *inputs) if f"`{word}`" not in VALIDATING.text} == set()


def test_every_setting_is_explained() -> None:
    table = "".join(VALIDATING.blocks("toml"))
    assert {
        key for key in KEYS if f"{key} =" not in table and f"{key}]" not in table and f"`{key}`" not in table
    } == set()
    assert {severity for severity in SEVERITIES if severity not in table} == set()


def test_every_hook_is_explained_with_its_arguments() -> None:
    assert HOOKS
    for hook in HOOKS:
        called = f"{hook.__name__}({', '.join(inspect.signature(hook).parameters)})"
        assert f"### `{called}`" in PLUGINS.text


@pytest.mark.parametrize("kind", [Format, Request, Layout, Draft, Described, Export, UnifiedDraft, Native, UnifiedType])
def test_every_field_that_an_author_meets_is_explained(kind: Any) -> None:
    assert {field.name for field in fields(kind)} <= in_table(PLUGINS)


def test_the_dialect_that_authors_are_shown_is_one_that_keeps_the_contract() -> None:
    """`tests/testing/test_contract_is_kept.py` proves it."""
    assert (ROOT / "tests" / "testing" / "pig.py").read_text() in PLUGINS.blocks("python")


def test_the_whole_table_language_is_explained() -> None:
    rows = {name for name, thing in made_in(tensor_map) if inspect.isfunction(thing)}
    assert rows == {"move", "keep", "drop", "refuse", "derive", "fuse", "split", "stack", "either"}
    steps = {name for name, thing in made_in(operations) if hasattr(thing, "run") and thing is not Operation}
    assert len(steps) > 5
    assert {
        name for name in rows | steps if name not in {entry.partition("(")[0] for entry in in_table(PLUGINS)}
    } == set()


def made_in(module: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a module, without those that it imports."""
    for name, thing in vars(module).items():
        kind = inspect.isfunction(thing) or inspect.isclass(thing)
        if kind and thing.__module__ == module.__name__ and not name.startswith("_"):
            yield name, thing


def test_all_that_is_for_tests_of_plugins_is_explained() -> None:
    from spec_convert import testing

    assert testing.__all__
    assert {name for name in testing.__all__ if f"`{name}" not in PLUGINS.text} == set()


def modules(*folders: str) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "fixtures" not in path.parts:
                yield path, path.read_text(encoding="utf-8")


def constants() -> dict[str, str]:
    """Names at the top of modules that stand for text."""
    found = {}
    for _, code in modules(*CODE):
        for node in ast.parse(code).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                    found[name] = text
    return found


def reads(code: str) -> Iterator[ast.expr]:
    """What is asked of the environment: `os.environ.get(x)`, `os.environ[x]`, `x in os.environ`, `os.getenv(x)`."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get" | "pop"), args=[name, *_]):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="getenv"), args=[name, *_]):
                yield name
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=name):
                yield name
            case ast.Compare(left=name, ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute(attr="environ")]):
                yield name


def variables() -> dict[str, str]:
    """Every variable of the environment that matters to the code, or is ours, and a file that knows it."""
    found = {name: path.name for path, code in modules(*CODE, "tests") for name in OURS.findall(code)}
    found |= {name: path.name for path, code in modules(*CODE) for name in OTHERS.findall(code)}
    texts = constants()
    for path, code in modules(*CODE):
        for name in reads(code):
            assert isinstance(name, ast.Constant | ast.Name), f"{path}:{name.lineno} puts a name together"
            found[str(name.value) if isinstance(name, ast.Constant) else texts[name.id]] = path.name
    return found


def test_every_variable_of_the_environment_is_explained() -> None:
    assert {name: file for name, file in variables().items() if name not in in_table(ENVIRONMENT)} == {}


def test_no_variable_is_explained_that_nobody_knows() -> None:
    everything = "".join(code for _, code in modules(*CODE, "tests"))
    assert {name for name in in_table(ENVIRONMENT) if name not in everything} == set()
