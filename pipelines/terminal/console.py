"""Output for people: progress on stderr, answers on stdout, one sentence for an error.

With `--json` stdout carries exactly one JSON object; whatever a library prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys.observe.lines import LOGGER, log
from recsys.pipelines.terminal.progress import Show as Show
from recsys.storage.addresses import masked

if TYPE_CHECKING:
    from recsys.settings import Settings


@dataclass(kw_only=True)
class Output:
    """Console of a command's answer; with `json` there is one answer, even when something fails after it.

    Attributes
    ----------
    answers
        The real stdout.
    json
        One JSON object instead of text.
    debug
        Tracebacks.
    answered
        Whether the JSON object has been given.
    """

    answers: TextIO
    json: bool = False
    debug: bool = False
    answered: bool = False

    def answer(self, value: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Give a command's result: as JSON, or as `show` prints it."""
        if self.json:
            self._give(without_secrets(value))
        else:
            show(wide_console(self.answers))

    def error(self, message: str) -> None:
        """Say what went wrong, without passwords: on stderr, and with `--json` as the object on stdout."""
        message = masked(message)
        if self.json and not self.answered:
            self._give({"error": message})
        if log.json:
            log.line(message, logging.ERROR)
        else:
            Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]Error:[/] {escape(message)}")

    def traceback(self, error: BaseException) -> None:
        """The traceback, where `--debug` asks for it."""
        if self.debug and log.json:
            LOGGER.error("The error's traceback.", exc_info=error)
        elif self.debug:
            sys.stderr.write(masked("".join(traceback.format_exception(error))))

    def _give(self, value: Mapping[str, Any]) -> None:
        self.answers.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        self.answers.flush()
        self.answered = True


