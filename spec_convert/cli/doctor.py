"""`spec-convert doctor`: why the tokens of a draft are not accepted, found by measuring what may be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_findings, show_json, show_table
from spec_convert.doctor.counting import ASPECT
from spec_convert.errors import Exit

if TYPE_CHECKING:
    from spec_convert.doctor.diagnosis import Diagnosis, Tried
    from spec_convert.doctor.examination import Examination
    from spec_convert.doctor.scoring import Score

Words = tuple[str, str]  # a label, and what is said


@click.command(short_help="Find out why a draft is not accepted.")
@click.argument("draft")
@click.option(
    "--verifier", metavar="BASE", help="The model that the draft was trained for. Default: as the draft says."
)
@click.option("--prompts", metavar="FILE", help="What is asked, as for `evaluate`. Default: eight short questions.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Take only the first N prompts.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Of each answer.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", show_default=True,
    help="Type the verifier computes in.",
)  # fmt: skip
@json_option
def doctor(draft: str, as_json: bool, **flags: Any) -> Exit:
    """Find out why the tokens of DRAFT, in any layout, are not accepted.

    The verifier answers a few questions; on the states of these answers the draft is measured as it is, and once for
    each thing that may be wrong: layer ids, norms, the rotary base, the meaning of d2t, embeddings, the head, the type
    that it is computed in. What helps by more than chance is named, with what to type. Nothing is changed.

    Exit codes: 0 nothing is wrong, 1 a cause or an error in the files was found, or none was found and the draft makes
    no use of the verifier's states.
    """
    from spec_convert.doctor.as_json import to_json
    from spec_convert.doctor.examination import examine

    examined = examine(draft, **flags)
    if as_json:
        show_json(to_json(examined))
    else:
        show_findings(examined.findings)
        _tell(examined)
    return Exit.CLEAN if examined.clean else Exit.FINDINGS


def _tell(examined: Examination) -> None:
    diagnosis = examined.diagnosis
    converted = "" if examined.draft == examined.source else f", converted to {examined.draft}"
    show(f"draft       {examined.source} ({examined.format}{converted})")
    show(f"verifier    {examined.verifier}")
    show(f"measured    two guesses in each of {examined.rows} rows of {examined.answers} answers")
    show("")
    for label, words in VERDICTS[diagnosis.verdict](examined):
        show(f"{label:11} {words}")
    show("")
    show_table(("tried", "first", "both", "alpha", "expected tokens gained"), _rows(diagnosis))
    show("")
    show("first, both: share of rows whose first guess, or both, are the verifier's token; alpha: overlap of the first")


def _rows(diagnosis: Diagnosis) -> Iterator[tuple[str, ...]]:
    yield "as it is", *_figures(diagnosis.at_first), ""
    beside: tuple[str, ...] = ()
    for one in diagnosis.tried:
        if one.beside != beside:
            beside = one.beside
            yield f"with {' and '.join(beside)} mended:", "", "", "", ""
        yield one.hypothesis.code, *_figures(one.score), _gained(one)
    mended = "mended, " if diagnosis.causes else ""
    yield f"{mended}given states of other tokens", *_figures(diagnosis.blind), ""


def _sound(examined: Examination) -> Iterator[Words]:
    now, blind = examined.diagnosis.at_last, examined.diagnosis.blind
    where = "none that is computed" if examined.wrong else "none"
    yield "cause", f"{where}: nothing that was tried helps"
    yield "it gives", f"{_guesses(now)}: a tau of {_tau(now):.2f} over two guesses"
    yield "", f"with the states of other tokens {_guesses(blind)}"
    yield from _likely(examined)
    yield from _open_ids(examined)
    yield from _to_type(examined)


def _cause(examined: Examination) -> Iterator[Words]:
    diagnosis = examined.diagnosis
    for number, cause in enumerate(diagnosis.causes):
        yield "and" if number else "cause", cause.hypothesis.says
        if others := diagnosis.as_good(cause):
            yield "", f"these rows do not tell it from {', '.join(one.hypothesis.code for one in others)}"
    before, after, gain = diagnosis.at_first, diagnosis.at_last, diagnosis.gain
    yield "before", _unless_refused(before)
    yield "after", f"{_guesses(after)}: a tau of {_tau(after):.2f} over two guesses"
    yield "how sure", f"{gain.tokens:.3f} more tokens a row are expected, with a standard error of {gain.error:.3f}"
    yield from _open_ids(examined)
    yield from _to_type(examined)
    for words in dict.fromkeys(cause.hypothesis.fix.words for cause in diagnosis.causes):
        if words:
            yield "do", words


def _lost(examined: Examination) -> Iterator[Words]:
    yield "cause", "not found: nothing that was tried makes the draft guess by the verifier's states"
    yield "it gives", _unless_refused(examined.diagnosis.at_first)
    yield from _likely(examined)
    if not examined.wrong:
        yield "likely", "it was trained for another verifier, or not trained: give the model that its authors name"


def _likely(examined: Examination) -> Iterator[Words]:
    """What servers read otherwise than it is computed here."""
    for finding in examined.wrong:
        yield "likely", f"{finding.where}: {finding.message} [{finding.rule}]"


def _open_ids(examined: Examination) -> Iterator[Words]:
    if not examined.ids_open:
        return
    match examined.counting:
        case "boundary":
            yield "layer ids", "they count inputs of layers, which config.json leaves open: as outputs they guess worse"
        case None if all(cause.hypothesis.aspect != ASPECT for cause in examined.diagnosis.causes):
            yield "layer ids", "these rows do not tell whether they count inputs of layers or outputs: ask more"


def _to_type(examined: Examination) -> Iterator[Words]:
    if examined.command is not None:
        yield "type", examined.command


VERDICTS = {"sound": _sound, "cause": _cause, "lost": _lost}


def _tau(score: Score) -> float:
    return 1 + score.first + score.second


def _guesses(score: Score) -> str:
    return f"the first guess stands in {score.first:.3f} of the rows, both in {score.second:.3f}"


def _unless_refused(score: Score) -> str:
    if score.refused:
        return f"it cannot be computed: {score.refused}"
    broken = f"; in {score.no_numbers} rows it computes no numbers" if score.no_numbers else ""
    return f"{_guesses(score)}: a tau of {_tau(score):.2f} over two guesses{broken}"


def _figures(score: Score) -> tuple[str, str, str]:
    if score.refused:
        return "-", "-", "-"
    return f"{score.first:.3f}", f"{score.second:.3f}", f"{score.alpha:.3f}"


def _gained(tried: Tried) -> str:
    if tried.score.refused:
        return f"cannot be: {tried.score.refused}"
    sure = "" if not tried.gain.sure else ", sure"
    return f"{tried.gain.tokens:+.3f} ± {tried.gain.error:.3f}{sure}"
