"""Charts: coordinates worked by hand, and what cannot be drawn."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.report.charts import Axes, Line, Mark, Phase, bars_cell, column_chart, interval_cell, line_chart
from recsys.report.scales import Scale, log_ticks, ticks

AXES = Axes(x="k")
# the plot of a line chart: x from 44 to 348, y from 194 (low) to 14 (high)


def drawn(svg: str, kind: str) -> list[dict[str, str]]:
    tree = ElementTree.fromstring(svg)
    return [element.attrib for element in tree.iter() if kind in element.attrib.get("class", "").split()]


def chart(lines: list[Line], axes: Axes = AXES, **more: object) -> str:
    return line_chart(lines, axes, title="a title", description="what it shows", **more)  # type: ignore[arg-type]


def test_a_line_runs_from_corner_to_corner_of_its_range() -> None:
    # y to 1.05 x the highest value: 0 is at 194, 1 at 194 - 180 / 1.05 = 22.6
    svg = chart([Line(name="a", points=[(0, 0.0), (5, 0.5), (10, 1.0)])])
    assert [line["d"] for line in drawn(svg, "line")] == ["M44.0 194.0L196.0 108.3L348.0 22.6"]


def test_a_logarithmic_axis_puts_ten_in_the_middle_of_one_and_a_hundred() -> None:
    svg = chart([Line(name="a", points=[(1, 1.0), (10, 1.0), (100, 1.0)])], Axes(x="k", x_log=True))
    assert re.findall(r"[ML]([\d.]+) ", drawn(svg, "line")[0]["d"]) == ["44.0", "196.0", "348.0"]


def test_a_band_goes_along_its_upper_ends_and_back_along_the_lower_ones() -> None:
    svg = chart([Line(name="a", points=[(0, 1.0), (1, 1.0)], band=[(0.0, 2.0), (1.0, 2.0)])])
    # the y axis ends at 2.1: 2 is at 194 - 180 x 2 / 2.1 = 22.6, 1 at 108.3
    assert drawn(svg, "band")[0]["d"] == "M44.0 22.6L348.0 22.6L348.0 108.3L44.0 194.0Z"


def test_no_line_crosses_a_point_that_was_not_measured() -> None:
    svg = chart([Line(name="a", points=[(0, 1.0), (1, 1.0), (2, None), (3, 1.0), (4, math.nan), (5, 1.0)])])
    assert drawn(svg, "line")[0]["d"].count("M") == 3


def test_a_single_point_is_a_dot() -> None:
    svg = chart([Line(name="a", points=[(3, 0.5)])])
    assert not drawn(svg, "line")
    assert len(drawn(svg, "dot")) == 1


def test_nothing_is_drawn_of_nothing() -> None:
    assert chart([]) == ""
    assert chart([Line(name="a", points=[(0, None), (1, math.nan)])]) == ""
    assert column_chart([], [], title="", description="") == ""


def test_phases_and_marks_stand_where_they_belong_and_are_escaped() -> None:
    svg = chart(
        [Line(name="a", points=[(0, 0.0), (10, 1.0)])],
        phases=[Phase(start=-1, end=5, label="<b>"), Phase(start=5, end=99, label="cloze")],
        marks=[Mark(x=10, y=1.0, label="kept & best")],
    )
    assert [(float(p["x"]), float(p["width"])) for p in drawn(svg, "phase")] == [(44.0, 152.0), (196.0, 152.0)]
    assert (drawn(svg, "ring")[0]["cx"], drawn(svg, "ring")[0]["cy"]) == ("348.0", "22.6")
    assert "&lt;b&gt;" in svg and "kept &amp; best" in svg


def test_a_chart_tells_what_it_shows_to_those_who_do_not_see_it() -> None:
    tree = ElementTree.fromstring(chart([Line(name="a", points=[(0, 1.0), (1, 2.0)])]))
    assert tree.attrib["role"] == "img"
    assert [tree[0].text, tree[1].text] == ["a title", "what it shows"]


def test_columns_are_as_high_as_their_values() -> None:
    # two columns between 44 and 348, y from 144 down to 14 for the highest
    path = drawn(column_chart([5, 10], [(0, "a")], title="t", description="d"), "fill")[0]["d"]
    assert path == "M44.0 144.0V79.0H196.00V14.0H348.00V144.0Z"


def test_cells_scale_to_the_table_and_keep_inside() -> None:
    # from 4 to 146: 0.5 of 1 is at 75; an interval that ends outside ends at the edge
    cell = interval_cell(0.5, 0.25, 7.0, 1.0)
    assert drawn(cell, "dot")[0]["cx"] == "75.0"
    assert (drawn(cell, "line")[0]["x1"], drawn(cell, "line")[0]["x2"]) == ("39.5", "146.0")
    assert [bar["width"] for bar in drawn(bars_cell([0.5, 0.25], 0.5), "fill")] == ["150.0", "75.0"]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low: float, span: float, most: int) -> None:
    found = ticks(low, low + span, most)
    assert len(found) <= most + 1
    assert all(low - 1e-6 * (span + abs(low)) <= tick <= low + span + 1e-6 * (span + abs(low)) for tick in found)
    assert found == sorted(found)


def test_ticks_of_a_range_without_length_are_its_one_number() -> None:
    assert ticks(3.0, 3.0) == [3.0]


@given(st.floats(1e-3, 1e3), st.floats(1.0, 1e4))
def test_log_ticks_lie_inside(low: float, factor: float) -> None:
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in log_ticks(low, low * factor))


@given(st.floats(0, 10), st.floats(10.5, 20), st.floats(-5, 25))
def test_a_scale_keeps_to_its_ends(low: float, high: float, value: float) -> None:
    assert -1e-9 <= Scale(low, high, 0.0, 100.0).place(value) <= 100.0 + 1e-9


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9, -3.0])
def test_a_flat_line_has_a_place(value: float) -> None:
    svg = chart([Line(name="a", points=[(0, value), (1, value)])], Axes(x="epoch", y_zero=False))
    places = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.-]+)", drawn(svg, "line")[0]["d"])]
    assert all(14 <= place <= 194 for place in places)
