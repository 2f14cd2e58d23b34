"""Events of a night for Prefect's automations: published, kept back, failed, skipped."""

from __future__ import annotations

from typing import Any, Literal

from prefect.events import emit_event

from recsys.pipelines.terminal.console import without_secrets

Ending = Literal["published", "kept-back", "failed", "skipped"]


def tell(ending: Ending, name: str, sentence: str, **more: Any) -> None:
    """Emit `recsys.night.ENDING` of a configuration; the flow run and its deployment are related resources of it.

    Parameters
    ----------
    sentence
        What the state of the flow run says.
    more
        Further entries of the payload, JSON-friendly.
    """
    emit_event(
        event=f"recsys.night.{ending}",
        resource={"prefect.resource.id": f"recsys.night.{name}", "prefect.resource.name": name},
        payload=without_secrets({"name": name, "sentence": sentence, **more}),
    )
