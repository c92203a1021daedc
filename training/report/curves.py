"""What was logged, drawn along the steps: one chart for each number, a line for each position of a chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from spec_convert.reports.lines import Dot, Flag, Line, Scale, line_legend, lines, spans_decades
from spec_convert.reports.markup import Element
from spec_convert.reports.page import figure, side_by_side
from spec_convert.training.report.logged import Log, Logged
from spec_convert.training.report.thinning import Bucket, bucket, groups

Words = Callable[[float], str]


def share(value: float) -> str:
    return f"{100 * value:.1f}%"


def compact(value: float) -> str:
    """Few letters, as an axis has room for."""
    if value and not 0.01 <= abs(value) < 1e5:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:,.6g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """``field``: of `Logged`; a list has a line for each position. ``flagged``: steps that were left out are marked.

    ``log``: by powers of ten, where small numbers could not be told apart beside large ones.
    """

    field: str
    title: str
    note: str
    label: str
    tick: Words
    told: Words
    base: float = 0.0
    log: bool = False
    flagged: bool = False


CURVES = (
    Curve(
        field="loss", title="Loss", label="loss", tick=compact, told="{:.4g}".format, log=True, flagged=True,
        note="What is minimised: the mean losses of all positions, each times its decay.",
    ),
    Curve(
        field="tau", title="Simulated acceptance length \N{GREEK SMALL LETTER TAU}", label="tokens", base=1.0,
        tick=compact, told="{:.3f}".format,
        note="Tokens for each pass of the verifier, its own included, if chains of this length were drafted greedily "
        "on its own text.",
    ),
    Curve(
        field="losses", title="Loss by position", label="loss", tick=compact, told="{:.4g}".format, log=True,
        note="Of each guess by itself, before the decay.",
    ),
    Curve(
        field="accuracy", title="Accuracy by position", label="share right", tick="{:.0%}".format, told=share,
        note="How often a guess is the verifier's likeliest token, whatever came before it.",
    ),
    Curve(
        field="joint", title="Joint acceptance by position", label="share accepted", tick="{:.0%}".format, told=share,
        note="How often all guesses up to this one are right: what servers call the acceptance of a position.",
    ),
    Curve(
        field="alpha", title="Alpha by position", label="probability", tick="{:.0%}".format, told=share,
        note="The probability that a token sampled at temperature 1 is accepted.",
    ),
    Curve(
        field="lr", title="Learning rate", label="rate", tick=compact, told="{:.3g}".format,
        note="At each step: it rises at first, then follows the schedule.",
    ),
    Curve(
        field="gradient_norm", title="Gradient norm", label="norm", tick=compact, told="{:.4g}".format, log=True,
        flagged=True,
        note="Of all gradients together, before they are clipped.",
    ),
    Curve(
        field="tokens_per_second", title="Throughput", label="tokens per second", tick=compact, told="{:,.0f}".format,
        note="Tokens of training rows per second, of all processes together; evaluations and states are left out.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """All charts of one log. What each of them takes of it is made once."""

    log: Log

    @cached_property
    def trained(self) -> list[Sequence[Logged]]:
        return groups(self.log.of("train"))

    @cached_property
    def held_out(self) -> list[Sequence[Logged]]:
        return groups(self.log.of("held_out"))

    @property
    def thinned(self) -> int:
        """How many lines a point stands for."""
        return len(self.trained[0]) if self.trained else 0

    def charts(self) -> Element:
        figures = [figure for curve in CURVES if (figure := self._figure(curve)) is not None]
        if len(figures) % 2:
            figures[-1].set("class", "wide")  # rather than alone in its row
        return side_by_side(*figures)

    def reading(self) -> str:
        """How the charts are to be read."""
        words = ["Along the foot: steps of the optimiser. The pointer is told the numbers at each place."]
        if self.thinned > 1:
            many = len(self.log.of("train"))
            words.append(
                f"Of {many:,} logged lines {self.thinned:,} neighbours at a time are drawn as one: the line is their "
                "mean, the band from their lowest to their highest."
            )
        if self.held_out:
            words.append("Rings: what is held out, evaluated after an epoch.")
        if left_out := len(self.log.of("skipped")):
            words.append(f"Red marks: {left_out:,} steps left out, because their gradients were not finite.")
        return " ".join(words)

    def _figure(self, curve: Curve) -> Element | None:
        """None: the chart would be another one's again, or nothing of it was logged."""
        positions = max((len(_all(line, curve.field)) for line in self.log.lines), default=0)
        series = [self._line(curve, position, positions) for position in range(positions)]
        numbers = [number for line in series for number in line.numbers()]
        if not numbers or (curve.field == "losses" and positions == 1):
            return None
        log = curve.log and spans_decades(numbers)
        note = f"{curve.note} The axis goes by powers of ten." if log else curve.note
        chart = lines(
            f"{curve.title}, by step",
            places=[_place(group) for group in self.trained],
            hover=[self._hover(curve, series, at) for at in range(len(self.trained))],
            along="step",
            series=series,
            scale=Scale(label=curve.label, tick=curve.tick, base=curve.base, log=log),
            flags=list(self._flags()) if curve.flagged else (),
        )
        dots = "held out" if any(line.dots for line in series) else ""
        key = [line_legend(series, dots=dots)] if positions > 1 or dots else []
        return figure(curve.title, note, *key, chart)

    def _line(self, curve: Curve, position: int, positions: int) -> Line:
        def number(line: Logged) -> float | None:
            every = _all(line, curve.field)
            return every[position] if position < len(every) else None

        name = f"position {position + 1}" if positions > 1 else "training"
        found = [bucket(group, number) for group in self.trained]
        thinned = self.thinned > 1
        return Line(
            name=name,
            values=[one.mean for one in found],
            low=[one.low for one in found] if thinned else (),
            high=[one.high for one in found] if thinned else (),
            dots=[
                Dot(
                    place=_place(group),
                    value=one.mean,
                    hover=f"held out, {_steps(group)}, {name}: {_told(curve, one)}",
                )
                for group in self.held_out
                if (one := bucket(group, number)).mean is not None
            ],
        )

    def _hover(self, curve: Curve, series: Sequence[Line], at: int) -> str:
        each = []
        for line in series:
            spread = (line.low[at], line.high[at]) if line.low else (None, None)
            one = Bucket(line.values[at], *spread)
            each.append(f"{line.name} {_told(curve, one)}" if len(series) > 1 else _told(curve, one))
        return f"{_steps(self.trained[at])}: {', '.join(each)}"

    def _flags(self) -> Iterator[Flag]:
        for group in groups(self.log.of("skipped")):
            many = f"{len(group):,} steps" if len(group) > 1 else "the step"
            yield Flag(place=_place(group), hover=f"{_steps(group)}: {many} left out, gradients not finite")


def _all(line: Logged, field: str) -> Sequence[float | None]:
    value: float | tuple[float | None, ...] | None = getattr(line, field)
    if isinstance(value, tuple):
        return value
    return () if value is None else (value,)


def _place(group: Sequence[Logged]) -> float:
    return sum(line.step for line in group) / len(group)


def _steps(group: Sequence[Logged]) -> str:
    first, last = group[0].step, group[-1].step
    return f"step {first:,}" if len(group) == 1 else f"steps {first:,} to {last:,}"


def _told(curve: Curve, one: Bucket) -> str:
    if one.mean is None:
        return "not measured"
    if one.low is None or one.high is None or one.low == one.high:
        return curve.told(one.mean)
    return f"{curve.told(one.mean)} ({curve.told(one.low)} to {curve.told(one.high)})"
