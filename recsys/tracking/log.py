"""MLflow: one run per night with nested step runs, the tables it read and the numbers it made.

Everything goes through `Store.send` with explicit run ids. MLflow's active run is thread-local state, and a step may
run in a thread of a scheduler. Nothing here fails because MLflow does; see `recsys.tracking.store`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import tomlkit

from recsys.errors import RecsysError
from recsys.running import current, running, short
from recsys.settings import RunSettings, Settings
from recsys.storage.addresses import masked, without_login
from recsys.storage.warehouse import scan
from recsys.tracking.operations import (
    DESCRIPTION_TAG,
    KIND_TAG,
    LOCAL,
    NAME_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    RUN_TAG,
    STEP_TAG,
    children,
    real_id,
)
from recsys.tracking.owner import WAREHOUSE_TAG
from recsys.tracking.parameters import parameters
from recsys.tracking.source import source_tags
from recsys.tracking.store import Store, first_line, open_store, unavailable

__all__ = ["PARENT_TAG", "STEP_TAG", "Store", "open_store"]  # and the functions below

TEST_PART = "test"  # the data set that figures of `test/...` are of
MODEL_TRAINING = "workflowType=machine_learning"  # without it MLflow opens its view for GenAI, which shows no metrics
_DIGEST_LENGTH = 36
_COLOURS = 128  # of a picture
_NAME = re.compile(r"[A-Za-z0-9_\-. /:]+")


# --- runs -----------------------------------------------------------------------------------------


def start_run(store: Store, name: str, tags: Mapping[str, str] | None = None) -> str:
    """Begin a run and return its id; it stays `RUNNING` until `end_run`.

    The id of a run that begins while the store does not answer is this program's own.
    """
    run = LOCAL + uuid.uuid4().hex
    known = _origin_tags(store)
    if store.process is not None:
        known[PROCESS_TAG] = store.process
    if (night := current().run) is not None:
        known[RUN_TAG] = short(night)
    return str(store.send("create", run=run, name=name, tags={**known, **(tags or {})}, time=_now()) or run)


def start_night(store: Store, settings: RunSettings, moment: datetime, *, what: str = "") -> str:
    """Begin the run of a night, or of other work with steps, and log its settings; returns the run's id.

    Parameters
    ----------
    what
        A word after the configuration's name, for what is no night.
    """
    tags = {NAME_TAG: settings.name}
    if isinstance(settings, Settings):
        tags[KIND_TAG] = settings.model.kind
    name = " ".join(part for part in (settings.name, what, f"{moment:%Y-%m-%d %H:%M:%S}") if part)
    run_id = start_run(store, name, tags)
    log_settings(store, run_id, settings)
    return run_id


def resume_run(store: Store, run_id: str) -> bool:
    """Set an earlier run back to `RUNNING`; False where the store no longer has it."""
    if store.answers():
        try:
            run = store.client.get_run(real_id(store, run_id))
        except LookupError:
            return False
        except Exception as error:
            if not unavailable(error):
                return False
        else:
            if run.info.lifecycle_stage != "active" or run.info.experiment_id != store.experiment_id:
                return False
    store.send("resume", run=run_id, process=store.process)
    return True


def end_run(store: Store, run_id: str, status: str = "FINISHED", error: BaseException | None = None) -> None:
    """Close a run as `FINISHED`, `FAILED` or `KILLED`, with the error's sentence as a tag."""
    sentence = None if error is None else f"{type(error).__name__}: {first_line(error)}"
    store.send("end", run=run_id, status=status, time=_now(), error=sentence)


def end_runs_of(store: Store, process: str) -> None:
    """Close as `KILLED` the runs that a process which is gone left `RUNNING`."""
    store.send("end_all", process=process)


@contextlib.contextmanager
def step_run(store: Store, step: str, parent: str | None = None) -> Iterator[str]:
    """A run for one step, nested under `parent` where given; closed as failed when the step raises.

    Without a parent it is nested in the night that has begun, if one has; otherwise its id is that of all that happens
    in the block.
    """
    top = parent or store.begun
    tags = {STEP_TAG: step} | ({PARENT_TAG: top} if top else {})
    name = step if top else f"{step} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    run_id = start_run(store, name, tags)
    if parent is None and top is not None:
        store.alone.append(run_id)
    if top is None and current().run is None:
        tag(store, run_id, RUN_TAG, short(run_id))
    try:
        with running(run=current().run or run_id):
            yield run_id
    except BaseException as error:
        end_run(store, run_id, "FAILED" if isinstance(error, Exception) else "KILLED", error)
        raise
    end_run(store, run_id)


