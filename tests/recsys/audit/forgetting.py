"""Work of `recsys forget` on a warehouse, without MLflow and without the command around it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from recsys import runs
from recsys.audit.forgetting import Asked, places
from recsys.audit.places import Emptied, empty
from recsys.errors import RecsysError
from recsys.exports.base import Candidates
from recsys.forgetting.forgotten import add_forgotten
from recsys.forgetting.sought import Sought
from recsys.pipelines.steps import newest_candidates
from recsys.report.files import pseudonyms
from recsys.settings import Settings


def forget(
    settings: Settings, users: Collection[str] = (), items: Collection[str] = (), *, before: datetime | None = None,
    now: datetime | None = None,
) -> dict[str, Emptied]:  # fmt: skip
    """Empty every place but MLflow; what became of each, by the last part of its name."""
    sought = Sought(users=frozenset(users), items=frozenset(items), before=before)
    asked = Asked(
        settings=settings,
        sought=sought,
        called=pseudonyms(runs.state_folder(settings.warehouse)),
        store=RecsysError("There is no MLflow."),
        candidates=lambda: Candidates(**newest_candidates(settings)),
    )
    add_forgotten(settings.warehouse, sought, now or datetime.now(UTC))
    done = empty(places(asked))
    return {one.name.rpartition("/")[2]: one for one in done if not one.name.startswith("MLflow")}
