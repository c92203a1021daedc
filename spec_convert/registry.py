"""Who came through the plugin door, with which formats; a broken plugin is a row with its reason, never a crash."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

import pluggy

from spec_convert import hookspecs
from spec_convert.checkout import require_installed
from spec_convert.errors import unknown_name
from spec_convert.formats import Export, Format, UnifiedType
from spec_convert.third_party import require_format, watched
from spec_convert.tracing import trace

DISABLE = "SPEC_CONVERT_DISABLE"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One plugin as `spec-convert plugins` shows it. ``error`` says why it could not be used, or is not wanted.

    ``commands`` are the verbs that it has added so far: it is asked for them only when a command line needs them.
    """

    name: str
    origin: str
    formats: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    error: str | None = None
    disabled: bool = False


class Registry:
    """All plugins and formats. Names are unique; taking a taken name is an error of the later plugin.

    ``commands`` are the verbs of third parties, with who brings each; ``nobody`` are names that were to be disabled and
    that no plugin has.
    """

    def __init__(self, found: Iterable[EntryPoint], *, disabled: frozenset[str] = frozenset()) -> None:
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)
        self.plugins: list[Plugin] = []
        self.formats: dict[str, Format] = {}
        self.commands: dict[str, str] = {}
        self._providers: dict[str, str] = {}
        self._ours: set[str] = set()
        self._with_commands: set[str] = set()  # plugins that have the hook
        self._types: dict[str, UnifiedType | None] = {}  # as they came through the door
        for entry_point in found:
            self._admit(entry_point, disabled)
        self.nobody = tuple(sorted(disabled - {plugin.name for plugin in self.plugins}))

    def __getitem__(self, name: str) -> Format:
        try:
            return self.formats[name]
        except KeyError:
            raise unknown_name("format", name, self.formats, "spec-convert formats") from None

    def provider(self, name: str) -> str:
        """Which distribution brought the format, e.g. ``spec-convert 0.1.0``."""
        return self._providers[name]

    @property
    def unusable(self) -> list[Plugin]:
        """The plugins that could not be used although nobody left them out."""
        return [plugin for plugin in self.plugins if plugin.error and not plugin.disabled]

    @property
    def types(self) -> list[str]:
        """Every `speculators_model_type` that some format produces."""
        return sorted({fmt.produces for fmt in self.formats.values() if fmt.produces})

    @property
    def targets(self) -> list[str]:
        """Everything that unified drafts of some type can be written for."""
        return sorted({way.target for fmt in self.formats.values() for way in fmt.exports})

    def exporters(self, kind: str) -> dict[str, tuple[Format, Export]]:
        """The ways to write unified drafts of this type natively, by the name of their target."""
        ways = ((fmt, way) for fmt in self.formats.values() for way in fmt.exports)
        return {way.target: (fmt, way) for fmt, way in ways if way.of == kind}

    def add_commands(self, cli: Any) -> None:
        """Let every plugin add its verbs. One that cannot is a row with its reason, as one that cannot be loaded."""
        everybody = self._manager.get_plugins()
        for number, plugin in enumerate(self.plugins):
            if plugin.name not in self._with_commands:
                continue
            others = everybody - {self._manager.get_plugin(plugin.name)}
            before, error = set(getattr(cli, "commands", ())), plugin.error
            try:
                self._manager.subset_hook_caller("spec_convert_commands", others)(cli=cli)
            except (Exception, SystemExit) as reason:
                error = _in_words(reason)
            added = sorted(set(getattr(cli, "commands", ())) - before)
            self.plugins[number] = replace(plugin, error=error, commands=tuple(added))
            if plugin.name not in self._ours:
                self.commands |= dict.fromkeys(added, plugin.origin)
            trace(f"plugin {plugin.name}: spec_convert_commands added {', '.join(added) or 'nothing'}{_but(error)}")

    def _admit(self, entry_point: EntryPoint, disabled: frozenset[str]) -> None:
        name = entry_point.name
        origin = _name_of(entry_point.dist) if entry_point.dist else entry_point.value
        if name in disabled:
            self._leave_out(Plugin(name=name, origin=origin, error=f"disabled by {DISABLE}", disabled=True))
            return
        trace(f"plugin {name} (from {origin}): loading {entry_point.value}")
        try:
            formats, commands = self._load(entry_point)
        except (Exception, SystemExit) as reason:  # a plugin may raise anything at all: its row says what
            self._leave_out(Plugin(name=name, origin=origin, error=_in_words(reason)))
            return
        self._types |= {fmt.produces: fmt.own_type for fmt in formats.values()}
        if _is_ours(entry_point):
            self._ours.add(name)
        else:
            formats = {key: watched(fmt, origin) for key, fmt in formats.items()}
        self.formats |= formats
        self._providers |= dict.fromkeys(formats, origin)
        if commands:
            self._with_commands.add(name)
        self.plugins.append(Plugin(name=name, origin=origin, formats=tuple(formats)))

    def _leave_out(self, plugin: Plugin) -> None:
        trace(f"plugin {plugin.name} (from {plugin.origin}): left out: {plugin.error}")
        self.plugins.append(plugin)

    def _load(self, entry_point: EntryPoint) -> tuple[Mapping[str, Format], bool]:
        """Register one plugin and ask it for its formats; leaves nothing behind when it raises."""
        if self._manager.get_plugin(entry_point.name) is not None:
            raise ValueError(f"the plugin name `{entry_point.name}` is taken")
        plugin = entry_point.load()
        try:
            self._manager.register(plugin, entry_point.name)
            self._manager.check_pending()  # a misspelt hook would otherwise never be called, without a word
            hooks = self._hooks_of(plugin)
            formats = _by_name(plugin.spec_convert_formats()) if "spec_convert_formats" in hooks else {}
            trace(f"plugin {entry_point.name}: its hooks are {', '.join(sorted(hooks))}; {_brings(formats)}")
            if taken := sorted(formats.keys() & self.formats.keys()):
                raise ValueError(f"the format name `{taken[0]}` is taken by {self._providers[taken[0]]}")
            _refuse_double_exports([*self.formats.values(), *formats.values()])
            self._refuse_double_types(formats.values())
        except BaseException:
            if self._manager.has_plugin(entry_point.name):
                self._manager.unregister(name=entry_point.name)
            raise
        return formats, "spec_convert_commands" in hooks

    def _refuse_double_types(self, formats: Iterable[Format]) -> None:
        """A unified type has one model. Formats of several plugins may produce it by equal `UnifiedType`s."""
        types = dict(self._types)
        for fmt in formats:
            if types.setdefault(fmt.produces, fmt.own_type) != fmt.own_type:
                message = f"`{fmt.name}` describes the unified type `{fmt.produces}`, which another format does already"
                raise ValueError(f"{message}, in other words")

    def _hooks_of(self, plugin: Any) -> set[str]:
        """The hooks of a registered plugin. Raises ValueError when there are none, or one would never be called."""
        hooks = {caller.name for caller in self._manager.get_hookcallers(plugin) or ()}
        meant = {name for name in dir(plugin) if name.startswith("spec_convert_") and callable(getattr(plugin, name))}
        if unmarked := sorted(meant - hooks):
            raise ValueError(f"`{unmarked[0]}` is not marked with @hookimpl")
        if not hooks:
            raise ValueError("it has no hook: neither spec_convert_formats nor spec_convert_commands")
        return hooks


