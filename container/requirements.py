"""Print the requirements of the project, a line a package: `requirements.py EXTRA,EXTRA`; its builder is the first."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(project: Path, extras: list[str]) -> list[str]:
    """Return the requirements of a pyproject.toml and of some of its extras."""
    tree = tomllib.loads(project.read_text(encoding="utf-8"))
    further = [line for extra in extras for line in tree["project"]["optional-dependencies"][extra]]
    return [*tree["build-system"]["requires"], *tree["project"]["dependencies"], *further]


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1].split(","))))  # noqa: T201 - an answer
