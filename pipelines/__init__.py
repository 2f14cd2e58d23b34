"""Prefect flows over the library's plain functions, and the `recsys` command."""

from __future__ import annotations

import os

from recsys.tracking import telemetry

telemetry.off()  # before Prefect and MLflow are imported by any module of this package
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "60")  # 20 is short on a busy machine

from recsys.pipelines.orchestration import secrets as _secrets  # noqa: E402, F401 - what `${prefect:BLOCK}` stands for
