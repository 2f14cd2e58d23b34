"""Forget: users out of the tables, the export and the records of nights. No flow and no MLflow run keeps their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recsys import runs
from recsys.backtest.tables import drop_replays
from recsys.data.forget import candidate_tables
from recsys.data.forget import forget as remove
from recsys.data.provenance import check_filled
from recsys.evaluation.users import forget_users
from recsys.exports import several
from recsys.exports.base import Candidates
from recsys.pipelines.report import reports_folder
from recsys.pipelines.steps import newest_candidates, plain
from recsys.report.files import forget_users as forget_pages
from recsys.report.files import pseudonyms
from recsys.settings import Settings
from recsys.storage.intact import naming_damage
from recsys.table.naming import candidates_table


def forget(settings: Settings, users: Sequence[str]) -> dict[str, Any]:
    """Remove users from a configuration's warehouse and from its export, where it has one.

    Raises
    ------
    InputError
        A user is in no table, or the warehouse is another configuration's.
    RecsysError
        Another process writes to the warehouse.
    """
    runs.need_warehouse(settings.warehouse)
    with naming_damage(settings.warehouse), runs.locked(settings.warehouse) as states:
        check_filled(settings, rules=False)
        report = plain(remove(settings.warehouse, users, states))
        report["evaluations"] = forget_users(settings.warehouse, users)
        report["reports"] = forget_pages(reports_folder(settings.warehouse), users, pseudonyms(states))
        report["replays"] = drop_replays(settings.warehouse)
        exported = several.rewrite(settings, lambda: Candidates(**newest_candidates(settings)))
        own = candidates_table(settings.warehouse, settings.name)
        others = [table for table in candidate_tables(settings.warehouse) if table != own]
    notes = [
        "Older versions of these tables are gone.",
        "MLflow's runs hold samples of at most 20 users each, reports the histories of a few (report.html, under "
        "pseudonyms unless report.show_user_ids is set), and evaluations the values of all test users (users.parquet); "
        "delete the runs that show one of these users.",
        "The sources are not changed; every reading leaves these users out.",
        "Bundles that learned from these users keep it, and cannot be evaluated on what is left: run `recsys train` or "
        "wait for the next night.",
    ]
    if others:
        notes.append(f"Exports of {', '.join(others)} still hold them: run `recsys export` for each configuration.")
    return {**report, "export": ", ".join(exported) or None, "notes": notes}
