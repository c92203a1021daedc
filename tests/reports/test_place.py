"""Findings point to a path that CI can open, and to the tensor or key in it."""

from __future__ import annotations

import pytest

from spec_convert.reports.place import Place, place


@pytest.mark.parametrize(
    ("source", "where", "path", "name"),
    [
        ("drafts/a", "config.json", "drafts/a/config.json", None),
        ("drafts/a", "config.json: rope_theta", "drafts/a/config.json", "rope_theta"),
        ("drafts/a", "model.safetensors.index.json", "drafts/a/model.safetensors.index.json", None),
        ("drafts/a/", "fc.weight", "drafts/a", "fc.weight"),
        ("drafts/a", "drafts/a", "drafts/a", None),
        (".", "config.json", "config.json", None),
        ("drafts/a/model.safetensors", "fc.weight", "drafts/a/model.safetensors", "fc.weight"),
        ("drafts/a/model.safetensors", "model.safetensors", "drafts/a/model.safetensors", None),
        ("drafts/a/model.safetensors", "config.json", "drafts/a/config.json", None),
        ("hf://org/name@main", "config.json", "hf://org/name@main/config.json", None),
    ],
)
def test_source_and_where_make_a_place(source, where, path, name):
    assert place(source, where) == Place(path=path, name=name)


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("drafts/a", "drafts/a"),
        ("my drafts/ä#1", "my%20drafts/%C3%A4%231"),
        ("c:/drafts", "c%3A/drafts"),
        ("/drafts/a", "file:///drafts/a"),
        ("hf://org/name@main", "hf://org/name@main"),
    ],
)
def test_a_place_has_a_uri(source, uri):
    assert place(source, "fc.weight").uri == uri
