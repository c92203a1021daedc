"""What an evaluation found as one HTML page: headline figures, charts, tables, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterator

from spec_convert.evaluation.measured import Difference, Measured, Speed
from spec_convert.reports.charts import Axis, Series, bars, columns, legend
from spec_convert.reports.markup import Element, element
from spec_convert.reports.page import (
    Tone,
    document,
    facts,
    figure,
    header,
    paragraph,
    section,
    side_by_side,
    table,
    tile,
    tiles,
)

NO_DRAFTS = "No draft was verified: every answer ended before the first one, or there were no answers."
ALPHA = "Alpha: how much of its probability the draft shares with the verifier."
NO_ALPHA = "Alpha was not measured: this engine does not show the probabilities that it compares."
DATA = "measured"
RUNS = ("With the draft", "Verifier alone")


def page(measured: Measured) -> str:
    """One self-contained page; the document of ``to_json`` is inside it, in the element ``measured``."""
    return document(
        f"{measured.draft}, drafting for {measured.verifier}",
        header("Speculative decoding, measured", measured.draft, f"drafting for {measured.verifier}"),
        tiles(*headline(measured)),
        *sections(measured),
        element(
            "footer",
            paragraph("Written by spec-convert evaluate. The page loads nothing from anywhere."),
            paragraph(f'It carries its numbers as JSON in the element "{DATA}": what evaluate --json prints.'),
        ),
        carries=(DATA, measured.to_json()),
    )


def headline(measured: Measured) -> tuple[Element, ...]:
    """The tiles of an evaluation, for any page that shows one."""
    return _acceptance_length(measured), _speed(measured), _speedup(measured), _text(measured)


def sections(measured: Measured) -> tuple[Element, ...]:
    """All that is shown of an evaluation below its headline, for any page that shows one."""
    return (
        section("Acceptance and speed", side_by_side(_positions(measured), _lengths(measured), _speeds(measured))),
        section("The same in numbers", side_by_side(*_tables(measured))),
        section("Is it the verifier's text?", *_differences(measured)),
        section("How it was measured", facts(_how(measured))),
    )


def _acceptance_length(measured: Measured) -> Element:
    most = measured.speculative_tokens + 1
    note = f"per verifier pass, its own token included; at most {most}"
    name = "Acceptance length \N{GREEK SMALL LETTER TAU}"
    if not measured.drafts:
        return tile(name, "None", "", "no draft was verified")
    return tile(name, f"{measured.mean_acceptance_length:.2f}", "tokens", note)


def _speed(measured: Measured) -> Element:
    alone = measured.verifier_alone
    note = f"the verifier alone: {_rate(alone.tokens_per_second)}" if alone else "the verifier alone was not run"
    return tile("Speed with the draft", f"{measured.with_draft.tokens_per_second:,.1f}", "tokens/s", note)


def _speedup(measured: Measured) -> Element:
    if measured.speedup is None:
        return tile("Speed-up", "Not measured", "", _why_no_speedup(measured))
    slower = measured.speedup < 1
    note = "slower than the verifier alone" if slower else "times as fast as the verifier alone"
    return tile(
        "Speed-up", f"{measured.speedup:.2f}\N{MULTIPLICATION SIGN}", "", note, tone="bad" if slower else "plain"
    )


def _why_no_speedup(measured: Measured) -> str:
    return "the verifier alone was not run" if measured.verifier_alone is None else "the verifier alone wrote nothing"


def _text(measured: Measured) -> Element:
    verdicts: dict[bool | None, tuple[str, Tone]] = {
        None: ("Not compared", "plain"),
        True: ("Lossless", "good"),
        False: ("Not lossless", "bad"),
    }
    name, tone = verdicts[measured.lossless]
    return tile("Text", name, "", _verdict(measured), tone=tone)


def _verdict(measured: Measured) -> str:
    if measured.differences is None:
        return _why_not_compared(measured)
    ties = sum(difference.tie for difference in measured.differences)
    wrong = len(measured.differences) - ties
    all_answers = _count(measured.answers, "answer")
    tied = f"; {ties:,} parted at a numerical tie" if ties else ""
    if wrong:
        return f"{wrong:,} of {all_answers} parted from the verifier's own{tied}"
    return f"{measured.answers - ties:,} of {all_answers} equal to the verifier's own, token by token{tied}"


def _why_not_compared(measured: Measured) -> str:
    if measured.temperature > 0:
        return f"sampled at temperature {measured.temperature:g}: two runs differ with or without a draft"
    if measured.verifier_alone is None:
        return "the verifier alone was not run"
    return "the answers were not compared with the verifier's own"


def _positions(measured: Measured) -> Element:
    title = "Acceptance by position"
    if not measured.drafts:
        return figure(title, NO_DRAFTS)
    series = list(_position_series(measured))
    bars_and_marks = "Bars: of all drafts. Marks: of those drafts whose tokens before were all accepted."
    note = f"{bars_and_marks} {ALPHA if measured.alpha is not None else NO_ALPHA}"
    chart = columns(
        f"{title}: the share of drafted tokens that the verifier accepted",
        groups=[str(position + 1) for position in range(len(measured.accepted))],
        grouped_by="position in the draft",
        series=series,
        axis=Axis(label="share accepted", top=1.0, tick=_whole_percent, value=_whole_percent),
    )
    return figure(title, note, legend(series), chart)


def _position_series(measured: Measured) -> Iterator[Series]:
    rows = [
        ("accepted up to here", measured.acceptance_per_position, False),
        ("conditional on the tokens before", measured.conditional_acceptance, True),
    ]
    if measured.alpha is not None:
        rows.append(("alpha, the sum of min(p, q)", measured.alpha, True))
    for name, values, mark in rows:
        hover = [f"position {place + 1}, {name}: {_share(value)}" for place, value in enumerate(values)]
        yield Series(name=name, values=values, hover=hover, mark=mark)


def _lengths(measured: Measured) -> Element:
    title = "Accepted tokens per draft"
    if not measured.drafts:
        return figure(title, NO_DRAFTS)
    hover = [
        f"{_count(length, 'token')} accepted: {_count(count, 'draft')}, {_share(count / measured.drafts)}"
        for length, count in enumerate(measured.lengths)
    ]
    chart = columns(
        f"{title}: how many drafts had so many tokens accepted",
        groups=[str(length) for length in range(len(measured.lengths))],
        grouped_by="tokens accepted",
        series=[Series(name="drafts", values=measured.lengths, hover=hover)],
        axis=Axis(label="drafts", top=max(measured.lengths), tick=_thousands, value=_thousands, whole=True),
    )
    note = f"{_count(measured.drafts, 'draft')} of {_count(measured.speculative_tokens, 'token')} each."
    return figure(title, f"{note} Every verifier pass adds one token of its own to what it accepted.", chart)


def _speeds(measured: Measured) -> Element:
    alone, title = measured.verifier_alone, "Speed"
    if alone is None or measured.speedup is None:
        only = f"With the draft: {_rate(measured.with_draft.tokens_per_second)}"
        return figure(title, f"{only}. There is no speed to compare it with: {_why_no_speedup(measured)}.", wide=True)
    values = [measured.with_draft.tokens_per_second, alone.tokens_per_second]
    hover = [f"{name}: {_rate(value)}" for name, value in zip(RUNS, values, strict=True)]
    chart = bars(
        f"{title}: generated tokens per second with the draft and without",
        names=RUNS,
        series=Series(name="speed", values=values, hover=hover),
        axis=Axis(label="tokens per second", top=max(values), tick=_thousands, value=lambda value: f"{value:,.1f}"),
    )
    note = "Generated tokens per second of wall-clock time, prompts included, loading and warm-up left out."
    return figure(title, note, chart, wide=True)


def _tables(measured: Measured) -> Iterator[Element]:
    heads = ["Position", "Drafts accepted", "Of all drafts", "Conditional", "Alpha"]
    yield table("Acceptance by position", heads, list(_position_rows(measured)))
    lengths = [
        [str(length), f"{count:,}", _share(count / measured.drafts if measured.drafts else None)]
        for length, count in enumerate(measured.lengths)
    ]
    yield table("Accepted tokens per draft", ["Tokens accepted", "Drafts", "Of all drafts"], lengths)
    runs = zip(RUNS, (measured.with_draft, measured.verifier_alone), strict=True)
    rows = [[name, *(_run(speed) if speed else ["not run"] * 3)] for name, speed in runs]
    yield table("Speed", ["Run", "Tokens", "Seconds", "Tokens per second"], rows, wide=True)


def _position_rows(measured: Measured) -> Iterator[list[str]]:
    conditional = measured.conditional_acceptance
    for place, count in enumerate(measured.accepted):
        joint = measured.acceptance_per_position[place] if measured.drafts else None
        alpha = "not measured" if measured.alpha is None else _share(measured.alpha[place])
        yield [str(place + 1), f"{count:,}", _share(joint), _share(conditional[place]), alpha]


def _run(speed: Speed) -> list[str]:
    return [f"{speed.tokens:,}", f"{speed.seconds:,.2f}", f"{speed.tokens_per_second:,.1f}"]


def _differences(measured: Measured) -> Iterator[Element]:
    verdict = _verdict(measured)
    yield paragraph(f"{verdict[0].upper()}{verdict[1:]}.")
    if not measured.differences:
        return
    yield paragraph(
        "After its first difference an answer has nothing more to compare. At a tie the verifier's logits of both "
        "tokens are equal to within rounding: the order of additions decides, not the draft. Answers and "
        "tokens are counted from 0, as in the JSON."
    )
    yield table(
        "First difference of each answer that has one",
        ["Answer", "Token", "Id with the draft", "Verifier's own id", "Their logits", "Apart by", "What it is"],
        [_difference(one) for one in measured.differences],
    )


def _difference(one: Difference) -> list[str]:
    logits = ["none"] * 2
    if one.logits is not None:
        drafted, own = one.logits
        logits = [f"{drafted:.9g} and {own:.9g}", f"{abs(drafted - own):.2g}"]
    ids = ["end of answer" if token is None else str(token) for token in (one.with_draft, one.verifier)]
    return [str(one.answer), str(one.position), *ids, *logits, "tie" if one.tie else "different"]


def _how(measured: Measured) -> list[tuple[str, str]]:
    greedy = "greedy (temperature 0)"
    return [
        ("Draft", measured.draft),
        ("Verifier", measured.verifier),
        ("Engine", {"transformers": "transformers", "vllm": "vLLM"}[measured.engine]),
        ("Prompts", f"{measured.prompts:,}, with {_count(measured.answers, 'answer')}"),
        ("Drafted per verifier pass", f"{_count(measured.speculative_tokens, 'token')} (K)"),
        ("Drafts verified", f"{measured.drafts:,}"),
        ("Decoding", greedy if measured.temperature == 0 else f"sampled at temperature {measured.temperature:g}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in measured.versions.items()) or "not known"),
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _share(value: float | None) -> str:
    return "no draft" if value is None else f"{100 * value:.1f}%"


def _rate(value: float) -> str:
    return f"{value:,.1f} tokens/s"


def _whole_percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _thousands(value: float) -> str:
    return f"{value:,.10g}"
