"""A real server of Prefect's for the tests of the schedule."""

from __future__ import annotations

from tests.prefect_server import prefect  # noqa: F401 - a fixture
