"""Secrets that addresses name."""

from __future__ import annotations

import pytest

from recsys.errors import InputError
from recsys.storage import environment
from recsys.storage.environment import expanded, register


def test_variables_and_registered_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_RESOLVERS", {})
    with pytest.raises(
        InputError, match=r"items\.source needs a secret of the kind 'vault', and there are none in this"
    ):
        expanded("redis://:${vault:a b}@h", "items.source", {})
    register("vault", lambda name: f"<{name}>")
    assert expanded("redis://${USER}:${vault:a b}@h", "items.source", {"USER": "ann"}) == "redis://ann:<a b>@h"
    with pytest.raises(InputError, match="of the kind 'prefect', and there are vault; use an environment variable"):
        expanded("${prefect:x}", "items.source", {})
    with pytest.raises(InputError, match=r"items\.source needs the environment variable GONE, which is not set"):
        expanded("${GONE}", "items.source", {})
