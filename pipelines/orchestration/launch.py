"""Flows started from the command line: with Prefect where it works, without it where it does not.

A night must not be lost to its scheduler. When Prefect's server does not answer, or goes away, the same plain
functions do the work; what is done already stays done, by the run's record. Errors of the work itself come
out as they are.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from recsys.errors import RecsysError
from recsys.pipelines.orchestration import prefect_api, unmasked
from recsys.pipelines.steps import as_function
from recsys.pipelines.watch import WATCH, Watch
from recsys.processes import registered
from recsys.settings import RunSettings, Settings
from recsys.storage.intact import naming_damage


def run_night(
    settings: Settings, config: str, overrides: Sequence[str], display: Watch, *, prefect: bool = True
) -> dict[str, Any]:
    """The night with Prefect, or without; returns the run's summary."""
    from recsys.pipelines.nightly import night
    from recsys.pipelines.sound import check_whole, sound

    def bare() -> dict[str, Any]:
        return night(settings)

    def flow() -> dict[str, Any]:
        from prefect import tags

        from recsys.pipelines.flows import nightly

        with unmasked.of(overrides) as shown, tags("recsys", settings.name):
            # a flow that ends in a state of its own answers with the state's data
            return cast(dict[str, Any], nightly(config, shown))

    # registered before Prefect starts its server
    with naming_damage(settings.warehouse), sound(check_whole, settings), registered(settings.warehouse):
        return _launch(flow, bare, display, prefect)


def run_step(
    step: str, settings: RunSettings, config: str, overrides: Sequence[str], display: Watch, **options: Any
) -> dict[str, Any]:
    """One step alone; with Prefect only where a server is named, for starting one takes 10 s."""
    from recsys.pipelines.sound import check_step, sound

    def as_flow() -> dict[str, Any]:
        from prefect import tags

        flow = getattr(importlib.import_module("recsys.pipelines.flows"), f"{step}_flow")
        with unmasked.of(overrides) as shown, tags("recsys", settings.name), display.step(step):
            report: dict[str, Any] = flow(config, shown, **options)
            return report

    def bare() -> dict[str, Any]:
        with display.step(step):
            alone = getattr(importlib.import_module(f"recsys.pipelines.{step}"), f"{step}_alone")
            report: dict[str, Any] = alone(settings, as_function, **options)
            return report

    with (
        naming_damage(settings.warehouse),
        sound(check_step, step, settings, **options),
        registered(settings.warehouse),
    ):
        return _launch(as_flow, bare, display, prefect_api.named())


@contextlib.contextmanager
def watched(settings: RunSettings, display: Watch, step: str) -> Iterator[None]:
    """Show the progress of the block's work, which runs without Prefect, and name files that it finds damaged."""
    from recsys.pipelines.sound import check_step, sound

    with naming_damage(settings.warehouse), sound(check_step, step, settings), registered(settings.warehouse):
        token = WATCH.set(display)
        try:
            yield
        finally:
            WATCH.reset(token)


def _launch(
    flow: Callable[[], dict[str, Any]], bare: Callable[[], dict[str, Any]], display: Watch, prefect: bool
) -> dict[str, Any]:
    token = WATCH.set(display)
    try:
        if not prefect:
            return bare()
        _hush_prefect()
        try:
            return flow()
        except Exception as error:
            if not _is_prefects(error, display):
                raise
            reason = f"Prefect does not answer ({type(error).__name__})"
            if display.summary is not None:
                display.warn(f"{reason}; the run itself is complete.")
                return display.summary
            display.warn(f"{reason}; going on without it.")
            return bare()
    finally:
        WATCH.reset(token)


def _is_prefects(error: BaseException, display: Watch) -> bool:
    """Return whether Prefect failed and not the work: before it began, after it ended, or by the error's origin."""
    if isinstance(error, RecsysError):
        return False
    return prefect_api.failed(error) or not display.entered or display.summary is not None


def _hush_prefect() -> None:
    """Failures of the work are told once, by the command, and not again with Prefect's traceback.

    Prefect's server still receives them.
    """
    from prefect.logging.configuration import ensure_logging_setup

    ensure_logging_setup()  # else it comes with the flow, after this
    for handler in logging.getLogger().handlers:  # Prefect puts its console on the root logger
        ours = type(handler).__module__.startswith("prefect.")
        if ours and not any(isinstance(known, _NotOurs) for known in handler.filters):
            handler.addFilter(_NotOurs())


class _NotOurs(logging.Filter):
    """Drops what the command shows itself: its own lines, and Prefect's reports of failed runs.

    Prefect's warnings still pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        told = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine", "prefect.flow_engine")
        own = getattr(record, "recsys_told", False) or record.levelno != logging.WARNING
        return not (record.name.startswith(told) and own)
