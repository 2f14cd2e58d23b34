"""Charts as inline SVG: small multiples whose text keeps its size on a phone.

Colours and dashes come from the page's style sheet by class: `s1` to `s6` are series, so that light, dark and print
each choose theirs. Whatever a chart shows also stands in a table or a sentence; the SVG carries a title and a
description for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup

from recsys.report.scales import Scale, finite, log_ticks, ticks

WIDTH: Final = 360.0
HEIGHT: Final = 230.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 14.0, 36.0  # margins around the plot
SERIES: Final = 6  # styles that the page has
CELL_WIDTH, CELL_HEIGHT = 150.0, 18.0

Point = tuple[float, float | None]  # None: nothing was measured there


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A series of a line chart; `style` is the number of its style, `band` the ends of its intervals."""

    name: str
    points: Sequence[Point]
    style: int = 1
    band: Sequence[tuple[float | None, float | None]] = ()
    dots: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A labelled point."""

    x: float
    y: float
    label: str
    style: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A labelled stretch of the x axis."""

    start: float
    end: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Labels and kinds of the two axes."""

    x: str
    y_zero: bool = True  # the y axis begins at 0
    x_log: bool = False
    whole: bool = False  # only whole numbers on the x axis
    number: Callable[[float], str] = field(default=lambda value: f"{value:g}")  # of the y axis


def line_chart(
    lines: Sequence[Line],
    axes: Axes,
    *,
    title: str,
    description: str,
    marks: Sequence[Mark] = (),
    phases: Sequence[Phase] = (),
) -> Markup:
    """Draw lines with bands; empty where no line has a point."""
    xs = finite(x for line in lines for x, y in line.points if y is not None and math.isfinite(y))
    ys = finite(y for line in lines for _, y in line.points)
    if not xs or not ys:
        return Markup("")
    ends = finite(end for line in lines for pair in line.band for end in pair)
    ys += [*ends, *(mark.y for mark in marks)]
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = (x_low / 2, x_high * 2) if axes.x_log else (x_low - 1, x_high + 1)
    y_low, y_high = _span(ys, axes.y_zero)
    x = Scale(x_low, x_high, LEFT, WIDTH - RIGHT, log=axes.x_log)
    y = Scale(y_low, y_high, HEIGHT - BOTTOM, TOP)
    drawn = [_phase(phase, x, number) for number, phase in enumerate(phases)]
    drawn += [_grid(y.place(tick), axes.number(tick)) for tick in ticks(y_low, y_high)]
    places = log_ticks(x_low, x_high) if axes.x_log else ticks(x_low, x_high, 6)
    drawn += [_below(x.place(tick), f"{tick:g}") for tick in places if not axes.whole or tick == int(tick)]
    drawn.append(_below((LEFT + WIDTH - RIGHT) / 2, axes.x, 30.0, "axis"))
    drawn += [_band(line, x, y) for line in reversed(lines) if line.band]
    drawn += [_line(line, x, y) for line in reversed(lines)]
    drawn += [_mark(mark, x, y) for mark in marks]
    return _svg(Markup("").join(drawn), WIDTH, HEIGHT, title, description)


def column_chart(
    values: Sequence[float], labels: Sequence[tuple[int, str]], *, title: str, description: str, style: int = 1
) -> Markup:
    """Draw non-negative values side by side as one filled shape; `labels` are (place, text) below it."""
    if not values:
        return Markup("")
    y_high = max([*finite(values), 0.0]) or 1.0
    height = 170.0
    width = (WIDTH - LEFT - RIGHT) / len(values)
    y = Scale(0.0, y_high, height - BOTTOM + 10, TOP)
    drawn = [_grid(y.place(tick), f"{tick:,.0f}") for tick in ticks(0.0, y_high, 4) if tick == int(tick)]
    path = [f"M{LEFT:.1f} {y.start:.1f}"]
    for place, value in enumerate(values):
        top = y.place(value if math.isfinite(value) else 0.0)
        path.append(f"V{top:.1f}H{LEFT + (place + 1) * width:.2f}")
    path.append(f"V{y.start:.1f}Z")
    drawn.append(Markup('<path class="fill s{}" d="{}"/>').format(style, "".join(path)))
    drawn += [_below(LEFT + (place + 0.5) * width, text, 16.0, "", height - BOTTOM + 10) for place, text in labels]
    return _svg(Markup("").join(drawn), WIDTH, height, title, description)


def interval_cell(mean: float, low: float, high: float, most: float, *, small: bool = False) -> Markup:
    """Draw a mean and its interval on a line from 0 to `most`; the row's numbers say the same, so it is decoration."""
    x = Scale(0.0, most or 1.0, 4.0, CELL_WIDTH - 4.0)
    middle = CELL_HEIGHT / 2
    drawn = Markup(
        '<line class="rail" x1="4" x2="{}" y1="{}" y2="{}"/>'
        '<line class="line {}" x1="{}" x2="{}" y1="{}" y2="{}"/><circle class="dot {}" cx="{}" cy="{}" r="4"/>'
    ).format(
        f"{CELL_WIDTH - 4:g}",
        middle,
        middle,
        style := "muted" if small else "s1",
        f"{x.place(low):.1f}",
        f"{x.place(high):.1f}",
        middle,
        middle,
        style,
        f"{x.place(mean):.1f}",
        middle,
    )
    return _cell(drawn)


