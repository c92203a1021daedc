"""HTML and SVG as trees: what a stranger wrote cannot leave its place, because no markup is ever glued together."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

from spec_convert.reports.escape import finite, one_line

Element = ET.Element
Node = ET.Element | str


def element(tag: str, *children: Node, **attributes: str | float) -> Element:
    """``element("a", "text", href="#x", class_="y")``. An underscore in an attribute stands for a hyphen."""
    made = ET.Element(tag, {_name(key): one_line(str(value)) for key, value in attributes.items()})
    for child in children:
        if isinstance(child, ET.Element):
            made.append(child)
        else:
            _add_text(made, one_line(child))
    return made


def style(css: str) -> Element:
    made = ET.Element("style")
    made.text = css
    return made


def data(identity: str, value: Any) -> Element:
    """``value`` as JSON in a script element that no browser runs; ``JSON.parse`` of its text gives it back.

    The one element whose text HTML does not escape, so JSON's own escapes keep ``</script>`` and ``<!--`` out of it.
    """
    made = element("script", type="application/json", id=identity)
    text = json.dumps(finite(value), allow_nan=False)
    made.text = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return made


def to_html(tree: Element) -> str:
    return ET.tostring(tree, encoding="unicode", method="html")


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _add_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
