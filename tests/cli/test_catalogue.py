"""`formats`, `explain`, `schema`: what the program knows, listed and looked up."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from spec_convert.cli.formats import story
from spec_convert.published import SCHEMAS
from spec_convert.registry import registry
from spec_convert.rules import RULES


def test_formats_lists_every_format_with_who_brings_it(cli: Any) -> None:
    lines = cli("formats").out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == sorted(registry().formats)
    assert all("spec-convert" in line for line in lines)


@pytest.mark.parametrize("name", sorted(registry().formats))
def test_each_format_tells_its_story_and_shows_its_tables(cli: Any, name: str) -> None:
    fmt = registry()[name]
    text, answer = cli("formats", name).out, cli("formats", name, "--json").json
    assert text.startswith(f"{name}: {fmt.title}\n")
    assert answer["story"]
    assert answer["story"] in text
    assert set(answer["tables"]) == {title or "tensors" for title in fmt.tables}
    assert all(isinstance(row["source"], list) for table in answer["tables"].values() for row in table)


def test_a_format_that_is_recognised_by_a_partial_tells_its_own_story() -> None:
    eagle = registry()["eagle"]
    assert story(replace(eagle, recognise=partial(partial(eagle.recognise)))) == story(eagle) != ""


def test_formats_as_json_lists_the_same(cli: Any) -> None:
    assert {fmt["name"] for fmt in cli("formats", "--json").json} == set(registry().formats)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_is_explained(cli: Any, rule: str) -> None:
    text = cli("explain", rule).out
    assert text.startswith(f"{rule} ({RULES[rule].level})\n")
    assert RULES[rule].why in text
    assert RULES[rule].do in text
    assert ".." not in text.replace("...", "")


def test_explain_lists_all_rules(cli: Any) -> None:
    assert [line.split()[0] for line in cli("explain").out.splitlines()[1:]] == list(RULES)
    assert [rule["code"] for rule in cli("explain", "--json").json] == list(RULES)


def test_a_rule_as_json_has_all_its_parts(cli: Any) -> None:
    assert set(cli("explain", "not-finite", "--json").json) == {"code", "level", "says", "why", "do"}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_each_schema_is_a_schema_and_the_one_that_is_published(cli: Any, name: str) -> None:
    schema = cli("schema", name).json
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == json.loads((files("spec_convert.schemas") / f"{name}.json").read_text())


def test_schema_lists_the_names(cli: Any) -> None:
    assert cli("schema").out.split() == sorted(SCHEMAS) == cli("schema", "--json").json


@pytest.mark.parametrize(
    ("command", "typo", "meant"),
    [("formats", "eagel3", "eagle3"), ("explain", "mising-tensor", "missing-tensor"), ("schema", "egle3", "eagle3")],
)
def test_a_misspelt_name_is_answered_with_the_nearest(cli: Any, command: str, typo: str, meant: str) -> None:
    ran = cli(command, typo)
    assert (ran.code, ran.out) == (2, "")
    assert f"did you mean `{meant}`?" in ran.err
    assert f"`spec-convert {command}` lists all of them" in ran.err


def test_a_name_like_no_other_is_answered_with_where_to_look(cli: Any) -> None:
    assert "hint: `spec-convert explain` lists all of them" in cli("explain", "zzz").err


def test_a_misspelt_command_is_answered_with_the_nearest(cli: Any) -> None:
    ran = cli("detct")
    assert ran.code == 2
    assert "Did you mean 'detect'?" in ran.err
