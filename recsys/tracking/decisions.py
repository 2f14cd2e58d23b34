"""Decisions about a night, where MLflow's users look for them: verdict, champion, and why somebody chose otherwise.

Each goes to the night's run, to the model that it logged and to the model's registered version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from recsys.storage.addresses import masked
from recsys.tracking import log as tracking
from recsys.tracking.operations import SENTENCE_TAG, VERDICT_TAG
from recsys.tracking.store import Store

VERDICT_FILE: Final = "verdict.json"
PASSED: Final = "passed"
KEPT_BACK: Final = "kept back"
_LONG: Final = 2000  # characters of a tag; stores take at least 5,000


def set_verdict(store: Store, run_id: str, verdict: Mapping[str, Any]) -> None:
    """Record the gate's verdict on a night: tags, `verdict.json`, and the differences as metrics `gate/...`.

    Parameters
    ----------
    verdict
        JSON-friendly: `passed`, `sentence`, and where there are such `reasons`, `champion` and `baselines`. A model
        that is registered later has the verdict, too.
    """
    tags = {VERDICT_TAG: PASSED if verdict["passed"] else KEPT_BACK, SENTENCE_TAG: _short(verdict["sentence"])}
    tracking.log_text(store, run_id, VERDICT_FILE, masked(json.dumps(verdict, indent=1, ensure_ascii=False)))
    store.send("mark", run=run_id, values=tags)
    tracking.log_metrics(store, run_id, verdict_metrics(verdict))
    tracking.describe(store, run_id, _short(verdict["sentence"]))


def verdict_metrics(verdict: Mapping[str, Any]) -> dict[str, float]:
    """Return the verdict's numbers, which make curves over nights.

    >>> verdict_metrics({"passed": True, "champion": {"difference": 0.004, "low": 0.002}})
    {'gate/passed': 1.0, 'gate/minus_champion': 0.004, 'gate/minus_champion_low': 0.002}
    """
    found = {"gate/passed": float(verdict["passed"])}
    others = {"champion": verdict.get("champion") or {}, **verdict.get("baselines", {})}
    for name, one in others.items():
        ends = {"": "difference", "_low": "low", "_high": "high"} if name == "champion" else {"": "difference"}
        for ending, key in ends.items():
            if isinstance(value := one.get(key), (int, float)):
                found[f"gate/minus_{tracking.metric_part(name)}{ending}"] = float(value)
    return found


def set_champion(store: Store, model_name: str, version: str | None = None, *, run_id: str | None = None) -> None:
    """Move the alias `champion` to a registered version, and tag its run; the former champion's run says until when.

    Parameters
    ----------
    model_name
        The registered model, which has the configuration's name.
    version
        None: that of `run_id`, as soon as the store knows it; a run whose model is not registered is tagged alone.
    """
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    store.send("champion", name=model_name, version=version, run=run_id, moment=moment)


def tag_why(store: Store, run_id: str, why: str, *, by: str) -> None:
    """Record on a run why somebody has chosen it.

    Parameters
    ----------
    by
        "promote" or "rollback".
    """
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    store.send("mark", run=run_id, values={"recsys.why": _short(why), "recsys.by": by, "recsys.chosen": moment})


def _short(text: str) -> str:
    text = masked(text)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
