"""Measures of the machine during a night: MLflow's own measures of processor and memory, beside this process' memory.

A thread only samples. The night's own thread sends what there is, so that a store which does not answer loses nothing
and delays nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import psutil

from recsys.tracking.store import Store

PREFIX: Final = "system/"  # the UI shows these under "System metrics"
_SECONDS: Final = 10.0  # between two samples
_MOST: Final = 2000  # samples that are kept unsent; more than a step has, as a day has 8,640


class Machine:
    """Samples of the machine for one run, whose id may become known later."""

    def __init__(self, store: Store, run_id: str | None = None, seconds: float | None = None) -> None:
        interval = os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL")  # as MLflow's own monitor reads it
        self.store, self.run_id = store, run_id
        self.seconds = seconds or (float(interval) if interval else _SECONDS)
        self._monitors = _monitors()
        self._process = psutil.Process()
        self._taken: list[tuple[int, dict[str, float]]] = []
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="recsys-machine", daemon=True)

    def send(self) -> None:
        """Send the samples since the last time."""
        if self.run_id is None:  # it is not known yet
            return
        taken, self._taken = self._taken, []
        points: dict[str, list[tuple[int, float, int]]] = {}
        for moment, values in taken:
            for name, value in values.items():
                points.setdefault(PREFIX + name, []).append((self._number, value, moment))
            self._number += 1
        if points:
            self.store.send("series", run=self.run_id, points=points)

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # a number that the system does not tell costs no night
                if len(self._taken) < _MOST:
                    self._taken.append((int(time.time() * 1000), self._look()))
            if self._stop.wait(self.seconds):
                return

    def _look(self) -> dict[str, float]:
        values: dict[str, float] = {"process_memory_usage_megabytes": round(self._process.memory_info().rss / 1e6, 1)}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    monitors: list[Any] = [CPUMonitor()]
    with contextlib.suppress(Exception):  # no such device, or no library that knows it
        monitors.append(GPUMonitor())
    return monitors


@contextlib.contextmanager
def watched(store: Store, run_id: str | None = None) -> Iterator[Machine]:
    """Sample the machine while the block runs; it is sent at `send` and at the end, once `run_id` is known."""
    machine = Machine(store, run_id)
    machine._thread.start()
    try:
        yield machine
    finally:
        machine._stop.set()
        machine._thread.join(timeout=10.0)
        machine.send()
