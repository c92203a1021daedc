"""The page of an evaluation says what was measured, in figures and in words, and a hostile name stays a name."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from spec_convert.evaluation.measured import Measured, Speed
from spec_convert.evaluation.page import page
from spec_convert.reports.escape import one_line

from ..page_reader import Reader
from .sample import EVERY, GREEDY, HOSTILE, NOTHING, SAMPLED, TIE, UNDER_ATTACK, WRONG

every = pytest.mark.parametrize("measured", EVERY.values(), ids=EVERY.keys())


def main(measured: Measured) -> ET.Element:
    """Inside it every element is closed, so that it is XML as well."""
    html = page(measured)
    return ET.fromstring(html[html.index("<main>") : html.index("</main>") + len("</main>")])


def text(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def tile(measured: Measured, name: str) -> tuple[str, str]:
    """The figure of a headline, and what stands below it."""
    (found,) = (tile for tile in main(measured).iterfind(".//dl[@class='tiles']/div") if text(tile[0]).startswith(name))
    return text(found[1][0]), text(found[2])


def rows(measured: Measured, title: str) -> list[list[str]]:
    (table,) = (table for table in main(measured).iter("table") if table.get("aria-label") == title)
    return [[text(cell) for cell in row] for row in table.iterfind("tbody/tr")]


def charts(measured: Measured) -> list[str]:
    return [text(svg[0]) for svg in main(measured).iter("svg") if svg.get("role") == "img"]


def figures(measured: Measured) -> str:
    return " ".join(text(figure) for figure in main(measured).iter("figure"))


@every
def test_the_page_is_well_formed(measured: Measured) -> None:
    reader = Reader(page(measured))
    assert (reader.open, reader.misplaced) == ([], [])


@every
def test_the_page_points_to_nothing_outside_itself(measured: Measured) -> None:
    tags = Reader(page(measured)).tags
    assert not {"link", "img", "iframe", "object", "base", "use", "a"} & {tag for tag, _ in tags}
    assert not {"src", "href", "xlink:href", "style"} & {name for _, attributes in tags for name in attributes}
    assert [attributes["type"] for tag, attributes in tags if tag == "script"] == ["application/json"]
    css = page(measured).partition("<style>")[2].partition("</style>")[0]
    assert "--series-1" in css
    assert not any(word in css for word in ("url(", "@import", "@font-face"))


@every
def test_the_page_carries_the_json_of_the_evaluation(measured: Measured) -> None:
    (script,) = Reader(page(measured)).scripts
    assert json.loads(script) == measured.to_json()


def test_numbers_that_json_does_not_have_are_carried_as_text_and_leave_a_gap_in_the_chart() -> None:
    broken = replace(GREEDY, alpha=(float("nan"), 0.5, 0.4))
    (script,) = Reader(page(broken)).scripts
    assert json.loads(script)["alpha"] == ["nan", 0.5, 0.4]
    assert [row[4] for row in rows(broken, "Acceptance by position")] == ["nan%", "50.0%", "40.0%"]
    marks = [sum(group.get("class") == "series-3" for group in main(one).iter("g")) for one in (GREEDY, broken)]
    assert marks == [3, 2]


def test_the_headline_figures_are_those_that_were_measured() -> None:
    tau, note = tile(GREEDY, "Acceptance length")
    assert (tau, note) == ("1.98", "per verifier pass, its own token included; at most 4")
    assert GREEDY.mean_acceptance_length == pytest.approx(1 + (791 + 417 + 208) / 1438)
    assert tile(GREEDY, "Speed with the draft") == ("46.6", "the verifier alone: 30.7 tokens/s")
    assert tile(GREEDY, "Speed-up") == ("1.52\N{MULTIPLICATION SIGN}", "times as fast as the verifier alone")


def test_a_draft_that_slows_down_is_said_to() -> None:
    slow = replace(GREEDY, verifier_alone=Speed(tokens=2854, seconds=30.65))
    assert tile(slow, "Speed-up") == ("0.50\N{MULTIPLICATION SIGN}", "slower than the verifier alone")


@pytest.mark.parametrize(
    ("differences", "verdict", "words"),
    [
        ((), "Lossless", "24 of 24 answers equal to the verifier's own, token by token"),
        (
            (TIE,),
            "Lossless",
            "23 of 24 answers equal to the verifier's own, token by token; 1 parted at a numerical tie",
        ),
        ((WRONG,), "Not lossless", "1 of 24 answers parted from the verifier's own"),
        ((TIE, WRONG), "Not lossless", "1 of 24 answers parted from the verifier's own; 1 parted at a numerical tie"),
    ],
)
def test_the_verdict_counts_ties_apart(differences: tuple, verdict: str, words: str) -> None:
    assert tile(replace(GREEDY, differences=differences), "Text") == (verdict, words)


def test_the_tables_hold_the_numbers_of_the_charts() -> None:
    assert rows(GREEDY, "Acceptance by position") == [
        ["1", "791", "55.0%", "55.0%", "53.8%"],
        ["2", "417", "29.0%", "52.7%", "51.3%"],
        ["3", "208", "14.5%", "49.9%", "48.8%"],
    ]
    assert rows(GREEDY, "Accepted tokens per draft") == [
        ["0", "647", "45.0%"],
        ["1", "374", "26.0%"],
        ["2", "209", "14.5%"],
        ["3", "208", "14.5%"],
    ]
    assert rows(GREEDY, "Speed") == [
        ["With the draft", "2,854", "61.30", "46.6"],
        ["Verifier alone", "2,853", "92.90", "30.7"],
    ]
    assert len(charts(GREEDY)) == 3


def test_a_difference_shows_both_tokens_and_as_many_digits_of_their_logits_as_tell_them_apart() -> None:
    both = replace(GREEDY, differences=(TIE, WRONG))
    assert rows(both, "First difference of each answer that has one") == [
        ["3", "41", "338", "284", "17.340281 and 17.340284", "3e-06", "tie"],
        ["11", "7", "28", "end of answer", "none", "none", "different"],
    ]


def test_what_was_not_measured_is_said_in_words_and_not_drawn() -> None:
    assert [title.partition(":")[0] for title in charts(SAMPLED)] == [
        "Acceptance by position",
        "Accepted tokens per draft",
    ]
    assert tile(SAMPLED, "Speed-up") == ("Not measured", "the verifier alone was not run")
    assert tile(SAMPLED, "Text")[0] == "Not compared"
    assert "temperature 0.7" in tile(SAMPLED, "Text")[1]
    assert [row[4] for row in rows(SAMPLED, "Acceptance by position")] == ["not measured"] * 3
    assert rows(SAMPLED, "Speed")[1] == ["Verifier alone", "not run", "not run", "not run"]
    said = figures(SAMPLED)
    assert "Alpha was not measured" in said
    assert "With the draft: 46.6 tokens/s" in said
    assert "min(p, q)" not in said


def test_greedy_answers_that_nothing_was_run_against_are_not_called_lossless() -> None:
    unchecked = replace(GREEDY, verifier_alone=None, differences=None)
    assert tile(unchecked, "Text") == ("Not compared", "the verifier alone was not run")


def test_a_position_that_no_draft_reached_has_no_conditional_share() -> None:
    hopeless = replace(GREEDY, accepted=(0, 0, 0), alpha=(0.01, None, None))
    assert [row[2:] for row in rows(hopeless, "Acceptance by position")] == [
        ["0.0%", "0.0%", "1.0%"],
        ["0.0%", "no draft", "no draft"],
        ["0.0%", "no draft", "no draft"],
    ]


def test_an_evaluation_without_a_single_draft_draws_nothing_and_says_so() -> None:
    assert charts(NOTHING) == []
    assert tile(NOTHING, "Acceptance length") == ("None", "no draft was verified")
    assert tile(NOTHING, "Speed-up") == ("Not measured", "the verifier alone wrote nothing")
    assert "No draft was verified" in figures(NOTHING)


def test_how_it_was_measured_names_everything_that_the_figures_depend_on() -> None:
    facts = {text(row[0]): text(row[1]) for row in main(GREEDY).iterfind(".//dl[@class='facts']/div")}
    assert facts == {
        "Draft": GREEDY.draft,
        "Verifier": GREEDY.verifier,
        "Engine": "transformers",
        "Prompts": "20, with 24 answers",
        "Drafted per verifier pass": "3 tokens (K)",
        "Drafts verified": "1,438",
        "Decoding": "greedy (temperature 0)",
        "Versions": "spec_convert 0.1.0, torch 2.13.0",
    }


def test_a_hostile_name_is_shown_as_it_is_and_adds_no_element() -> None:
    html = page(UNDER_ATTACK)
    assert html.encode("utf-8")
    assert [tag for tag, _ in Reader(html).tags] == [tag for tag, _ in Reader(page(GREEDY)).tags]
    (heading,) = main(UNDER_ATTACK).iter("h1")
    assert heading.text == one_line(HOSTILE)
    assert {char for char in html if not char.isprintable()} == {"\n"}
