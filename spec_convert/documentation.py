"""The pages under `docs/` that are made of the code itself: the verbs' help, the catalogue of rules, the formats.

So is the README's table of formats, which stands between two comments.

They say what this repository brings, whatever else is installed: plugins of other packages are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import click

from spec_convert.cli import cli
from spec_convert.cli.convert import convert
from spec_convert.cli.export import Target
from spec_convert.cli.formats import becomes, story, table_lines
from spec_convert.formats import Format
from spec_convert.hookspecs import GROUP
from spec_convert.registry import Registry
from spec_convert.rules import AREAS

OURS = "spec-convert"
WIDTH = 78  # what click gives a terminal of 80 columns
GENERATED = "<!-- Made of the code by `make docs`: change it there. -->"
BEGIN, END = "<!-- formats: made of the code by `make docs` -->", "<!-- end of formats -->"
# Outside of `code`, what Markdown would take for its own.
ACTIVE = re.compile(r"(`[^`]*`)|([\\*<>\[\]|])")


def ours() -> Registry:
    """The built-in plugins and no others; what the environment switches off is there too."""
    return Registry(point for point in entry_points(group=GROUP) if point.dist and point.dist.name == OURS)


def commands() -> str:
    """`docs/commands.md`: what `--help` prints, of the group and of every verb."""
    group = _group()
    verbs = sorted(group.commands.items())
    contents = "\n".join(f"- [`{name}`](#{name}): {verb.short_help}" for name, verb in verbs)
    help_texts = [_titled(name, _help(verb, f"{OURS} {name}")) for name, verb in verbs]
    intro = "What `spec-convert VERB --help` prints."
    return _page("Commands", intro, contents, _titled(OURS, _help(group, OURS)), *help_texts)


def rules() -> str:
    """`docs/rules.md`: the catalogue, by area. A rule's code is its anchor."""
    counts = "\n".join(f"- [{_name(area)}](#{_name(area).lower()}): {_about(area)}" for area in AREAS)
    intro = (
        "Every finding names its rule, and `spec-convert explain RULE` prints what stands here. An *error* refuses\n"
        "the checkpoint, a *warning* and a *note* do not."
    )
    return _page("Rules", intro, counts, *map(_area, AREAS))


def formats() -> str:
    """`docs/formats.md`: the story of every built-in format, and its tables as `spec-convert formats` prints them."""
    known = _known()
    intro = (
        "The layouts that the built-in plugins read; `spec-convert formats` lists them together with those of other\n"
        "plugins, and `spec-convert formats NAME` prints what stands here. The tables are written in the\n"
        "language that [plugins.md](plugins.md#the-table-language) explains."
    )
    rows = [f"| [`{f.name}`](#{f.name}) | {f.title} | {_becomes(f)} | {_written_for(f)} |" for f in known]
    listing = "\n".join(["| name | what | becomes | written by `export --to` |", "|---|---|---|---|", *rows])
    first: dict[object, str] = {}  # dialects share tables, and files of several formats a story: each is printed once
    return _page("Formats", intro, listing, *(_format(fmt, first) for fmt in known))


PAGES: Mapping[str, Callable[[], str]] = {"commands.md": commands, "formats.md": formats, "rules.md": rules}


def completed(readme: str) -> str:
    """``readme`` with its table of the formats that are converted. Raises ValueError when it has no place for one."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no place for the formats: it is between `{BEGIN}` and `{END}`")
    rows = [
        f"| [`{f.name}`](docs/formats.md#{f.name}) | {f.title} | {_becomes(f)} | {_targets(f)} |"
        for f in _known()
        if not f.unconverted
    ]
    table = "\n".join(["| name | what | becomes | `export --to` |", "|---|---|---|---|", *rows])
    return f"{before}{begin}\n{table}\n{end}{after}"


def write_all(folder: Path) -> None:
    """Write every page into ``folder``, as `docs/` keeps them."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([GENERATED, f"# {title}", *parts]) + "\n"


