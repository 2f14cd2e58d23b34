"""Report of a pre-training of either kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """Report of a pre-training of a Recformer or of a sequence model; JSON-friendly.

    Attributes
    ----------
    folder
        The pre-trained Recformer, a value for `recformer.init`, or the sequence model's bundle, one for
        `train.warm_start`.
    steps, best_step
        Of a Recformer's optimizer; epochs of a sequence model.
    catalogues
        Of each: users, items, events, whether it is held out; for a Recformer tokens, values cut, items without text.
    history
        A Recformer's has an entry each time the held-out catalogues were looked at, a sequence model's one an epoch.
    resumed
        Steps that a killed training had done, of a sequence model in the epoch that it was in; None: it was not killed.
    """

    folder: str
    identity: str
    steps: int
    best_step: int
    parameters: int
    seconds: float
    catalogues: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    resumed: int | None = None