def without_secrets(value: Any) -> Any:
    """A JSON-friendly value with every address in it masked."""
    if isinstance(value, Mapping):
        return {masked(str(key)): without_secrets(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return masked(value) if isinstance(value, str) else value


def wide_console(file: TextIO) -> Console:
    """A console that does not cut tables where the output is no terminal."""
    return Console(file=file, highlight=False, width=None if file.isatty() else 160)


@contextlib.contextmanager
def only_answers(pure: bool) -> Iterator[TextIO]:
    """Yield the real stdout; with `pure`, everything else that is printed inside goes to stderr.

    The file descriptor is turned too, for libraries that print from C and for child processes.
    """
    if not pure:
        yield sys.stdout
        return
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
        saved: int | None = os.dup(descriptor)
    except (OSError, ValueError):  # a stream that is no file, as in tests
        descriptor, saved = -1, None
    if saved is None:
        answers = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            yield answers
        return
    answers = os.fdopen(os.dup(saved), "w", encoding="utf-8")
    os.dup2(2, descriptor)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield answers
    finally:
        with contextlib.suppress(BrokenPipeError):
            answers.close()
        os.dup2(saved, descriptor)
        os.close(saved)


def show_night(console: Console, summary: Mapping[str, Any], ui: str | None) -> None:
    """The end of a night: metrics beside the baselines, where things are, and what to do next."""
    show_metrics(console, summary["name"], summary)
    show_rules(console, summary.get("rules"))
    if verdict := summary.get("verdict"):  # an older night has none
        show_verdict(console, verdict)
    candidates = summary["candidates"]
    state = "kept back" if candidates["version"] is None else f"version {candidates['version']}"
    lines = {
        "candidates": f"{candidates['path']} ({state}, {candidates['rows']:,} rows: "
        f"up to {candidates['k']} for each of {candidates['users']:,} users)",
        "users": users_served(candidates),
        "filtered out": left_out_of_training(summary.get("left_out")),
        "bundle": summary["bundle"],
        "refit": refitted(summary),
        "untrained": summary.get("untrained"),
        "export": exported(summary.get("export")),
        "rejected": "\n".join(rejected_lines(summary["tables"]["reasons"])) or None,
        "left out": "\n".join(left_out_lines(summary["tables"].get("dropped", {}))) or None,
        "withdrawals": withdrawn(summary.get("withdrawals")),
        "unseen look-ups": counted(summary.get("unseen_look_ups", {})) or None,
        "repeated targets": summary.get("repeated_targets"),
        "MLflow run": summary["mlflow"]["link"] + (f"  (after `{ui}`)" if ui else ""),
        "MLflow lacks": _lacking(summary["mlflow"]),
        "seconds": ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items()),
        "report": summary.get("report"),
    }
    facts(console, lines)


def show_verdict(console: Console, verdict: Mapping[str, Any]) -> None:
    """The verdict's sentence, all reasons where there are several, and the checks that failed or could not be made."""
    colour = "green" if verdict["passed"] else "red"
    console.print(f"[bold {colour}]{escape(verdict['sentence'])}[/]", soft_wrap=True)
    for line in check_lines(verdict):
        console.print(f"  {escape(line)}", soft_wrap=True)


def check_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The reasons of a night that is kept back, and its checks: those that were not made, by reason.

    >>> check_lines({"passed": True, "reasons": [], "checks": [
    ...     {"name": "drift", "status": "skipped", "sentence": "The log has no time."},
    ...     {"name": "full lists", "status": "passed", "sentence": "All are full."}]})
    ['1 check passed', 'not checked: drift (the log has no time)']
    """
    checks = verdict["checks"]
    if not checks:
        return list(verdict["reasons"])
    passed = sum(check["status"] == "passed" for check in checks)
    failed = sum(check["status"] == "failed" for check in checks)
    counted = f"{passed} check{'' if passed == 1 else 's'} passed" + (f", {failed} failed" if failed else "")
    without: dict[str, list[str]] = {}
    for check in checks:
        if check["status"] == "skipped":
            without.setdefault(check["sentence"], []).append(check["name"])
    skips = [
        f"not checked: {', '.join(names)} ({why[:1].lower()}{why[1:].rstrip('.')})" for why, names in without.items()
    ]
    unusual = [f"unusual: {check['sentence']}" for check in checks if check.get("unusual")]
    return [*verdict["reasons"], *unusual, counted, *skips]


def exported(report: Mapping[str, Any] | None) -> str | None:
    """Say where each target's copy is, a line a target; None where nothing was exported."""
    targets = (report or {}).get("targets") or ({"export": report} if report else {})
    places = {name: of.get("path") or ("was there already" if of.get("held") else None) for name, of in targets.items()}
    if list(places) == ["export"]:
        return places["export"]
    return "\n".join(f"{name}: {place}" for name, place in places.items()) or None


def _lacking(tracked: Mapping[str, Any]) -> str | None:
    """Return a sentence on the records of a night that MLflow has not taken."""
    unsent = tracked.get("unsent")
    return f"{unsent['records']} records, kept in {unsent['file']}, sent at the next start" if unsent else None


def show_metrics(console: Console, name: str, report: Mapping[str, Any]) -> None:
    """`metrics` of what is served beside those of each of the `baselines`."""
    baselines = report["baselines"]
    table = Table(title=f"{name}: test, full ranking", title_justify="left")
    table.add_column("metric")
    for column in (report["served"], *baselines):
        table.add_column(column, justify="right")
    for metric, value in report["metrics"].items():
        table.add_row(metric, *(shown(v) for v in (value, *(b.get(metric) for b in baselines.values()))))
    console.print(table)
    step = report.get("report")  # of a night it is the path of its page
    if isinstance(step, Mapping) and (sample := step["protocol"].get("sample")):
        console.print(f"[dim]{escape(sample)}[/]")
    show_differences(console, report)


def show_rules(console: Console, priced: Mapping[str, Any] | None) -> None:
    """The price of each rule; nothing where there are no rules."""
    if priced:
        from recsys.pipelines.terminal.prices import show_prices  # not for `recsys --help`

        show_prices(console, priced)


def show_differences(console: Console, report: Mapping[str, Any]) -> None:
    """The lead of what is served over each baseline, with its interval; nothing where none was computed."""
    lines = differences(report)
    if lines:
        title = f"{report['served']} minus each baseline, 95% paired bootstrap, each alone"
        if report.get("verdict"):
            title += "\n(the verdict's intervals are wider: they hold for all comparisons together)"
        table = Table(title=title, title_justify="left")
        table.add_column("minus")
        for metric in next(iter(lines.values())):
            table.add_column(metric, justify="right")
        for name, values in lines.items():
            table.add_row(name, *values.values())
        console.print(table)


def differences(report: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Differences of the served ranker to each baseline, by metric, as text.

    >>> differences({"differences": {"popularity": {"test/hr_at_10": {"mean": 0.25, "low": 0.2, "high": 0.31}}}})
    {'popularity': {'test/hr_at_10': '+0.2500 (+0.2000 to +0.3100)'}}
    """
    return {
        name: {metric: "{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**value) for metric, value in values.items()}
        for name, values in report.get("differences", {}).items()
        if values
    }


def facts(console: Console, lines: Mapping[str, Any]) -> None:
    """Names and values, one a line or more; what is None is left out."""
    width = max(map(len, lines))
    for name, value in lines.items():
        if value is not None:
            indented = masked(str(value)).replace("\n", "\n" + " " * (width + 2))
            console.print(f"[bold]{name:<{width}}[/]  {escape(indented)}", soft_wrap=True)


def shown(value: Any) -> str:
    """A number with four decimals, anything else as it is; a dash for nothing."""
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def counted(counts: Mapping[str, int]) -> str:
    """Counts above zero as a list of names.

    >>> counted({"genres": 1200, "year": 0, "user:zip": 3})
    'genres 1,200, user:zip 3'
    """
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def rejected_lines(reasons: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Rejected rows, a line for each table and reason.

    >>> rejected_lines({"interactions": {"unparsable time": 1200}, "items": {}})
    ['interactions: unparsable time, 1,200 rows']
    """
    return [
        f"{table}: {reason}, {count:,} row{'s' if count != 1 else ''}"
        for table, counts in reasons.items()
        for reason, count in counts.items()
    ]


def left_out_lines(dropped: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Rows that the conditions of a configuration leave out, a line for each table and condition.

    >>> left_out_lines({"interactions": {"quantity below 1": 1200}})
    ['interactions: quantity below 1, 1,200 rows']
    """
    return [
        f"{table}: {condition}, {count:,} row{'s' if count != 1 else ''}"
        for table, counts in dropped.items()
        for condition, count in counts.items()
    ]


def users_served(candidates: Mapping[str, Any]) -> str:
    """Say how many users of the log have a list, and who made it.

    >>> users_served({"users": 9, "log_users": 9, "empty_lists": 0, "by_fallback": 2, "short_lists": 3, "k": 100})
    '9 of 9 users of the log, 2 by fallback; 3 lists are shorter than k = 100 and the items left allow'
    """
    have = candidates["users"] - candidates["empty_lists"]
    by = f", {candidates['by_fallback']:,} by fallback" if candidates.get("by_fallback") else ""
    filled = f", {candidates['filled_lists']:,} filled up by it" if candidates.get("filled_lists") else ""
    everyone = max(candidates.get("log_users") or 0, candidates["users"])
    short, k = candidates["short_lists"], candidates["k"]
    some = f"{short:,} list{' is' if short == 1 else 's are'} shorter than" if short else "every list is as long as"
    return f"{have:,} of {everyone:,} users of the log{by}{filled}; {some} k = {k:,} and the items left allow"


def left_out_of_training(left_out: Mapping[str, Any] | None) -> str | None:
    """A sentence on the users of the log from whom nothing is learned; None where there are none.

    >>> left_out_of_training({"users": 1200, "by": ["filter.min_user_interactions = 5"]})
    '1,200 users of the log, by filter.min_user_interactions = 5'
    """
    if not left_out or not left_out["users"]:
        return None
    many = left_out["users"]
    by = f", by {' and '.join(left_out['by'])}" if left_out["by"] else ""
    return f"{many:,} user{'' if many == 1 else 's'} of the log{by}"


def withdrawn(counts: Mapping[str, int] | None) -> str | None:
    """Say what withdrawals took back; None where there were none."""
    if not counts or not counts["rows"]:
        return None
    from recsys.data.withdrawals import Withdrawals  # not for `recsys --help`

    return str(Withdrawals(**counts))


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Remarks on a night's page: lines of a list in Markdown."""
    leads = [
        f"{summary['served']} minus {name}: {', '.join(f'{metric} {value}' for metric, value in values.items())}"
        for name, values in differences(summary).items()
    ]
    left_out = left_out_of_training(summary.get("left_out"))
    others = (
        summary.get("untrained"),
        refitted(summary),
        f"served: {users_served(summary['candidates'])}",
        left_out and f"left out of training: {left_out}",
        withdrawn(summary.get("withdrawals")),
    )
    return [f"- {line}" for line in (*leads, *others) if line]


def refitted(summary: Mapping[str, Any]) -> str | None:
    """Say what a night's served bundle was fitted on, and whose the figures are; None where that is the same bundle."""
    refit = summary.get("refit")
    if refit is None or refit["kind"] == "none":
        return None
    return f"{refit['reason']} The figures are of {Path(refit['measured']).name}, which it was made of."


def untrained(settings: Settings, report: Mapping[str, Any]) -> str | None:
    """A sentence on a model that no epoch has trained because train.epochs is 0; None for any other.

    `report` is the training's.
    """
    if settings.train.epochs or report["consumed"].get("trained") is not None:
        return None
    if start := started_from(settings, report):
        return f"No epoch was trained (train.epochs = 0): the model is that of {start} as it was, zero-shot."
    return (
        "No epoch was trained (train.epochs = 0) and no weights came from another bundle (train.warm_start): the model "
        "ranks by what it was initialised with. Set train.epochs to 1 or more, unless this is for comparison."
    )


def started_from(settings: Settings, report: Mapping[str, Any]) -> str | None:
    """The bundle or folder whose weights a training began with; None: it began with nothing."""
    return (report["warm_start"] or {}).get("bundle") or settings.recformer.init


def capped(report: Mapping[str, Any]) -> str | None:
    """A sentence on test targets that the history holds already, where seen items cannot be ranked; else None."""
    repeated = report.get("repeated_targets") or 0.0
    if repeated < 0.005 or not report["protocol"].get("exclude_seen", True):
        return None
    return (
        f"{repeated:.0%} of the test targets are in the user's history and seen items are not ranked, so that no hit "
        f"rate can pass {1 - repeated:.2f} (evaluate.exclude_seen, filter.repeats)"
    )


def show_examples(console: Console, examples: list[Mapping[str, Any]]) -> None:
    """A few users: what they had, what is recommended, and what came next."""
    for example in examples:
        table = Table(title=f"user {example['user_id']}", title_justify="left", show_lines=False)
        table.add_column("history, newest last")
        table.add_column("recommended")
        history, recommended = example["history"][-10:], example["recommended"][:10]
        for row in range(max(len(history), len(recommended))):
            cells = [str(column[row]) if row < len(column) else "" for column in (history, recommended)]
            table.add_row(*(escape(cell) for cell in cells))
        console.print(table)
        rank = example.get("rank")
        place = "not among the candidates" if rank is None else f"rank {rank}"
        console.print(f"came next: {escape(str(example['target']))} ({place})\n")
