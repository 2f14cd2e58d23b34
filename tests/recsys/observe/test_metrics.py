"""Metrics of a night: Prometheus' own parser reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recsys.errors import InputError, RecsysError
from recsys.observe.metrics import exposition, write_textfile
from recsys.runs import RunState
from recsys.settings.read import parse_settings

ENDED = "2026-11-28T03:10:00+00:00"
NIGHT = RunState(
    key="k",
    run_id="3f9a01c2" + 24 * "0",
    started="2026-11-28T03:00:00+00:00",
    status="finished",
    finished=ENDED,
    name="shop-a",
    steps={
        "ingest": {
            "report": {"rows_read": {"interactions": 9}, "rows_rejected": {"interactions": 2}},
            "seconds": 1.5,
            "peak_bytes": 4096,
        },
        "evaluate": {"report": {"metrics": {"test/ndcg_at_10": 0.25}}, "seconds": 2.0, "over": [{"what": "seconds"}]},
        "publish": {"report": {"candidates": {"rows": 30}}, "seconds": 0.5, "peak_bytes": 8192},
    },
)


def read(text: str) -> dict[tuple[str, ...], float]:
    """Each sample's value by its name and the values of its labels, but the configuration's name."""
    families = list(text_string_to_metric_families(text))
    assert all(family.type == "gauge" and family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["name"] for sample in samples} == {"shop-a"}
    return {
        (sample.name.removeprefix("recsys_"), *(v for k, v in sample.labels.items() if k != "name")): sample.value
        for sample in samples
    }


def told(night: RunState | None = NIGHT, state: str = "published", success: str | None = ENDED) -> dict[Any, float]:
    return read(exposition("shop-a", night, state, success=success, ended=ENDED, disk={"tables": 5}))


def test_a_night_in_numbers() -> None:
    found = told()
    assert found[("night_state", "published")] == 1 and found[("night_state", "kept back")] == 0
    assert found[("night_info", "3f9a01c2")] == 1
    assert found[("night_last_success_timestamp_seconds",)] - found[("night_start_timestamp_seconds",)] == 600
    assert found[("rows_read", "interactions")] == 9 and found[("rows_quarantined", "interactions")] == 2
    assert found[("rows_published",)] == 30 and found[("ndcg_at_10",)] == 0.25 and found[("disk_bytes", "tables")] == 5
    assert found[("step_seconds", "ingest")] == 1.5 and found[("step_peak_bytes", "publish")] == 8192
    assert found[("step_over_budget", "evaluate", "seconds")] == 1
    assert (
        found[("step_over_budget", "evaluate", "peak_bytes")] == 0 == found[("step_over_budget", "ingest", "seconds")]
    )


def test_a_night_without_a_record_still_says_that_it_failed() -> None:
    found = told(None, "failed", None)
    assert found[("night_state", "failed")] == 1 and ("night_info", "3f9a01c2") not in found
    assert ("night_last_success_timestamp_seconds",) not in found and ("night_end_timestamp_seconds",) in found


def test_the_file_is_replaced_in_one_step_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "collector" / "shop-a.prom"
    write_textfile(path, "old 1\n")
    write_textfile(path, "new 2\n")
    assert [file.name for file in path.parent.iterdir()] == ["shop-a.prom"]
    assert path.read_text() == "new 2\n" and path.stat().st_mode & 0o777 == 0o644
    (tmp_path / "file").touch()
    with pytest.raises(RecsysError, match="file of metrics"):
        write_textfile(tmp_path / "file" / "x.prom", "")


def test_a_name_that_the_collector_does_not_read_is_refused() -> None:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "metrics": {"textfile": "shop.txt"}}
    with pytest.raises(InputError, match=r"metrics\.textfile = 'shop\.txt': .*\.prom"):
        parse_settings(tree)
