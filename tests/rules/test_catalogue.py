"""The catalogue and the code agree: every rule that can be reported is explained, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from spec_convert.findings import Level, Rule
from spec_convert.rules import RULES, found

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
# Where the rule stands among the arguments of the functions that report one.
REPORTERS = {"found": 0, "unreadable": 0, "_refuse": 0, "_small": 3}
LOWER_CASE = ("config.json", "d2t", "t2d", "vLLM")  # names that are written so
EVERY_RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("spec_convert", "plugins", "training"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def reported(node: ast.AST) -> ast.expr | None:
    """The expression for the rule that this piece of code reports, if it reports one."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=args) if name in REPORTERS and len(args) > REPORTERS[name]:
            return args[REPORTERS[name]]
        case ast.keyword(arg="rule", value=value):
            return value
        case ast.Assign(targets=[ast.Name(id="RULE")], value=value):
            return value
        case ast.Tuple(elts=[ast.Constant(value=str(code)) as first, _, _]) if CODE.fullmatch(code):
            return first  # rule, message and hint: how the Hub's errors are explained
    return None


def reports() -> Iterator[tuple[Path, ast.expr]]:
    for path, tree in modules():
        for node in ast.walk(tree):
            if (expression := reported(node)) is not None:
                yield path, expression


def test_every_rule_that_is_reported_is_in_the_catalogue() -> None:
    codes = {(path.name, e.value) for path, e in reports() if isinstance(e, ast.Constant)}
    assert len(codes) > 50
    assert [(name, code) for name, code in sorted(codes) if code not in RULES] == []


def test_every_rule_in_the_catalogue_is_reported_somewhere() -> None:
    codes = {expression.value for _, expression in reports() if isinstance(expression, ast.Constant)}
    assert sorted(RULES.keys() - codes) == []


def test_no_rule_is_put_together_at_run_time() -> None:
    """Only then can the two tests above see all of them: a rule is a literal, RULE, or handed on under its own name."""
    names = {"rule", "RULE", "entry.code"}
    assert [
        f"{path.name}:{expression.lineno}"
        for path, expression in reports()
        if not isinstance(expression, ast.Constant) and ast.unparse(expression) not in names
    ] == []


def messages() -> Iterator[tuple[Path, ast.expr]]:
    """What is written as `message=…` or `message = …`, and the third argument of `unreadable`."""
    for path, tree in modules():
        for node in ast.walk(tree):
            match node:
                case ast.keyword(arg="message", value=text) | ast.Assign(targets=[ast.Name(id="message")], value=text):
                    yield path, text
                case ast.Call(func=ast.Name(id="unreadable" | "_refuse"), args=[_, _, text, *_]):
                    yield path, text


def test_no_message_ends_with_a_full_stop() -> None:
    """Renderers go on after a message: with its rule in brackets, with the hint in another cell."""
    ends = [
        (path.name, text.lineno, text.values[-1] if isinstance(text, ast.JoinedStr) else text)
        for path, text in messages()
    ]
    literal = [(name, line, end.value) for name, line, end in ends if isinstance(end, ast.Constant)]
    assert len(literal) > 50
    assert [(name, line) for name, line, end in literal if end.endswith(".")] == []


@EVERY_RULE
def test_a_rule_is_written_in_the_style_of_the_house(rule: Rule) -> None:
    assert CODE.fullmatch(rule.code)
    for sentence in (rule.says, rule.why, rule.do):
        assert sentence == sentence.strip()
        assert not sentence.endswith((".", "!", ":", ","))
        assert sentence[0].isupper() or sentence.startswith(LOWER_CASE)
    assert len(rule.says) <= 100, "a rule is named in one line"


@EVERY_RULE
def test_an_error_always_says_what_to_do(rule: Rule) -> None:
    assert rule.level is not Level.ERROR or not rule.do.startswith("Nothing")


def test_a_note_asks_for_nothing_that_must_be_done() -> None:
    urgent = [
        rule.code for rule in RULES.values() if rule.level is Level.NOTE and rule.do.startswith(("Ask", "Correct"))
    ]
    assert urgent == []


def test_no_two_rules_say_the_same() -> None:
    said = [rule.says for rule in RULES.values()]
    assert sorted(said) == sorted(set(said))


def test_a_finding_has_the_level_of_its_rule() -> None:
    finding = found("rope-theta-absent", where="config.json", message="has none", hint="give one")
    assert (finding.level, finding.where, finding.message, finding.hint) == (
        "note",
        "config.json",
        "has none",
        "give one",
    )


def test_a_finding_of_an_unknown_rule_is_a_mistake_of_the_code() -> None:
    with pytest.raises(KeyError, match="no-such-rule"):
        found("no-such-rule", where="", message="")
