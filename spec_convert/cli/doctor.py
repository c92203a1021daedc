"""`spec-convert doctor`: why the tokens of a draft are not accepted, found by measuring what may be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_findings, show_json, show_table
from spec_convert.errors import Exit
from spec_convert.findings import Level

if TYPE_CHECKING:
    from spec_convert.doctor.diagnosis import Tried
    from spec_convert.doctor.examination import Examination
    from spec_convert.doctor.scoring import Score


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
    help="The verifier computes in it.",
)  # fmt: skip
@json_option
def doctor(draft: str, as_json: bool, **flags: Any) -> Exit:
    """Find out why the tokens of DRAFT, in any layout, are not accepted.

    The verifier answers a few questions; on the states of these answers the draft is measured as it is, and once for
    each thing that may be wrong: layer ids, norms, the rotary base, the meaning of d2t, embeddings, the head, the type
    that it is computed in. What helps by more than chance is named, with what to type. Nothing is changed.

    Exit codes: 0 nothing is wrong, 1 a cause was found, or the draft guesses nothing and none was.
    """
    from spec_convert.doctor.as_json import to_json
    from spec_convert.doctor.examination import examine

    examined = examine(draft, **flags)
    if as_json:
        show_json(to_json(examined))
    else:
        show_findings(examined.findings)
        _tell(examined)
    return Exit.CLEAN if examined.diagnosis.verdict == "sound" else Exit.FINDINGS


def _tell(examined: Examination) -> None:
    diagnosis = examined.diagnosis
    converted = "" if examined.draft == examined.source else f", converted to {examined.draft}"
    show(f"draft       {examined.source} ({examined.format}{converted})")
    show(f"verifier    {examined.verifier}")
    show(f"measured    two guesses in each of {examined.rows} rows of {examined.answers} answers")
    show("")
    VERDICTS[diagnosis.verdict](examined)
    show("")
    rows = [
        ("as it is", *_figures(diagnosis.at_first), ""),
        ("given states of other tokens", *_figures(diagnosis.blind), ""),
    ]
    beside: tuple[str, ...] = ()
    for one in diagnosis.tried:
        if one.beside != beside:
            beside = one.beside
            rows.append((f"beside {', '.join(beside)}:", "", "", "", ""))
        rows.append((one.hypothesis.code, *_figures(one.score), _gained(one)))
    show_table(("tried", "first", "both", "alpha", "expected tokens gained"), rows)
    show("")
    show("first, both: rows whose first guess, or both guesses, are the verifier's token; alpha: overlap of the first")


def _tell_sound(examined: Examination) -> None:
    now, blind = examined.diagnosis.at_first, examined.diagnosis.blind
    show(
        f"nothing is found to be wrong: the first guess stands in {now.first:.3f} of the rows, the second as well in "
        f"{now.second:.3f};"
    )
    show(
        f"without the verifier's states {blind.first:.3f}. None of what was tried helps: a tau of {_tau(now):.2f} over two "
        "guesses is"
    )
    show("what this draft gives on these questions.")


def _tell_cause(examined: Examination) -> None:
    diagnosis = examined.diagnosis
    for number, cause in enumerate(diagnosis.causes):
        show(f"{'cause       ' if not number else 'and         '}{cause.hypothesis.says}")
        if others := diagnosis.as_good(cause):
            show(f"            these rows do not tell it from {', '.join(one.hypothesis.code for one in others)}")
    before, after, gain = diagnosis.at_first, diagnosis.at_last, diagnosis.gain
    show(
        f"measured    first guess {before.first:.3f} -> {after.first:.3f}, both {before.second:.3f} -> {after.second:.3f}, "
        f"tau over two guesses {_tau(before):.2f} -> {_tau(after):.2f}"
    )
    show(
        f"how sure    {gain.tokens:.3f} more accepted tokens a row are expected, with a standard error of {gain.error:.3f}"
    )
    if examined.command is not None:
        show(f"type        {examined.command}")
    for words in dict.fromkeys(cause.hypothesis.fix.words for cause in diagnosis.causes):
        if words:
            show(f"do          {words}")


def _tell_lost(examined: Examination) -> None:
    now, blind = examined.diagnosis.at_first, examined.diagnosis.blind
    show(
        f"cause       not found: the first guess stands in {now.first:.3f} of the rows, and in {blind.first:.3f} when the "
        "states"
    )
    show("            are those of other tokens; nothing that was tried helps")
    wrong = [finding for finding in examined.findings if finding.level is Level.ERROR]
    if wrong:
        show(f"likely      {wrong[0].where}: {wrong[0].message} [{wrong[0].rule}]")
    else:
        show("likely      the draft was trained for another verifier, or not trained: compare with the model that its")
        show("            authors name, and give it with --verifier")


VERDICTS = {"sound": _tell_sound, "cause": _tell_cause, "lost": _tell_lost}


def _tau(score: Score) -> float:
    return 1 + score.first + score.second


def _figures(score: Score) -> tuple[str, str, str]:
    if score.refused:
        return "-", "-", "-"
    return f"{score.first:.3f}", f"{score.second:.3f}", f"{score.alpha:.3f}"


def _gained(tried: Tried) -> str:
    if tried.score.refused:
        return f"cannot be: {tried.score.refused}"
    sure = "" if not tried.gain.sure else ", sure"
    return f"{tried.gain.tokens:+.3f} ± {tried.gain.error:.3f}{sure}"
