"""Compare: evaluations of several runs, found by MLflow run, bundle, run state or configuration."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.bundles.manifest import CONFIG, MANIFEST
from recsys.bundles.mirror import address, warehouse_of
from recsys.bundles.store import find_bundle, measured_bundle
from recsys.errors import InputError
from recsys.evaluation.runs import DEFAULT, compare_runs, parse_metric
from recsys.evaluation.users import FILE, STAND_INS, UserValues, from_parquet, local_path, with_stand_ins
from recsys.pipelines.steps import newest_bundle
from recsys.report.files import stand_ins
from recsys.running import short
from recsys.runs import local_folder, state_folder
from recsys.settings.read import load_settings
from recsys.storage.remote import is_url

_RUN_ID: Final = re.compile(r"[0-9a-f]{4,32}")


def compare(runs: Sequence[str], metrics: Sequence[str], uri: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compare each run's evaluation with the first run's; see `evaluation.runs.compare_runs`.

    Parameters
    ----------
    runs
        Each a run's id or its beginning (of a night or of its evaluation, in MLflow), a bundle's folder, a night's
        record in the warehouse's folder `runs`, a configuration (its newest bundle), or a file of values per user.
    metrics
        Such as `ndcg@10`, which is the default.
    uri
        The MLflow store of run ids.
    overrides
        `--set` values of every configuration among the runs.

    Raises
    ------
    InputError
        Overrides without a configuration, fewer than two runs, one that is not found or was not evaluated, or test
        parts that differ.
    """
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise InputError(f"recsys compare takes two or more different runs, and {len(set(runs))} is named.")
    if overrides and not any(map(_is_configuration, runs)):
        raise InputError("--set changes configurations, and none is among the runs; leave it out.")
    parsed = [parse_metric(text) for text in metrics or (DEFAULT,)]
    shown = {run: short(run) if _RUN_ID.fullmatch(run) else run for run in runs}
    labels = shown if len(set(shown.values())) == len(runs) else {run: run for run in runs}
    found = {run: find_values(run, uri, overrides) for run in runs}
    if any(values.about.get(STAND_INS) for values in found.values()):  # all by the same names
        found = {run: _private(values, run, uri, overrides) for run, values in found.items()}
    return compare_runs({labels[run]: values for run, values in found.items()}, parsed)


def find_values(run: str, uri: str, overrides: Sequence[str] = ()) -> UserValues:
    """Return the values per user of a run's evaluation.

    Raises
    ------
    InputError
        There is no such run, or it has no evaluation.
    """
    path = Path(run)
    if path.suffix == ".parquet" and path.is_file():
        return from_parquet(path.read_bytes(), run)
    if _is_configuration(run):
        settings = load_settings(run, overrides)
        return _of_bundle(Path(newest_bundle(settings)), local_folder(settings.warehouse))
    if path.suffix == ".json" and path.is_file():
        return _of_bundle(_bundle_of_night(path), path.parent.parent)
    if is_url(run):
        path = find_bundle(run)
    if (path / MANIFEST).is_file():
        return _of_bundle(path, path.resolve().parent.parent)
    if _RUN_ID.fullmatch(run):
        from recsys.tracking.artifacts import read_artifact  # imports MLflow

        return from_parquet(read_artifact(uri, run, FILE), f"The MLflow run {run}")
    raise InputError(
        f"There is no run {run!r} (looked in {Path.cwd()}); name a run's id (four digits or more of it), a bundle's "
        "folder or a configuration."
    )


def _is_configuration(run: str) -> bool:
    return Path(run).suffix == ".toml"


def _private(values: UserValues, run: str, uri: str, overrides: Sequence[str]) -> UserValues:
    """Name users by the pseudonyms of the warehouse that a run is of, where that can be told."""
    warehouse = None if values.about.get(STAND_INS) else _warehouse_of(run, uri, overrides)
    return values if warehouse is None else with_stand_ins(values, stand_ins(state_folder(warehouse)))


def _warehouse_of(run: str, uri: str, overrides: Sequence[str]) -> str | None:
    path = Path(run)
    if _is_configuration(run):
        return str(load_settings(run, overrides).warehouse)
    if path.suffix in (".json", ".parquet"):  # in a folder of the warehouse
        return str(path.resolve().parent.parent)
    if _RUN_ID.fullmatch(run):
        from recsys.tracking.artifacts import read_artifact

        with contextlib.suppress(InputError, ValueError, KeyError, TypeError):
            return str(json.loads(read_artifact(uri, run, CONFIG))["warehouse"])
        return None
    return warehouse_of(find_bundle(run))


def _of_bundle(bundle: Path, warehouse: Path) -> UserValues:
    with contextlib.suppress(InputError):  # figures outlive bundles
        bundle = measured_bundle(bundle)
    path = local_path(warehouse, bundle)
    if not path.is_file():
        raise InputError(
            f"The bundle {address(bundle)} has no evaluation in {warehouse}; run `recsys evaluate CONFIG --bundle "
            f"{address(bundle)}`."
        )
    return from_parquet(path.read_bytes(), str(path))


def _bundle_of_night(path: Path) -> Path:
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["steps"]["train"]["report"]["bundle"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no record of a night that has trained.") from None


def show_comparison(console: Console, report: Mapping[str, Any]) -> None:
    """The table of runs, that of differences to the first, and a sentence for each."""
    metrics = list(report["runs"][0]["metrics"])
    table = Table(title=f"{report['users']:,} users of the test part", title_justify="left")
    for column in ("run", "name", "bundle", "served"):
        table.add_column(column, overflow="fold")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for run in report["runs"]:
        texts = [escape(str(run.get(name) or "–")) for name in ("run", "name", "bundle", "served")]
        table.add_row(*texts, *(f"{run['metrics'][metric]:.4f}" for metric in metrics))
    console.print(table)
    table = Table(title=f"difference to {escape(report['comparisons'][0]['reference'])}", title_justify="left")
    table.add_column("run", overflow="fold")
    for column in ("metric", "difference", "95% interval", "p, bootstrap", "p, Wilcoxon", "smallest detectable"):
        table.add_column(column, justify="right")
    for one in report["comparisons"]:
        table.add_row(
            escape(one["run"]),
            one["metric"],
            f"{one['difference']:+.4f}",
            f"{one['low']:+.4f} to {one['high']:+.4f}",
            f"{one['p']:.2g}",
            f"{one['p_wilcoxon']:.2g}",
            f"{one['smallest_detectable']:.4f}",
        )
    console.print(table)
    if len(report["comparisons"]) > 1:
        console.print(f"p-values are corrected for {len(report['comparisons'])} comparisons (Holm).")
    for sentence in (*report["notes"], *(one["verdict"] for one in report["comparisons"])):
        console.print(escape(sentence), soft_wrap=True)
