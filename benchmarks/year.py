"""A year of nights of one shop: what each night costs, what it leaves on disk, how good it is, which faults it sees.

    .venv/bin/python benchmarks/year.py --nights 365
    .venv/bin/python benchmarks/year.py --quick

The shop is generated (year_shop.py) and brings a file a day, with planted faults. Each night is what `recsys run` does,
without Prefect, in this one process and at 3 o'clock of the day after, on a clock that is moved. Sampled nights are
compared with a full run: the same files read into an empty warehouse, and everything made from nothing.

Cost is CPU seconds, by step. The moved clock needs the package time-machine. It moves Python's clock alone, and the
Delta tables, which are written in Rust, keep files of old versions by their own: those stay on disk until the real year
is over. The program libfaketime moves every clock; `--clock FILE` names the file by which it is told the time:

    export LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1
    export FAKETIME_CACHE_DURATION=0 FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=/tmp/clock
    .venv/bin/python benchmarks/year.py --clock /tmp/clock

The two settings spare most of what libfaketime costs: it reads its file once a second, not at each look at the clock,
and idle threads of Delta's library, which wait by the clock that only counts on, come to an end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import common
import time_machine
from year_shop import START, Fault, Shop, configuration, planted

from recsys.data.prepare import prepare
from recsys.errors import RecsysError
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.night.refit import refit
from recsys.pipelines.nightly import night
from recsys.pipelines.steps import Step
from recsys.pipelines.terminal.console import check_lines, remarks
from recsys.pipelines.watch import Watch, watching
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.once import keeping
from recsys.storage.warehouse import current_versions
from recsys.table.build import build
from recsys.text.represent import represent

QUICK_NIGHTS, QUICK_EVERY, QUICK_PAST = 10, 10, 30
METRIC = "test/ndcg_at_10"
MIB = 2**20


class Listener(Watch):
    """Keeps what a night says, and the CPU seconds of its retention."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


def cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def resident() -> int:
    """Bytes of memory that this process takes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def one_night(settings: Settings) -> dict[str, Any]:
    """Run a night; returns its cost, its figures and all sentences."""
    steps: dict[str, float] = {}

    def run(step: Step, *arguments: Any) -> dict[str, Any]:
        began = cpu()
        report: dict[str, Any] = step.fn(*arguments)
        steps[step.fn.__name__] = cpu() - began
        if step.fn.__name__ == "ingest":
            told["added"] = report["rows_added"]["interactions"]
        return report

    listener, began, clock = Listener(), cpu(), time.perf_counter()
    told: dict[str, Any] = {"error": None, "published": False, "figure": None, "epochs": 0}
    try:
        with watching(listener):
            summary = night(settings, run)
    except RecsysError as error:
        told["error"] = f"{type(error).__name__}: {error}"
        listener.said.append(str(error))
    else:
        told |= {
            "published": summary["published"],
            "verdict": summary["verdict"]["sentence"],
            "figure": summary["metrics"].get(METRIC),
            "epochs": summary["epochs"] + summary["refit"]["epochs"],
        }
        listener.said += [*summary["verdict"]["reasons"], *check_lines(summary["verdict"]), *remarks(summary)]
    whole = cpu() - began
    steps["rest"] = whole - sum(steps.values())
    seconds = time.perf_counter() - clock
    return told | {"cpu": steps, "cpu_seconds": whole, "seconds": seconds, "said": list(dict.fromkeys(listener.said))}


def full_run(settings: Settings) -> dict[str, Any]:
    """Everything from nothing on the files as they are now; returns figure, cost and the digest of the log."""
    began = cpu()
    with keeping():
        versions = ingest(settings).versions
        represent(settings, versions)
        measured = fit(settings, versions).bundle
        report = evaluate(settings, versions, measured)
        served = refit(settings, versions, measured).bundle
        build(settings, versions, served, "full", START)
        digest = prepare(settings, versions).digest
    return {"figure": report.metrics.get(METRIC), "cpu_seconds": cpu() - began, "digest": digest}


def disk(shop: Path, name: str) -> dict[str, float]:
    """MiB of a warehouse by what it is of; a file with several names counts once."""
    seen: set[int] = set()
    sizes: dict[str, float] = {}
    for part, folder in (("", shop / name), ("mlflow", shop / f"{name}-mlflow"), ("export", shop / "export")):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.stat().st_ino not in seen:
                seen.add(path.stat().st_ino)
                kind = part or path.relative_to(folder).parts[0]
                sizes[kind] = sizes.get(kind, 0.0) + path.stat().st_size / MIB
    return sizes


def seen(fault: Fault, told: dict[str, Any]) -> str | None:
    """The first sentence of a night that says something of a fault."""
    if fault.kind == "clock in milliseconds" and told.get("added", 0) >= told["events"]:
        return f"no fault: times in milliseconds are known by their size; {told['added']} rows were added at theirs"
    pattern = re.compile("|".join(map(re.escape, fault.seen_by)), re.IGNORECASE)
    return next((text for text in told["said"] if pattern.search(text)), None)


def year(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All nights of the shop."""
    nights = QUICK_NIGHTS if given.quick else given.nights
    every = QUICK_EVERY if given.quick else given.every
    faults = planted(nights)
    past_days = QUICK_PAST if given.quick else given.past
    shop = Shop(folder=folder, events_a_day=given.events, past_days=past_days, seed=given.seed, faults=faults)
    past = shop.write_past()
    more = dict(pair.split("=", 1) for pair in given.set)
    settings = parse_settings(configuration(shop, "warehouse", more))
    records: list[dict[str, Any]] = []
    for day in range(1, nights + 1):
        events = shop.write_day(day)
        at = START + timedelta(days=day, hours=3)
        date_files(folder, at - timedelta(hours=1))
        with moved(at, given.clock):
            told = one_night(settings)
            date_files(folder, at)
            sizes = disk(folder, "warehouse")
            record = {"night": day, "events": events, "disk": sizes, "resident": resident() / MIB, **told}
            if day % every == 0 or day == nights:
                record["full"] = compared(shop, settings, more)
        if day in faults:
            record["fault"] = {"kind": faults[day].kind, "seen": seen(faults[day], record)}
        records.append(record)
        tell(record)
        with (folder / "nights.jsonl").open("a") as file:  # what is known so far, of a year that is stopped
            file.write(json.dumps(record) + "\n")
        if sum(record["seconds"] for record in records) > given.minutes * 60:  # every clock may be a moved one
            common.say(f"{given.minutes:g} minutes are over: the year ends with night {day}.")
            break
    return {"past": past, "nights": records, "settings": settings.model_dump(mode="json")}


@contextlib.contextmanager
def moved(at: datetime, clock: Path | None) -> Iterator[None]:
    """The clock begins at a moment, and goes on."""
    if clock is None:
        with time_machine.travel(at, tick=True):
            yield
        return
    clock.write_text(f"@{at:%Y-%m-%d %H:%M:%S}\n")
    began = time.perf_counter()
    while abs(time.time() - at.timestamp()) > 60:  # libfaketime reads its file once a second
        if time.perf_counter() - began > 10:
            raise RecsysError(f"The clock says {time.ctime()}, not {at}; is libfaketime told to read {clock}?")
        threading.Event().wait(0.1)  # time.sleep fails at a clock that is moved meanwhile
    yield


def date_files(folder: Path, at: datetime) -> None:
    """Give files and folders that are newer than a moment its time: the moved clock does not reach the file system."""
    moment = at.timestamp()
    for path in [*folder.rglob("*"), folder]:
        if path.lstat().st_mtime > moment:
            os.utime(path, (moment, moment), follow_symlinks=False)


def compared(shop: Shop, settings: Settings, more: dict[str, Any]) -> dict[str, Any]:
    """A full run beside a night, in a warehouse of its own that goes again."""
    tree = configuration(shop, "full", more)
    tree["train"] = {**tree["train"], "warm_start": None}
    try:
        found = full_run(parse_settings(tree))
    finally:
        shutil.rmtree(shop.folder / "full", ignore_errors=True)
    with keeping():
        found["same_log"] = prepare(settings, current_versions(settings.warehouse)).digest == found.pop("digest")
    return found


