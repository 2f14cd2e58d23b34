"""Log lines of a service: text, or JSON where it is asked for."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from recsys.service import run


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("recsys")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_process_of_a_service_writes_the_form_that_its_command_chose(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_LOG_FORMAT", form)
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    run._log()
    logging.getLogger("recsys").info("another bundle answers")
    (line,) = file.getvalue().splitlines()
    if form == "json":
        assert json.loads(line)["message"] == "another bundle answers"
    else:
        assert line.endswith(" another bundle answers") and not line.startswith("{")