@contextlib.contextmanager
def begun(store: Store, settings: RunSettings) -> Iterator[str]:
    """Begin the run of a night before its first step, and yield its id, which all that happens in the block carries.

    A night that fails before `settled` fails in this run: failed starts in a row are one run.
    """
    moment = datetime.now(UTC)
    store.alone.clear()
    run_id = store.begun = start_night(store, settings, moment)
    tag(store, run_id, RUN_TAG, short(run_id))
    try:
        with running(run=run_id, name=settings.name):
            yield run_id
    except BaseException as error:
        if store.begun is not None:
            store.send(
                "gather",
                run=run_id,
                name=f"{settings.name} {moment:%Y-%m-%d %H:%M:%S}",
                tags={**_origin_tags(store), NAME_TAG: settings.name},
                begun=int(moment.timestamp() * 1000),
                time=_now(),
                steps=list(store.alone),
                status="FAILED" if isinstance(error, Exception) else "KILLED",
                error=f"{type(error).__name__}: {first_line(error)}",
            )
        raise
    finally:
        store.begun = None
        store.alone.clear()


def settled(store: Store, run_id: str) -> None:
    """Say which run the night that has begun is: its own, or an earlier one that it goes on with.

    Then the steps done so far are the earlier run's, and the one that was begun for nothing is taken away.
    """
    if store.begun not in (None, run_id):
        for step in store.alone:
            store.send("adopt", run=step, parent=run_id)
        store.send("delete", run=store.begun)
    store.begun = None
    store.alone.clear()


def describe(store: Store, run_id: str, markdown: str) -> None:
    """The text that the UI shows on top of a run."""
    store.send("tag", run=run_id, key=DESCRIPTION_TAG, value=markdown)


def tag(store: Store, run_id: str, key: str, value: str) -> None:
    """Set a tag of a run."""
    store.send("tag", run=run_id, key=key, value=value)


def child_runs(store: Store, run_id: str) -> list[Any]:
    """The nested runs of a run, oldest first."""
    return children(store, run_id)


def run_link(store: Store, run_id: str, host: str = "http://127.0.0.1:5000") -> str:
    """The run's page: on the server itself, or on `recsys ui` where the store is a database.

    The experiment's page for a run that the store does not know yet.
    """
    address = without_login(store.uri)[0]
    if address.startswith(("http://", "https://")):
        parts = urlsplit(address)
        host = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    page = f"{host}/#/experiments/{store.experiment_id}"
    known = store.ids.get(run_id) if run_id.startswith(LOCAL) else run_id
    return f"{page}/runs/{known}?{MODEL_TRAINING}" if known else f"{page}?{MODEL_TRAINING}"


def lacking(store: Store) -> str | None:
    """A sentence about what the store has not taken; None where it has all."""
    unsent = store.unsent()
    if unsent is None:
        return None
    kept = f"they are kept in {unsent['file']} and sent at the next start" if unsent["file"] else "they are lost"
    reason = unsent["reason"] or "there was no room to keep them"
    return f"MLflow lacks {unsent['records']} records of this run ({reason}); {kept}."


def _origin_tags(store: Store) -> dict[str, str]:
    """Tags that tell of which program and of which warehouse a run is."""
    return source_tags() | ({WAREHOUSE_TAG: store.warehouses[0]} if store.warehouses else {})


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


# --- what a run reports ---------------------------------------------------------------------------


def check_name(name: str) -> str:
    """The name itself when MLflow accepts it for a metric.

    Raises
    ------
    ValueError
        Characters that MLflow rejects, such as the `@` of `ndcg@10`; use `columns.metric_name`.
    """
    unsafe = name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/"))
    if unsafe or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a metric name; letters, digits, _ - . space : and / are, as in test/ndcg_at_10"
        )
    return name


def metric_part(name: str) -> str:
    """A name as a part of a metric's.

    >>> metric_part("text+transitions")
    'text_transitions'
    """
    return re.sub(r"[^A-Za-z0-9_\-. :]", "_", name)


def log_settings(store: Store, run_id: str, settings: RunSettings) -> None:
    """Log what the kind of model reads as parameters, and all settings as `config.toml` and `config.json`."""
    tree = settings.model_dump(mode="json")
    store.send("params", run=run_id, values=parameters(settings))
    log_text(store, run_id, "config.json", masked(json.dumps(tree, indent=2, ensure_ascii=False)))
    log_text(store, run_id, "config.toml", masked(tomlkit.dumps(_with_none_said(tree))))


def _with_none_said(tree: Mapping[str, Any]) -> dict[str, Any]:
    """None as "none", as a configuration has it: TOML has no word for it, and an absent key means the default."""
    return {
        key: _with_none_said(value) if isinstance(value, Mapping) else "none" if value is None else value
        for key, value in tree.items()
    }


