"""`python -m recsys`: the same command as `recsys`."""

from __future__ import annotations

from recsys.pipelines.cli import main

if __name__ == "__main__":
    main()
