"""Tags of every run: which program made it, of which version, in which commit of the project's repository."""

from __future__ import annotations

import contextlib
import functools
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from recsys.tracking import telemetry


def source_tags() -> dict[str, str]:
    """Return MLflow's own tags of a source, with the commit that the working directory's repository is at."""
    return {"mlflow.source.name": "recsys", "mlflow.source.type": "JOB", **_versions(Path.cwd())}


@functools.cache
def _versions(folder: Path) -> dict[str, str]:
    tags = {}
    with contextlib.suppress(PackageNotFoundError):
        tags["recsys.version"] = version("recsys")
    from mlflow.utils.git_utils import get_git_branch, get_git_commit

    with telemetry.quiet("mlflow", "git"):  # no repository, or no git
        found = {"mlflow.source.git.commit": get_git_commit(folder), "mlflow.source.git.branch": get_git_branch(folder)}
    return tags | {key: value for key, value in found.items() if value}