def _titled(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text}\n```"


def _group() -> click.Group:
    """Our verbs and those of the built-in plugins. The group that users call may know more by now."""
    known = ours()
    built_in = {name: verb for name, verb in cli.commands.items() if _module(verb).startswith("spec_convert.cli.")}
    group = click.Group(OURS, built_in, help=cli.help, params=cli.params)
    known.add_commands(group)
    for name, verb in group.commands.items():
        group.commands[name] = _fixed(verb, known.targets)
    return group


def _module(verb: click.Command) -> str:
    return getattr(verb.callback, "__module__", "")


def _fixed(verb: click.Command, targets: list[str]) -> click.Command:
    """The same verb with nothing in its help that depends on which plugins are installed."""
    fixed = copy(verb)
    fixed.params = [copy(param) for param in verb.params]
    vars(fixed)["_help_option"] = None  # click makes it once, with the names that the first context of all gave it
    for param in fixed.params:
        if isinstance(param.type, Target):
            param.metavar = f"[{'|'.join(targets)}]"
    return fixed


def _help(command: click.Command, name: str) -> str:
    return command.get_help(click.Context(command, info_name=name, terminal_width=WIDTH, **cli.context_settings))


def _name(area: ModuleType) -> str:
    return area.__name__.rpartition(".")[2].capitalize()


def _about(area: ModuleType) -> str:
    first = " ".join((area.__doc__ or "").partition("\n\n")[0].split())
    return plain(first.removeprefix("Rules about ").rstrip("."))


def _area(area: ModuleType) -> str:
    entries = [
        f"### {rule.code}\n\n*{rule.level.capitalize()}.* {plain(rule.says)}.\n\n"
        f"Why it matters: {plain(rule.why)}.\n\nWhat to do: {plain(rule.do)}."
        for rule in area.RULES
    ]
    about = _about(area)
    return "\n\n".join([f"## {_name(area)}", f"{about[0].upper()}{about[1:]}.", *entries])


def _format(fmt: Format, first: dict[object, str]) -> str:
    facts = [f"{fmt.title}: {'' if fmt.unconverted else 'becomes '}{_becomes(fmt)}. {fmt.reference}"]
    if shown := first.get(told := story(fmt)):
        facts.append(f"Its story is that of [`{shown}`](#{shown}).")
    else:
        first[told] = fmt.name
        facts.append(told)
    if fmt.unconverted:
        facts.append(f"Why: {plain(fmt.unconverted.because)}.\n\nInstead: {plain(fmt.unconverted.instead)}.")
    if flags := list(_options(fmt)):
        facts.append(f"Heeds {', '.join(flags)}.")
    if shown := first.get(id(fmt.tables)):
        facts.append(f"Its tables are those of [`{shown}`](#{shown}).")
    elif fmt.tables:
        first[id(fmt.tables)] = fmt.name
        facts.append("```text\n{}\n```".format("\n".join(table_lines(fmt)).strip("\n")))
    return "\n\n".join([f"## {fmt.name}", *facts])


def _known() -> list[Format]:
    return sorted(ours().formats.values(), key=lambda fmt: fmt.name)


def _targets(fmt: Format) -> str:
    return ", ".join(dict.fromkeys(f"`{way.target}`" for way in fmt.exports))


def _becomes(fmt: Format) -> str:
    return f"`{fmt.produces}`" if fmt.produces else becomes(fmt)


def _written_for(fmt: Format) -> str:
    return ", ".join(f"`{way.target}` (of `{way.of}`)" for way in fmt.exports)


def _options(fmt: Format) -> Iterator[str]:
    """The flags of `convert` that the format heeds, as they are typed."""
    for option in convert.params:
        if option.name in fmt.flags:
            yield "`{}`".format("/".join([*option.opts, *option.secondary_opts]))


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return ACTIVE.sub(lambda found: found[1] or f"\\{found[2]}", text)


if __name__ == "__main__":
    docs, *others = map(Path, sys.argv[1:])
    write_all(docs)
    for other in others:
        other.write_text(completed(other.read_text(encoding="utf-8")), encoding="utf-8")
