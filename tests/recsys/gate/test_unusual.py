"""A night's number of rows that the limits bear, and that people should hear of."""

from __future__ import annotations

import pytest

from recsys.gate.rows import check_volume
from recsys.pipelines.terminal.console import check_lines

NIGHTS = [200, 210, 220, 205, 240, 215, 225, 230]


@pytest.mark.parametrize(
    ("rows", "status", "than"),
    [
        (110, "passed", "fewer"),
        (150, "passed", None),
        (320, "passed", None),
        (330, "passed", "more"),
        (5, "failed", None),
    ],
)
def test_far_more_and_far_fewer_rows_than_on_any_night_are_told(rows: int, status: str, than: str | None) -> None:
    check = check_volume(rows, NIGHTS, 0.05, 20.0)
    assert (check.status, check.unusual) == (status, than is not None)
    said = f"{rows} new rows, where the last 8 nights had 218 (median)"
    assert check.sentence == (
        said + (f"; far {than} than any of these nights, and within the limits." if than else ".")
    )


def test_the_verdict_tells_what_is_unusual_before_what_passed() -> None:
    check = {"name": "new rows", "status": "passed", "sentence": "110 new rows.", "unusual": True}
    assert check_lines({"passed": True, "reasons": [], "checks": [check]}) == [
        "unusual: 110 new rows.",
        "1 check passed",
    ]
