"""What became of the stages of a run, and what validation found."""

from __future__ import annotations

from collections.abc import Iterator

from spec_convert.reports.charts import Axis, Series, bars
from spec_convert.reports.markup import Element
from spec_convert.reports.page import figure, paragraph, section, side_by_side, table
from spec_convert.reports.schema import ValidationReport
from spec_convert.training.record import Record, StageRecord

LONGEST = 24  # letters of a name in the chart; the table has all of them
AGES = 1e10  # seconds: no measurement
ROOM = 1.2  # for the words behind the longest bar
COLOURS = {"done": "series-1", "failed": "flag"}


def stages_section(record: Record) -> Element:
    return section("Stages", side_by_side(*_stages(record)))


def _stages(record: Record) -> Iterator[Element]:
    stages = record.shown
    if not stages:
        yield figure("Stages", "The run has none.", wide=True)
        return
    took = [stage.seconds for stage in stages.values()]
    names = [f"{name[:LONGEST]}: {stage.state}" for name, stage in stages.items()]
    hover = [f"{name}, {seconds(stage.seconds)}" for name, stage in zip(names, stages.values(), strict=True)]
    chart = bars(
        "Stages: seconds that each took",
        names=names,
        series=Series(name="seconds", values=took, hover=hover),
        axis=Axis(
            label="seconds", top=ROOM * max((one for one in took if one), default=1.0),
            tick="{:,.10g}".format, value=seconds,
        ),
        colours=[COLOURS.get(stage.state, "others") for stage in stages.values()],
    )  # fmt: skip
    note = "A stage that was not run again, because nothing had changed, shows what it took when it was."
    yield figure("Time by stage", note, chart, wide=True)
    heads = ["Stage", "State", "Began (UTC)", "Took", "Log", "Made", "Command"]
    yield table("Stages", heads, [_row(name, stage) for name, stage in stages.items()], wide=True, words=True)


def _row(name: str, stage: StageRecord) -> list[str]:
    none = "none"
    made, command = ", ".join(stage.outputs) or none, " ".join(stage.command) or none
    return [name, stage.state, stage.started or "not yet", seconds(stage.seconds), stage.log or none, made, command]


def validation_section(report: ValidationReport) -> Element:
    summary = report.summary
    counts = {"error": summary.errors, "warning": summary.warnings, "note": summary.notes}
    found = ", ".join(f"{count:,} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count)
    checked = [[one.source, one.format or "not recognised", one.level or "not read"] for one in report.checked]
    content = [table("Checked", ["Source", "Format", "Looked at, down to"], checked, wide=True, words=True)]
    if report.findings:
        heads = ["Rule", "Level", "Where", "What", "What to do"]
        rows = [[one.rule, one.level, one.where, one.message, one.hint or "nothing"] for one in report.findings]
        content.append(table("Findings", heads, rows, wide=True, words=True))
    return section("Validation", paragraph(f"Found: {found or 'nothing'}."), side_by_side(*content))


def seconds(took: float | None) -> str:
    """As people say it; None: it is not known."""
    if took is None or took > AGES:
        return "not known"
    if took < 60:
        return f"{took:,.1f} s"
    minutes, rest = divmod(round(took), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