def bars_cell(values: Sequence[float], most: float) -> Markup:
    """Draw values from 0 to `most` as bars under each other, each in its own style."""
    x = Scale(0.0, most or 1.0, 0.0, CELL_WIDTH)
    height = CELL_HEIGHT / max(len(values), 1)
    drawn = [
        Markup('<rect class="fill s{}" x="0" y="{}" width="{}" height="{}"/>').format(
            place + 1, f"{place * height + 0.5:.1f}", f"{max(x.place(value), 0.5):.1f}", f"{height - 1:.1f}"
        )
        for place, value in enumerate(values)
    ]
    return _cell(Markup("").join(drawn))


def swatch(style: int, *, filled: bool = False) -> Markup:
    """Draw a legend's sample of a series."""
    shape = (
        Markup('<rect class="fill s{}" x="0" y="1" width="22" height="8"/>')
        if filled
        else Markup('<line class="line s{}" x1="0" x2="22" y1="5" y2="5"/>')
    )
    return Markup('<svg class="swatch" viewBox="0 0 22 10" aria-hidden="true">{}</svg>').format(shape.format(style))


def _span(values: Sequence[float], zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if zero:
        return 0.0, high * 1.05 if high > 0 else 1.0
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _phase(phase: Phase, x: Scale, number: int) -> Markup:
    left, right = x.place(phase.start), x.place(phase.end)
    return Markup(
        '<rect class="phase p{}" x="{}" y="{}" width="{}" height="{}"/><text class="note" x="{}" y="{}">{}</text>'
    ).format(
        number % 2,
        f"{left:.1f}",
        TOP,
        f"{max(right - left, 0):.1f}",
        HEIGHT - TOP - BOTTOM,
        f"{left + 4:.1f}",
        TOP - 3,
        phase.label,
    )


def _grid(y: float, label: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="tick" x="{}" y="{}">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, f"{y:.1f}", f"{y:.1f}", LEFT - 6, f"{y + 4:.1f}", label)


def _below(x: float, label: str, down: float = 16.0, kind: str = "", base: float = HEIGHT - BOTTOM) -> Markup:
    return Markup('<text class="below {}" x="{}" y="{}">{}</text>').format(
        kind, f"{x:.1f}", f"{base + down:.1f}", label
    )


def _band(line: Line, x: Scale, y: Scale) -> Markup:
    corners = [
        (point, low, high)
        for (point, _), (low, high) in zip(line.points, line.band, strict=True)
        if low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    ]
    upper = [f"{x.place(point):.1f} {y.place(high):.1f}" for point, _, high in corners]
    lower = [f"{x.place(point):.1f} {y.place(low):.1f}" for point, low, _ in reversed(corners)]
    return Markup('<path class="band s{}" d="M{}Z"/>').format(_style(line), "L".join([*upper, *lower]))


def _line(line: Line, x: Scale, y: Scale) -> Markup:
    path, pen, drawn = [], "M", Markup("")
    known = [(at, value) for at, value in line.points if value is not None and math.isfinite(value)]
    for at, value in line.points:
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        path.append(f"{pen}{x.place(at):.1f} {y.place(value):.1f}")
        pen = "L"
    if len(known) > 1:
        drawn += Markup('<path class="line s{}" d="{}"/>').format(_style(line), "".join(path))
    if line.dots or len(known) == 1:
        for at, value in known:
            drawn += Markup('<circle class="dot s{}" cx="{}" cy="{}" r="3"/>').format(
                _style(line), f"{x.place(at):.1f}", f"{y.place(value):.1f}"
            )
    return drawn


def _mark(mark: Mark, x: Scale, y: Scale) -> Markup:
    left, top = x.place(mark.x), y.place(mark.y)
    beyond = left > (LEFT + WIDTH) / 2
    return Markup(
        '<circle class="ring s{}" cx="{}" cy="{}" r="6"/><text class="note {}" x="{}" y="{}">{}</text>'
    ).format(
        mark.style,
        f"{left:.1f}",
        f"{top:.1f}",
        "end" if beyond else "",
        f"{left + (-10 if beyond else 10):.1f}",
        f"{top + 20:.1f}",  # below the line that the point is on
        mark.label,
    )


def _style(line: Line) -> int:
    return (line.style - 1) % SERIES + 1


def _cell(drawn: Markup) -> Markup:
    return Markup('<svg class="cell" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        f"{CELL_WIDTH:g}", f"{CELL_HEIGHT:g}", drawn
    )


def _svg(drawn: Markup, width: float, height: float, title: str, description: str) -> Markup:
    return Markup('<svg class="chart" role="img" viewBox="0 0 {} {}"><title>{}</title><desc>{}</desc>{}</svg>').format(
        f"{width:g}", f"{height:g}", title, description, drawn
    )
