"""The page of a night: one HTML file that needs nothing else, neither scripts nor the network.

Every text comes from a log, a catalogue or a configuration, so the template escapes all of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recsys.report import lineage, people, quality
from recsys.report.charts import swatch
from recsys.report.data import data
from recsys.report.night import Night
from recsys.report.rules import rules
from recsys.report.search import search
from recsys.report.training import training
from recsys.report.verdict import verdict
from recsys.report.wording import day

_TEMPLATES = Path(__file__).parent / "templates"


def page(night: Mapping[str, Any], called: Callable[[Any], str] | None = None) -> str:
    """Return the HTML of a night's record; see `recsys.report.night` for what a record holds.

    Whatever is missing leaves its section out: a night without a verdict, baselines, a training or slices has a page.

    Parameters
    ----------
    night
        The record, JSON-friendly.
    called
        Name of a user on the page, by id; by default users are numbered, and no id is shown.
    """
    read = Night(night)
    name_of = called or _numbered()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            name=str(night.get("name") or "night"),
            started=day(night.get("started")),
            status=night.get("status"),
            error=night.get("error"),
            verdict=verdict(read),
            against=quality.against(read),
            served=read.served,
            curves=quality.curves(read),
            metrics=quality.metrics_table(read),
            slices=quality.slices(read),
            rules=rules(read),
            spread=quality.spread(read),
            training=training(read),
            search=search(read),
            data=data(read),
            steps=lineage.steps(read),
            people=people.people(read, name_of),
            failures=people.failures(read, name_of),
            lineage=lineage.lineage(read),
            pair=[swatch(1, filled=True), swatch(2, filled=True)],
        )
    )


def _numbered() -> Callable[[Any], str]:
    known: dict[str, str] = {}

    def name_of(user: Any) -> str:
        return known.setdefault(str(user), str(len(known) + 1))

    return name_of


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals["style"] = Markup(
        (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    )  # our own, no text of others
    return environment
