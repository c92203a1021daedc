"""The plugin door: whatever is wrong with a plugin is a row with its reason, and the good ones beside it work."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from spec_convert import registry as door
from spec_convert.detection import recognise
from spec_convert.errors import Refused, UsageError
from spec_convert.formats import Request
from spec_convert.forward import forward_findings
from spec_convert.open import open_checkpoint
from spec_convert.plan import make_plan
from spec_convert.plugins.eagle import EAGLE
from spec_convert.registry import Plugin, Registry
from spec_convert.third_party import PluginFailed

MARK = "from spec_convert.hookspecs import hookimpl\n"
FORMAT = MARK + dedent(
    """
    from dataclasses import replace
    from spec_convert.plugins.eagle import EAGLE

    @hookimpl
    def spec_convert_formats():
        return [replace(EAGLE, name="NAME")]
    """
)
FIELDS = MARK + dedent(
    """
    from dataclasses import replace
    from spec_convert.formats import UnifiedType
    from spec_convert.plugins.eagle import EAGLE

    TYPE = UnifiedType(name="medusa", config=dict, trial=print)
    FORMATS = [replace(EAGLE, name="good", FIELDS)]

    @hookimpl
    def spec_convert_formats():
        return FORMATS

    """
)
Install = Callable[..., EntryPoint]


def good(name: str = "good") -> str:
    return FORMAT.replace("NAME", name)


def changed(fields: str) -> str:
    """A plugin with EAGLE as its format `good`, except for these fields."""
    return FIELDS.replace("FIELDS)", f"{fields})")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Write a module and hand back the entry point that its package would declare."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str, *, name: str = "bad") -> EntryPoint:
        module = f"{tmp_path.name}_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{module}.py").write_text(dedent(code))
        return EntryPoint(name, module, "spec_convert")

    return write


def rows(*entry_points: EntryPoint, disabled: str = "") -> dict[str, Plugin]:
    return {plugin.name: plugin for plugin in Registry(entry_points, disabled=frozenset({disabled})).plugins}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 +", "SyntaxError"),
        ("raise RuntimeError('out of luck')", "RuntimeError: out of luck"),
        ("raise SystemExit('at import')", "SystemExit: at import"),
        (MARK + "@hookimpl\ndef spec_convert_format(): return []", "unknown hook 'spec_convert_format'"),
        (MARK + "@hookimpl\ndef spec_convert_formats(registry): return []", "registry"),
        (MARK + "@hookimpl\ndef spec_convert_formats(): raise OSError('no file')", "OSError: no file"),
        (MARK + "@hookimpl\ndef spec_convert_formats(): return ['eagle']", "'eagle', which is no Format"),
        (MARK + "@hookimpl\ndef spec_convert_formats(): pass", "TypeError"),
        (changed("flags=['dtype']"), "TypeError: flags of format `good` is ['dtype'], not of type Set"),
        (changed("describe=None"), "TypeError: describe of format `good` is None, not a function"),
        (changed("flags=frozenset({'layer_norms'})"), "heeds the flag `layer_norms`, which is no field of Request"),
        (changed("tables={'': [1]}"), "tables[''] of format `good` is [1], not of type TensorMap"),
        (changed("exports=(1,)"), "one of the exports of format `good` is 1, not of type Export"),
        (changed("example=1"), "example of format `good` is 1, not a function"),
        (changed("unconverted='no'"), "unconverted of format `good` is 'no', not of type Unconverted"),
        (changed("own_type='medusa'"), "own_type of format `good` is 'medusa', not of type UnifiedType"),
        (changed("own_type=replace(TYPE, trial=1)"), "trial of the own_type of format `good` is 1, not a function"),
        (changed("own_type=TYPE"), "`good` produces `eagle`, but its own_type is called `medusa`"),
        (
            changed("own_type=TYPE, produces='medusa'")
            + "FORMATS.append(replace(FORMATS[0], name='b', own_type=None))\n",
            "`b` describes the unified type `medusa`, which another format does already",
        ),
        ("def spec_convert_formats(): return []", "`spec_convert_formats` is not marked with @hookimpl"),
        ("def spec_convert_format(): return []", "`spec_convert_format` is not marked with @hookimpl"),
        (good() + "\ndef spec_convert_commands(cli): ...", "`spec_convert_commands` is not marked"),
        ("FORMATS = []", "it has no hook"),
        (good().replace("[replace", "2 * [replace"), "two formats named `good`"),
    ],
)
def test_a_broken_plugin_is_a_row_with_its_reason(install: Install, code: str, reason: str) -> None:
    registry = Registry([install(code), install(good(), name="good")])
    bad, fine = registry.plugins
    assert reason in (bad.error or "")
    assert (bad.formats, bad.commands) == ((), ())
    assert (fine.formats, fine.error) == (("good",), None)
    assert list(registry.formats) == ["good"]


def test_a_missing_attribute_of_a_module_is_a_row_too(install: Install) -> None:
    entry = install(good())
    (row,) = rows(EntryPoint("bad", f"{entry.value}:plugin", "spec_convert")).values()
    assert "AttributeError" in (row.error or "")


def test_the_first_plugin_keeps_a_name_that_two_want(install: Install) -> None:
    first, second = Registry([install(good("one"), name="twin"), install(good("two"), name="twin")]).plugins
    assert (first.error, first.formats) == (None, ("one",))
    assert "the plugin name `twin` is taken" in (second.error or "")


def test_a_name_is_free_again_when_who_had_it_could_not_be_loaded(install: Install) -> None:
    registry = Registry([install("1 +", name="twin"), install(good(), name="twin")])
    assert list(registry.formats) == ["good"]


def test_the_first_plugin_keeps_a_format_name_that_two_want(install: Install) -> None:
    one, other = install(good("mine"), name="one"), install(good("mine") + good("other"), name="other")
    registry = Registry([one, other, install(good("mine"), name="third")])
    assert {row.name: row.error for row in registry.plugins if row.error} == {
        "third": f"ValueError: the format name `mine` is taken by {one.value}"
    }
    assert registry.provider("mine") == one.value
    assert registry.provider("other") == other.value


def test_one_module_under_two_names_counts_once_and_stays(install: Install) -> None:
    entry = install(good() + "\n@hookimpl\ndef spec_convert_commands(cli): cli.append('asked')", name="one")
    registry = Registry([entry, EntryPoint("two", entry.value, "spec_convert")])
    one, two = registry.plugins
    assert one.error is None
    assert two.error
    asked: list[str] = []
    registry.add_commands(asked)
    assert asked == ["asked"]


def test_a_plugin_that_fails_to_add_its_verbs_stops_nobody(install: Install) -> None:
    verbs = MARK + "@hookimpl\ndef spec_convert_commands(cli): cli.append({0})"
    bad, fine = install(verbs.format("1 / 0")), install(verbs.format("'fine'"), name="fine")
    registry, added = Registry([bad, fine]), []
    registry.add_commands(added)
    assert added == ["fine"]
    assert [row.error for row in registry.plugins] == ["ZeroDivisionError: division by zero", None]


def test_a_disabled_plugin_is_not_even_imported(install: Install, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    found = rows(install(f"open({str(touched)!r}, 'w')"), install(good(), name="good"), disabled="bad")
    assert found["bad"].error == "disabled by SPEC_CONVERT_DISABLE"
    assert found["good"].error is None
    assert not touched.exists()


def test_the_environment_switches_plugins_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEC_CONVERT_DISABLE", "hass, eagle3,,nobody")
    registry = door.registry.__wrapped__()
    assert registry.nobody == ("nobody",)
    assert registry.unusable == []
    assert {row.name for row in registry.plugins if row.error} == {"hass", "eagle3"}
    assert not {"hass", "eagle3"} & registry.formats.keys()
    assert "eagle" in registry.formats


def test_a_third_party_cannot_push_a_built_in_aside(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = EntryPoint("eagle", "spec_convert.plugins.eagle", "spec_convert")
    thief = install(good("eagle"), name="aaa")
    monkeypatch.setattr(door, "entry_points", lambda group: [thief, ours])
    registry = door.registry.__wrapped__()
    assert registry.provider("eagle") == ours.value
    assert {row.name for row in registry.plugins if row.error} == {"aaa"}


def test_two_plugins_may_produce_one_type_by_equal_descriptions_only(install: Install) -> None:
    owner = install(changed("own_type=TYPE, produces='medusa'"), name="owner")
    friend = changed("own_type=TYPE, produces='medusa'").replace("good", "friend")
    rival = changed("own_type=TYPE, produces='medusa'").replace("good", "rival").replace("config=dict", "config=set")
    registry = Registry([
        owner,
        install(friend, name="friend"),
        install(rival, name="rival"),
    ])  # fmt: skip
    assert {row.name: bool(row.error) for row in registry.plugins} == {"owner": False, "friend": False, "rival": True}
    assert list(registry.formats) == ["good", "friend"]


@pytest.mark.parametrize("field", ["features", "layout", "describe"])
def test_a_bug_in_a_format_is_told_as_its_providers(install: Install, eagle: Any, field: str) -> None:
    entry = install(changed(f"{field}=lambda *_: 1 / 0"))
    detection = recognise(open_checkpoint(eagle().write()), among=Registry([entry]))
    with pytest.raises(PluginFailed) as failed:
        (make_plan(detection, Request()), detection.features)
    said = f"`{field}` of format `good` (from {entry.value}) failed: ZeroDivisionError: division by zero"
    assert failed.value.message == said
    assert f"a bug of {entry.value}, not of the checkpoint" in failed.value.hint
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


LAID = "lambda *given: replace(EAGLE.layout(*given), {})"
DESCRIBED = "lambda *given: replace(EAGLE.describe(*given), {})"


@pytest.mark.parametrize(
    ("field", "answer", "returned"),
    [
        ("layout", "lambda *_: None", "NoneType, not Layout"),
        ("layout", LAID.format("table=[1]"), "a `table` that is list, not TensorMap"),
        ("layout", LAID.format("sizes={'hidden': 16}"), "`sizes` whose `hidden` is int, not Known"),
        ("layout", LAID.format("findings=('odd',)"), "`findings` of which one is str, not Finding"),
        ("describe", "lambda *_: {}", "dict, not Described"),
        ("describe", DESCRIBED.format("findings=('odd',)"), "`findings` of which one is str, not Finding"),
        ("describe", DESCRIBED.format("config=[1]"), "a `config` that is list, not Mapping"),
        ("describe", DESCRIBED.format("config=None"), "no `config`, and no error finding that says why"),
        ("features", "lambda *_: []", "list, not Mapping"),
        ("is_unified", "lambda *_: 1", "int, not bool"),
    ],
)
def test_so_is_an_answer_of_another_kind(install: Install, eagle: Any, field: str, answer: str, returned: str) -> None:
    registry = Registry([install(changed(f"{field}={answer}"))])
    detection = recognise(open_checkpoint(eagle().write()), among=registry)
    with pytest.raises(PluginFailed) as failed:
        (make_plan(detection, Request()), detection.features, detection.winner.is_unified(detection.checkpoint))
    assert failed.value.message.startswith(f"`{field}` of format `good` (from ")
    assert failed.value.message.endswith(f" it returned {returned}")


MODEL = """
    from pydantic import BaseModel, model_validator

    class Model(BaseModel):
        model_config = {"extra": "allow"}

        @model_validator(mode="after")
        def agree(self):
            return self.no_such_thing if ASKED else self

