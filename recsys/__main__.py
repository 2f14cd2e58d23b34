"""`python -m recsys`: the same command as `recsys`."""

from __future__ import annotations

import importlib

if __name__ == "__main__":
    # by name: the library itself imports nothing of the pipelines
    importlib.import_module("pipelines.cli").main()
