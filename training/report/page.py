"""The folder of a run as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator

from spec_convert.evaluation.page import headline, sections
from spec_convert.reports.markup import Element, element
from spec_convert.reports.page import document, header, paragraph, section, side_by_side, table, tile, tiles
from spec_convert.training.report.absent import absent, whole
from spec_convert.training.report.coverage import vocabulary_section, whole_vocabulary
from spec_convert.training.report.curves import Curves, share
from spec_convert.training.report.logged import Log, Logged
from spec_convert.training.report.outcome import seconds, stages_section, validation_section
from spec_convert.training.report.provenance import capped, provenance_section, settings_section
from spec_convert.training.report.run import Run, Training
from spec_convert.training.report.thinning import bucket

DATA = "run"
MANY = 10_000_000  # has no room in a tile
LATE = 10  # logged lines, of which one alone says little
TAU = "Simulated length \N{GREEK SMALL LETTER TAU}"


def page(run: Run) -> str:
    """One self-contained page; the document of ``to_json`` is inside it, in the element ``run``."""
    name = run.folder.absolute().name
    return document(
        f"{name}: report of a run",
        header("A run of spec-convert" if run.record else "A training", name, _how_far(run)),
        tiles(*_tiles(run)),
        *_sections(run),
        element(
            "footer",
            paragraph("Written by spec-convert report. The page loads nothing from anywhere."),
            paragraph(f'It carries what it shows as JSON in the element "{DATA}": what report --json prints.'),
        ),
        carries=(DATA, run.to_json()),
    )


def _how_far(run: Run) -> str:
    words = []
    if run.record:
        states = [stage.state for stage in run.record.shown.values()]
        words.append(f"{states.count('done')} of {len(states)} stages are done")
    if run.training:
        words.append(_training_in_words(run.training))
    return "; ".join(words) or "no training yet"


def _training_in_words(training: Training) -> str:
    request = training.request or {}
    what = f"{request.get('kind', 'a draft')} for {request.get('verifier', 'a verifier')}"
    if training.over:
        return f"{what}: done after step {training.step:,}"
    when = f", last logged {training.changed}" if training.changed else ""
    torn = ", and its last line is just being written" if training.log and training.log.torn else ""
    return f"{what}: not over, at step {training.step:,} of {_asked(request)}{when}{torn}"


def _asked(request: dict[str, object]) -> str:
    """How long the training was to be, as it was said."""
    counts = [(request.get("epochs"), "epoch"), (request.get("max_steps"), "step")]
    said = [f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count]
    return " or ".join(said) or "an unknown number"


def _tiles(run: Run) -> Iterator[Element]:
    if run.evaluation:
        yield from headline(run.evaluation)
    if run.training:
        yield _tau(run.training)
        yield _best(run.training)
        yield from _spent(run.training)


def _tau(training: Training) -> Element:
    lines = training.log.lines if training.log else ()
    best = training.progress.best_epoch if training.progress else None
    held_out = [line for line in lines if line.kind == "held_out" and line.tau is not None]
    chosen = next((line for line in held_out if line.epoch == best), held_out[-1] if held_out else None)
    if chosen:
        return tile(
            f"{TAU}, held out", f"{chosen.tau:.2f}", "tokens", f"after epoch {chosen.epoch}, {_not_served(chosen)}"
        )
    late = [line for line in lines if line.kind == "train" and line.tau is not None][-LATE:]
    mean = bucket(late, lambda line: line.tau).mean
    if mean is not None:
        note = f"up to step {late[-1].step:,}, on what it learns from, {_not_served(late[-1])}"
        return tile(f"{TAU}, training", f"{mean:.2f}", "tokens", note)
    return tile(TAU, "None", "", "nothing was logged that it could be told from")


def _not_served(line: Logged) -> str:
    return f"without a server; at most {len(line.joint) + 1}"


def _best(training: Training) -> Element:
    best = next((draft for draft in training.drafts if draft.best), None)
    kept = f"{len(training.drafts)} {'draft is' if len(training.drafts) == 1 else 'drafts are'} kept"
    if best is None:
        return tile("Best epoch", "Not known", "", f"nothing was held out; {kept}")
    return tile("Best epoch", best.name.removeprefix("epoch_").lstrip("0"), "", f"by what is held out; {kept}")


def _spent(training: Training) -> Iterator[Element]:
    last = training.log.last if training.log else None
    if last is None or last.tokens is None:
        yield tile("Trained on", "None", "", "no step is logged yet")
        return
    reached = training.progress
    skipped = len(training.log.of("skipped")) if training.log else 0
    left_out = f"{skipped:,} steps left out" if skipped else "no step was left out"
    many = last.tokens >= MANY
    figure = f"{last.tokens / 1e6:,.1f}" if many else f"{last.tokens:,}"
    yield tile("Trained on", figure, "million tokens" if many else "tokens", f"in {training.step:,} steps; {left_out}")
    if reached and reached.step >= last.step:
        yield tile("Time", seconds(reached.seconds), "", "evaluations and states included")
    elif training.log:
        yield tile("Time", seconds(training.log.seconds), "", "in logged steps; evaluations and states left out")


def _sections(run: Run) -> Iterator[Element]:
    if run.record:
        yield stages_section(run.record)
    log = run.training.log if run.training else None
    if log and log.lines:
        curves = Curves(log)
        phases = [paragraph(words) for words in _phases(run.training.request or {})] if run.training else []
        yield section("How it learned", *phases, paragraph(curves.reading()), curves.charts())
        yield from _epochs(log)
    if run.vocabulary:
        yield vocabulary_section(run.vocabulary)
    elif whole(run):
        yield whole_vocabulary()
    if run.evaluation:
        yield from sections(run.evaluation)
    if run.validation:
        yield validation_section(run.validation)
    settings = settings_section(run)
    if settings is not None:
        yield settings
    yield provenance_section(run)
    missing = [[one.what, one.command] for one in absent(run)]
    if missing:
        yield section(
            "What is not here",
            side_by_side(table("And what makes it", ["What", "Command"], missing, wide=True, words=True)),
        )


def _phases(request: dict[str, object]) -> Iterator[str]:
    """A loss that changes on the way jumps, which would look like something that went wrong."""
    match request.get("loss"):
        case [[str(first), int() | float() as until, *_], [str(then), *_], *_]:
            yield f"What is minimised changes after {until:.0%} of the steps: at first {first}, then {then}."


def _epochs(log: Log) -> Iterator[Element]:
    held_out = log.of("held_out")
    if not held_out:
        return
    positions = max(len(line.joint) for line in held_out)
    heads = ["Epoch", "Step", "Loss", "\N{GREEK SMALL LETTER TAU}", *(f"J {place + 1}" for place in range(positions))]
    rows = [_epoch(line, positions) for line in held_out]
    note = "J: how often all guesses up to this position are right."
    yield section(
        "What is held out, after each epoch",
        paragraph(note),
        side_by_side(table("Held out", heads, capped(rows), wide=True)),
    )


def _epoch(line: Logged, positions: int) -> list[str]:
    joint = [*line.joint, *[None] * (positions - len(line.joint))]
    numbers = [_number(line.loss), _number(line.tau), *("none" if one is None else share(one) for one in joint)]
    return ["none" if line.epoch is None else str(line.epoch), f"{line.step:,}", *numbers]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