def log_tables(
    store: Store,
    run_id: str,
    root: str,
    versions: Mapping[str, int | None],
    digest: str | None = None,
    context: str = "training",
) -> None:
    """Log tables as data sets that a run reads: version, content digest, rows and columns.

    Parameters
    ----------
    root
        The warehouse.
    versions
        Table name to Delta version; None where there is no such table.
    digest
        Of the sources' content (hex); MLflow has room for the beginning. It is the run's tag `recsys.data`, too.
    context
        "training", "evaluation" or "ingest".
    """
    datasets = []
    for table, number in versions.items():
        if number is None:
            continue
        ending = f"v{number}"
        rows, columns = _rows_and_columns(root, table, number)
        datasets.append(
            {
                "name": table,
                "digest": f"{digest[: _DIGEST_LENGTH - len(ending) - 1]}-{ending}" if digest else ending,
                "source_type": "delta_table",
                "source": json.dumps({"uri": masked(f"{root.rstrip('/')}/{table}"), "version": number}),
                "profile": json.dumps({"version": number} | ({} if rows is None else {"num_rows": rows})),
                "schema": _schema(columns) if columns else None,
            }
        )
    if datasets:
        store.send("inputs", run=run_id, datasets=datasets, context=context)
    if digest:
        store.send("tag", run=run_id, key="recsys.data", value=digest)


def _rows_and_columns(root: str, table: str, version: int) -> tuple[int | None, dict[str, str]]:
    """Count a table's rows, and name the types of its columns; nothing where it cannot be asked."""
    try:
        rows = scan(root, table, version)
        columns = {name: str(kind) for name, kind in rows.collect_schema().items()}
        return int(rows.select(pl.len()).collect().item()), columns
    except (RecsysError, OSError, pl.exceptions.PolarsError):  # whoever reads the table says what is wrong with it
        return None, {}


def _schema(columns: Mapping[str, str]) -> str:
    """Columns as the UI reads them."""
    return json.dumps({"mlflow_colspec": [{"name": name, "type": kind} for name, kind in columns.items()]})


def log_test_part(store: Store, run_id: str, frame: pl.DataFrame, digest: str) -> None:
    """Log the test part as a data set: two evaluations on the same one have the same digest.

    Parameters
    ----------
    frame
        A row for each user, or for each target of a user who has several.
    digest
        Of users and targets (hex).
    """
    dataset = {
        "name": TEST_PART,
        "digest": digest[:_DIGEST_LENGTH],
        "source_type": "code",
        "source": json.dumps({"tags": {"artifact": "users.parquet"}}),
        "profile": json.dumps({"num_rows": len(frame)}),
        "schema": _schema({name: str(kind) for name, kind in frame.schema.items()}),
    }
    store.send("inputs", run=run_id, datasets=[dataset], context="evaluation")


def log_metrics(store: Store, run_id: str, metrics: Mapping[str, Any], *, step: int = 0) -> None:
    """Log the numbers of a mapping under their own names; other values are left out.

    Raises
    ------
    ValueError
        A name that MLflow does not accept.
    """
    if values := numbers(metrics):
        store.send("metrics", run=run_id, values=values, time=_now(), step=step)


def log_curve(store: Store, run_id: str, name: str, points: Mapping[int, Any]) -> None:
    """Log a metric over whole numbers other than time, such as cut-offs; the UI draws it as a line."""
    values = {step: value for step, value in points.items() if isinstance(value, (int, float))}
    now = _now()
    if values:
        series = [(step, float(value), now) for step, value in values.items()]
        store.send("series", run=run_id, points={check_name(name): series})


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a mapping, under names that MLflow accepts."""
    return {
        check_name(name): float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def log_text(store: Store, run_id: str, path: str, text: str) -> None:
    """Write a text artifact such as `report.md`."""
    store.send("artifact", run=run_id, path=path, text=text)


def log_file(store: Store, run_id: str, path: str, content: bytes) -> None:
    """Write bytes as an artifact such as `users.parquet`."""
    store.send("artifact", run=run_id, path=path, encoded=base64.b64encode(content).decode())


def log_table(store: Store, run_id: str, path: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as a table artifact (`*.json`), which the UI shows as a table."""
    if not path.endswith(".json"):
        raise ValueError(f"{path!r}: a table artifact is a .json file")
    store.send("table", run=run_id, path=path, columns=list(columns), rows=_rows(columns))


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*columns.values(), strict=True)]


def markdown_table(columns: Mapping[str, Sequence[Any]]) -> str:
    """Columns of equal length as a markdown table.

    >>> print(markdown_table({"user": [1], "items": ["a|b"]}))
    | user | items |
    | --- | --- |
    | 1 | a\\|b |
    """
    lines = [list(columns), ["---"] * len(columns), *_rows(columns)]
    cell = [[str(value).replace("|", "\\|").replace("\n", " ") for value in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cell)


def log_figure(store: Store, run_id: str, path: str, figure: Any) -> None:
    """Write a matplotlib figure, for example as `plots/loss.png`."""
    from PIL import Image

    drawn, picture = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    # lines and letters have few colours: a palette takes a third of the room
    Image.open(drawn).convert("RGB").quantize(_COLOURS).save(picture, format="png", optimize=True)
    log_file(store, run_id, path, picture.getvalue())
