"""The library: plain functions and modules, no Prefect, no global state. `pipelines` composes it into flows."""

from __future__ import annotations

__version__ = "0.1.0"