def tell(record: dict[str, Any]) -> None:
    """A line a night."""
    figure = "–" if record["figure"] is None else f"{record['figure']:.4f}"
    fault = f"; {record['fault']['kind']}: {record['fault']['seen']}" if "fault" in record else ""
    full = f"; from nothing {record['full']}" if "full" in record else ""
    ended = record["error"] or record["verdict"]
    common.say(
        f"night {record['night']}: {record['cpu_seconds']:.1f} CPU s ({record['seconds']:.1f} s), {figure}, "
        f"{sum(record['disk'].values()):.1f} MiB, {record['resident']:.0f} MiB resident; {ended}{full}{fault}"
    )


def show(found: dict[str, Any]) -> None:
    """Print the tables of a year."""
    nights = found["nights"]
    steps = list(dict.fromkeys(step for record in nights for step in record["cpu"]))
    rows = []
    for part in thirds(nights):
        row = {
            "nights": f"{part[0]['night']} to {part[-1]['night']}",
            "events a day": f"{median(record['events'] for record in part):,.0f}",
            "CPU s": f"{median(record['cpu_seconds'] for record in part):.1f}",
        }
        row |= {step: f"{median(record['cpu'].get(step, 0.0) for record in part):.2f}" for step in steps}
        rows.append(row)
    print("CPU seconds of a night by step, medians\n")
    print(common.table(rows))
    kinds = list(dict.fromkeys(kind for record in nights for kind in record["disk"]))
    print("\nMiB on disk after a night, medians\n")
    print(
        common.table(
            [
                {"nights": f"{part[0]['night']} to {part[-1]['night']}"}
                | {"all": f"{median(sum(record['disk'].values()) for record in part):.1f}"}
                | {kind: f"{median(record['disk'].get(kind, 0.0) for record in part):.2f}" for kind in kinds}
                | {"memory": f"{median(record['resident'] for record in part):.0f}"}
                for part in thirds(nights)
            ]
        )
    )
    print("\nNDCG@10 of sampled nights, and of a full run on the same files\n")
    print(common.table([quality(record) for record in nights if "full" in record]))
    print("\nPlanted faults\n")
    print(common.table([faulty(record) for record in nights if "fault" in record]))
    kept = [record for record in nights if not record["published"]]
    print(f"\n{len(nights) - len(kept)} of {len(nights)} nights were published. Not published:\n")
    for record in kept:
        print(f"- night {record['night']}: {record['error'] or record['verdict']}")


def thirds(nights: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The first night alone, and the others in up to six parts of equal length."""
    later = nights[1:]
    size = max(1, -(-len(later) // 6))
    return [nights[:1], *(later[start : start + size] for start in range(0, len(later), size))]


def quality(record: dict[str, Any]) -> dict[str, Any]:
    """A sampled night's row."""
    own, full = record["figure"], record["full"]
    return {
        "night": record["night"],
        "night's": "–" if own is None else f"{own:.4f}",
        "full run's": f"{full['figure']:.4f}",
        "difference": "–" if own is None else f"{own - full['figure']:+.4f}",
        "CPU s": f"{record['cpu_seconds']:.1f}",
        "full run's CPU s": f"{full['cpu_seconds']:.1f}",
        "same log": "yes" if full["same_log"] else "no",
    }


def faulty(record: dict[str, Any]) -> dict[str, Any]:
    """A fault's row: who saw it, and the sentence."""
    fault = record["fault"]
    if record["error"]:
        ended = "refused"
    else:
        ended = "published" if record["published"] else "kept back"
    return {"night": record["night"], "fault": fault["kind"], "night was": ended, "seen": fault["seen"] or "no"}


def main(arguments: list[str] | None = None) -> None:
    """Run a year."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--every", type=int, default=30, help="nights between two full runs")
    parser.add_argument("--events", type=int, default=200, help="of a day")
    parser.add_argument("--past", type=int, default=60, help="days before the first night")
    parser.add_argument("--minutes", type=float, default=60, help="of nights, after which the year ends early")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clock", type=Path, help="file from which libfaketime reads the time")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NIGHTS} nights: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every night")
    parser.add_argument("--folder", type=Path, help="where it runs; it stays (default: a scratch folder)")
    given = parser.parse_args(arguments)
    if given.folder is not None:
        given.folder.mkdir(parents=True)
        common.answer(given, year(given, given.folder), show)
        return
    with tempfile.TemporaryDirectory(prefix="recsys-year-") as scratch:
        common.answer(given, year(given, Path(scratch)), show)


if __name__ == "__main__":
    common.from_shell(main)
