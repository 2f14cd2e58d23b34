"""Scheduling: one night at 3 o'clock for one configuration, as a Prefect deployment.

    python examples/schedule.py recsys.toml            # shows the deployment
    python examples/schedule.py recsys.toml --serve    # serves it in this process until it is stopped

Without Prefect's server, cron does the same; the lock in the warehouse keeps two nights apart:

    0 3 * * *  cd /srv/shop && .venv/bin/recsys run recsys.toml --no-prefect --json >> nights.jsonl 2>> nights.log
"""

from __future__ import annotations

import sys

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from recsys import load_settings
from recsys.pipelines.nightly import nightly


def deployment(config: str, cron: str = "0 3 * * *", timezone: str = "Europe/Berlin") -> RunnerDeployment:
    """Return the deployment of a configuration's night; a wrong configuration is refused now, not at night."""
    name = load_settings(config).name
    made = nightly.to_deployment(
        name=name, schedule=Cron(cron, timezone=timezone), parameters={"config": config}, tags=["recsys", name]
    )
    assert isinstance(made, RunnerDeployment)
    return made


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python examples/schedule.py CONFIG [--serve]")
    planned = deployment(sys.argv[1])
    print(f"{planned.full_name}: {planned.schedules[0].schedule}, {planned.parameters}")
    if "--serve" in sys.argv:
        serve(planned)
