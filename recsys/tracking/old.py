"""Old runs of a configuration, each with those nested in it; what is needed, served or still runs keeps the whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from recsys.tracking.operations import LOCAL_TAG, PARENT_TAG, versions_of
from recsys.tracking.owner import WAREHOUSE_TAG

if TYPE_CHECKING:
    from recsys.tracking.store import Store

_PAGE: Final = 1000


def search(store: Store, query: str, *, deleted: bool = False) -> list[Any]:
    """Runs of the experiment that meet a query of MLflow, with `deleted` also those that are marked so."""
    from mlflow.entities import ViewType

    view, found, token = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY, [], None
    while token != "":
        page = store.client.search_runs([store.experiment_id], query, view, max_results=_PAGE, page_token=token)
        found += page
        token = page.token or ""
    return found


def began(before: datetime) -> str:
    """The query for runs that began before a moment."""
    return f"attributes.start_time < {int(before.timestamp() * 1000)}"


def of_warehouse(store: Store, runs: Iterable[Any]) -> Iterator[Any]:
    """Those of some runs that are the warehouse's.

    A run of an earlier version does not say whose it is. It counts as the warehouse's, unless others write there, too.
    """
    runs = list(runs)
    strange = {run.info.run_id for run in of_nobody(store, runs)}
    own = {*store.warehouses, None}
    yield from (run for run in runs if run.data.tags.get(WAREHOUSE_TAG) in own and run.info.run_id not in strange)


def of_nobody(store: Store, runs: Iterable[Any]) -> list[Any]:
    """Those of some runs that do not say whose they are, where several warehouses write to the experiment."""
    silent = [run for run in runs if WAREHOUSE_TAG not in run.data.tags]
    others = " and ".join(f"tags.`{WAREHOUSE_TAG}` != '{own}'" for own in (store.warehouses or ("",)))
    if silent and store.client.search_runs([store.experiment_id], others, max_results=1):
        return silent
    return []


def going(
    store: Store, query: str, own: Callable[[Any], bool], keep: Collection[str], *, deleted: bool = False
) -> Iterator[list[Any]]:
    """Yield runs that may go, each behind those nested in it: a kill leaves what leads to them.

    Parameters
    ----------
    query
        Of MLflow, for the runs to look at.
    own
        Whether a run of this warehouse is the configuration's.
    keep
        Nights that stay, with the runs that are nested in them.
    deleted
        Whether runs that are marked as deleted are looked at, too.
    """
    tops = (run for run in search(store, query, deleted=deleted) if PARENT_TAG not in run.data.tags)
    for run in of_warehouse(store, tops):
        if own(run):
            whole = list(_with_nested(store, run, deleted))
            if not any(_stays(store, one, keep) for one in whole):
                yield whole


def _with_nested(store: Store, run: Any, deleted: bool) -> Iterator[Any]:
    for one in search(store, f"tags.`{PARENT_TAG}` = '{run.info.run_id}'", deleted=deleted):
        yield from _with_nested(store, one, deleted)
    yield run


def _stays(store: Store, run: Any, keep: Collection[str]) -> bool:
    """Return whether a run is to be kept, by its id or by that of a time without MLflow, still runs, or is served."""
    named = run.info.run_id in keep or run.data.tags.get(LOCAL_TAG) in keep
    return named or run.info.status == "RUNNING" or _serves(store, run.info.run_id)


def _serves(store: Store, run_id: str) -> bool:
    """Return whether an alias of the registry, such as that of the champion, leads to a version of the run."""
    return any(
        str(one.version) in map(str, store.client.get_registered_model(one.name).aliases.values())
        for one in versions_of(store, run_id)  # which a search gives without their aliases
    )
