"""Sections: time and memory by step, and what the night was made from."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from recsys.report.charts import bars_cell
from recsys.report.night import Night, mapping, rows
from recsys.report.wording import DASH, count, day, known, seconds, short, size


def steps(night: Night) -> dict[str, Any] | None:
    """Return a row for each step with its time, a bar and its peak memory; None where no step is recorded."""
    found = {name: mapping(step) for name, step in mapping(night.record.get("steps")).items()}
    took: dict[str, float] = {name: step["seconds"] for name, step in found.items() if known(step.get("seconds"))}
    if not took:
        return None
    most = max(took.values())
    peaks = {name: found[name].get("peak_bytes") for name in took}
    return {
        "rows": [
            {
                "name": name,
                "seconds": seconds(value),
                "svg": bars_cell([value], most),
                "peak": size(peaks[name]),
            }
            for name, value in took.items()
        ],
        "total": seconds(sum(took.values())),
        "over": [mapping(one).get("sentence") for step in found.values() for one in rows(step.get("over"))],
        "memory": any(map(known, peaks.values())),
    }


def lineage(night: Night) -> list[dict[str, Any]]:
    """Return names, values, and whether a value is code or an address; what is not known is left out."""
    about, ingested, trained = night.about, night.step("ingest"), night.step("train")
    refit = night.step("refit")
    published = mapping(night.step("publish").get("candidates"))
    model = mapping(night.step("publish").get("model"))
    measured = trained.get("bundle")
    served = refit.get("bundle") or published.get("bundle") or measured
    kept_back = mapping(night.verdict).get("passed") is False
    versions = mapping(ingested.get("versions"))
    lines = [
        ("run", night.record.get("run_id"), "code"),
        ("started", day(night.record.get("started")), ""),
        ("configuration", night.record.get("name"), ""),
        ("kind of model", about.get("kind"), ""),
        ("seed", about.get("seed"), ""),
        ("bundle that was measured", _label(measured), "code"),
        ("bundle that would be served" if kept_back else "bundle that is served", _label(served), "code"),
        ("refit", refit.get("kind") or refit.get("reason"), ""),
        ("candidates", _candidates(published), ""),
        ("registered model", _registered(model), ""),
        (
            "versions of the tables",
            ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None),
            "",
        ),
        ("digest of the sources", short(about.get("data_digest")), "code"),
        ("program", about.get("program"), ""),
        ("git commit", about.get("git"), "code"),
        ("settings", short(about.get("settings")), "code"),
        ("MLflow run", about.get("mlflow"), "link"),
    ]
    found = [
        {"name": name, "value": str(value), "kind": kind if kind != "link" or _is_link(value) else "code"}
        for name, value, kind in lines
        if value not in (None, "", DASH)
    ]
    digests = mapping(ingested.get("digests"))
    found += [
        {"name": f"sha256 of {name}", "value": short(digest), "kind": "code"}
        for name, digest in list(digests.items())[:6]
    ]
    return found


def _is_link(value: Any) -> bool:
    return str(value).startswith(("http://", "https://"))


def _label(bundle: Any) -> str | None:
    return PurePath(str(bundle)).name if bundle else None


def _candidates(published: Any) -> str | None:
    if not published:
        return None
    return (
        f"{published.get('path')}, version {published.get('version')}: {count(published.get('rows'))} rows, up to "
        f"{published.get('k')} for each of {count(published.get('users'))} users"
    )


def _registered(model: Any) -> str | None:
    return f"{model['name']}, version {model.get('version')}" if model.get("name") else None