"""


@pytest.mark.parametrize(
    ("asked", "own", "failure"),
    [
        (False, "config=dict", "`own_type.config` of format `good` (from {}) failed: it returned {{}}, not a class"),
        (True, "config=lambda: Model", "the config model of `eagle` (from {}) failed: AttributeError: "),
        (False, "config=lambda: Model, trial=lambda *_: {}[1]", "`trial` of format `good` (from {}) failed: KeyError"),
        (
            False,
            "config=lambda: Model, trial=lambda *_: 1",
            "`trial` of format `good` (from {}) failed: it returned int",
        ),
    ],
)
def test_so_is_what_is_wrong_with_a_type_of_its_own(
    install: Install, eagle: Any, asked: bool, own: str, failure: str
) -> None:
    own = f"UnifiedType(**dict(name='eagle', config=dict, trial=lambda *_, x: x) | dict({own}))"
    entry = install(f"ASKED = {asked}\n{dedent(MODEL)}{changed(f'own_type={own}')}")
    detection = recognise(open_checkpoint(eagle().write()), among=Registry([entry]))
    with pytest.raises(PluginFailed) as failed:
        forward_findings(make_plan(detection, Request()))
    assert failed.value.message.startswith(failure.format(entry.value))


def test_a_trial_whose_shapes_do_not_fit_is_a_fault_of_the_checkpoint(install: Install, eagle: Any) -> None:
    trial = "lambda config, tensors, random: tensors['fc.weight'] @ tensors['fc.weight']"
    own = f"own_type=UnifiedType(name='eagle', config=lambda: Model, trial={trial})"
    registry = Registry([install(f"ASKED = False\n{dedent(MODEL)}{changed(own)}")])
    plan = make_plan(recognise(open_checkpoint(eagle().write()), among=registry), Request())
    assert [finding.rule for finding in forward_findings(plan)] == ["forward-failed"]


def test_what_a_format_refuses_stays_a_refusal(install: Install, eagle: Any) -> None:
    registry = Registry([install(changed("title='good'"))])
    with pytest.raises(Refused, match="num_attention_heads"):
        make_plan(recognise(open_checkpoint(eagle(num_attention_heads=...).write()), among=registry), Request())


def test_a_bug_in_a_built_in_format_stays_ours() -> None:
    registry = Registry([EntryPoint("eagle", "spec_convert.plugins.eagle", "spec_convert")])
    assert registry["eagle"].layout is EAGLE.layout


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("None", "it returned None, which is no Evidence"),
        ("Evidence(supports=(), against=(), confidence=100, nearness=1)", "its confidence is 100, not between 0 and 1"),
        ("Evidence(supports=(), against=(), confidence=float('nan'), nearness=1)", "its confidence is nan"),
        ("sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_a_format_that_answers_nonsense_is_left_out_and_named(
    install: Install, eagle: Any, answer: str, why: str
) -> None:
    imports = "import sys\nfrom spec_convert.evidence import Evidence\n"
    code = imports + changed(f"recognise=lambda _: {answer}")
    registry = Registry([EntryPoint("eagle", "spec_convert.plugins.eagle", "spec_convert"), install(code)])
    detection = recognise(open_checkpoint(eagle().write()), among=registry)
    assert detection.format == "eagle"
    (finding,) = detection.findings
    assert (finding.rule, why in finding.message) == ("plugin-failed", True)


def test_nothing_is_traced_unasked(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    Registry([install(good(), name="good"), install("1 +")])
    assert capsys.readouterr().err == ""


def test_the_trace_tells_who_was_loaded_and_what_came_of_it(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEC_CONVERT_TRACE", "1")
    fine, bad = install(good(), name="fine"), install("raise OSError('one\\n\\x1b[31mtwo')")
    off = install(good(), name="off")
    Registry([fine, bad, off], disabled=frozenset({"off"})).add_commands([])
    assert capsys.readouterr().err.splitlines() == [
        f"trace: plugin fine (from {fine.value}): loading {fine.value}",
        "trace: plugin fine: its hooks are spec_convert_formats; it brings good",
        f"trace: plugin bad (from {bad.value}): loading {bad.value}",
        f"trace: plugin bad (from {bad.value}): left out: OSError: one ?[31mtwo",
        f"trace: plugin off (from {off.value}): left out: disabled by SPEC_CONVERT_DISABLE",
    ]


def test_an_unknown_format_is_answered_with_the_nearest(install: Install) -> None:
    registry = Registry([install(good("eagle3-mine"))])
    with pytest.raises(UsageError, match="there is no format `eagel3-mine`") as refused:
        registry["eagel3-mine"]
    assert "did you mean `eagle3-mine`?" in refused.value.hint


def test_every_built_in_plugin_loads_and_is_named_as_its_format() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["spec_convert"]
    registry = Registry([EntryPoint(name, value, "spec_convert") for name, value in declared.items()])
    assert {row.name: row.error for row in registry.plugins} == dict.fromkeys(declared)
    several = {"not-served", "served-natively"}  # layouts that are only recognised share a file
    alone = {row.name: row.formats for row in registry.plugins if row.formats and row.name not in several}
    assert alone == {name: (name,) for formats in alone.values() for name in formats}
    assert [row.name for row in registry.plugins if not row.formats] == ["training"]


def test_a_file_for_each_built_in_format_and_an_entry_point_for_each_file() -> None:
    root = Path(__file__).parents[1]
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["spec_convert"]
    files = {f"spec_convert.plugins.{path.stem}" for path in (root / "plugins").glob("*.py") if path.stem != "__init__"}
    assert files == {value for value in declared.values() if value.startswith("spec_convert.plugins.")}
