"""The night's id at the flow run that records it, so that Prefect's page is found by it."""

from __future__ import annotations

import contextlib
import sys

from recsys.running import short


def mark(run: str) -> None:
    """Add the night's short id to the tags of Prefect's flow run; nothing where none records the night.

    A server that does not answer costs the tag alone.
    """
    if "prefect" not in sys.modules:
        return
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags={*context.flow_run.tags, tag_of(run)})


def tag_of(run: str) -> str:
    """The tag of a run.

    >>> tag_of("3f9a01c2" + 24 * "0")
    'run:3f9a01c2'
    """
    return f"run:{short(run)}"