def _by_name(formats: Iterable[object]) -> dict[str, Format]:
    named: dict[str, Format] = {}
    for fmt in map(require_format, formats):
        if fmt.name in named:
            raise ValueError(f"it brings two formats named `{fmt.name}`")
        named[fmt.name] = fmt
    return named


def _refuse_double_exports(formats: Iterable[Format]) -> None:
    """One layout for one target: which of two would be written must not depend on the order of plugins."""
    writers: dict[tuple[str, str], str] = {}
    for fmt in formats:
        for way in fmt.exports:
            if other := writers.get((way.target, way.of)):
                message = f"`{fmt.name}` exports `{way.of}` to `{way.target}`, which `{other}` does already"
                raise ValueError(f"{message}; a format made with `replace` needs `exports=()`")
            writers[way.target, way.of] = fmt.name


def _brings(formats: Iterable[str]) -> str:
    return f"it brings {', '.join(formats)}" if formats else "it brings no format"


def _but(failure: str | None) -> str:
    return f", then failed: {failure}" if failure else ""


def _in_words(reason: BaseException) -> str:
    return f"{type(reason).__name__}: {reason}"


@cache
def registry() -> Registry:
    """The plugins that are installed here, without those that the environment switches off."""
    require_installed()
    found = entry_points(group=hookspecs.GROUP)
    disabled = frozenset(name.strip() for name in os.environ.get(DISABLE, "").split(",") if name.strip())
    # Built-ins come first, so that a third party that takes one of their names is the one left out.
    return Registry(sorted(found, key=lambda e: (not _is_ours(e), e.name, e.value)), disabled=disabled)


@cache
def _name_of(package: Distribution) -> str:
    """With its version. Both are read from a file that may hold a whole README: once is enough for all its plugins."""
    about = package.metadata
    return f"{about['Name']} {about['Version']}"


def _is_ours(entry_point: EntryPoint) -> bool:
    return entry_point.value.startswith("spec_convert.")
