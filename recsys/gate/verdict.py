"""The verdict: whether a night's work is published, and one sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from recsys.gate.check import Check
from recsys.gate.figures import BASELINE_USERS, TEST_USERS, Lead, as_dict, best

MINUS: Final = "−"


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The release that is served now, as the verdict names it.

    Attributes
    ----------
    at
        When it was published.
    leads
        The night's leads over it, one for each metric; empty where it cannot be measured.
    reason
        Why it cannot be measured; None where it was.
    """

    run: str
    bundle: str
    at: datetime
    leads: Sequence[Lead] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a night; JSON-friendly.

    Attributes
    ----------
    reasons
        What keeps it back, one sentence each.
    metric
        The first metric, which `champion` and `baselines` are about.
    confidence
        The level of their intervals, of all together.
    champion
        None: nothing is served yet, it cannot be compared, or gate.champion is off.
    baselines
        By name.
    """

    passed: bool
    sentence: str
    reasons: list[str] = field(default_factory=list)
    metric: str | None = None
    confidence: float | None = None
    champion: dict[str, Any] | None = None
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)


def without_gate() -> Verdict:
    """Return the verdict of a gate that is switched off."""
    return Verdict(passed=True, sentence="Published without a verdict: the gate is off (gate.enabled).")


def decide(
    *,
    metric: str,
    value: float | None,
    champion: Champion | None,
    baselines: Mapping[str, list[Lead]],
    checks: Sequence[Check],
    users: int,
    few: int,
    as_of: datetime,
    confidence: float,
) -> Verdict:
    """Return the verdict on figures and checks.

    Parameters
    ----------
    value
        The night's figure; None: it is not a finite number, or there are no questions.
    users, few
        Users of the test part, and how many a decision by figures needs.
    as_of
        The night's moment, for the champion's name.
    confidence
        The level of all comparisons together.
    """
    reasons: list[str] = []
    who = "" if champion is None else called(champion.at, as_of)
    if users and value is None:
        reasons.append(f"The evaluation has no finite {metric}.")
    if champion is not None:
        reasons += [
            f"Worse than {who} by {size(lead)} {lead.metric}." for lead in champion.leads if lead.outcome == "worse"
        ]
    first = best(baselines)
    for name in sorted(baselines, key=lambda one: (one != first, one)):
        reasons += [
            f"Worse than the baseline {name} by {size(lead)} {lead.metric}."
            for lead in baselines[name]
            if lead.outcome == "worse"
        ]
    reasons += [f"{check.name[0].upper()}{check.name[1:]}: {check.sentence}" for check in checks if check.failed]
    figures = _figures(value, champion, who, baselines, users, few)
    if users < few and not any(check.name == TEST_USERS and check.status == "passed" for check in checks):
        figures += "; gate.min_test_users keeps such nights back"
    if not reasons:
        sentence = f"Published: {figures}."
    else:
        others = len(reasons) - 1
        more = f" And {others} more reason{'s' if others > 1 else ''}." if others else ""
        told = reasons[0] if reasons[0].startswith("Worse") else f"{reasons[0][0].lower()}{reasons[0][1:]}"
        sentence = f"Kept back: {told[0].lower()}{told[1:]}{more}"
    return Verdict(
        passed=not reasons,
        sentence=sentence,
        reasons=reasons,
        metric=metric,
        confidence=confidence,
        champion=None
        if champion is None or not champion.leads
        else {"run": champion.run, "bundle": champion.bundle, **as_dict(champion.leads[0])},
        baselines={name: as_dict(found[0]) for name, found in baselines.items()},
        checks=[asdict(check) for check in checks],
    )


def _figures(
    value: float | None,
    champion: Champion | None,
    who: str,
    baselines: Mapping[str, list[Lead]],
    users: int,
    few: int,
) -> str:
    """Say how the night stands to the champion and to the best baseline."""
    if not users:
        return "nothing was measured, as no user has a test question"
    if users < few:
        are = "user is" if users == 1 else "users are"
        return f"nothing was measured that could decide, as {users} test {are} too few ({few} are needed)"
    others = [*(champion.leads[:1] if champion else ()), *(found[0] for found in baselines.values())]
    if value == 0 and not any(lead.value for lead in others):
        start = "nothing was served before; " if champion is None else ""
        return f"{start}no ranker answers a test question, so nothing can be compared"
    parts = ["no test question is answered by this night"] if value == 0 else []
    if champion is None:
        parts.append("nothing was served before")
    elif not champion.leads:
        parts.append(f"not compared with {who}, because {champion.reason}")
    else:
        parts.append(_to(champion.leads[0], who))
    first = best(baselines)
    if first is None:
        parts.append("no baseline was measured")
    else:
        lead = baselines[first][0]
        if lead.high < 0 and users < BASELINE_USERS:
            parts.append(
                f"the best baseline ({first}) is ahead by {number(-lead.difference)}, and {users} test users are too "
                f"few for that to decide ({BASELINE_USERS} are needed)"
            )
        else:
            parts.append(_behind(lead, first))
    return "; ".join(parts)


def _to(lead: Lead, who: str) -> str:
    if lead.low == lead.high == 0:
        return f"ranks as {who} does"
    if lead.outcome == "better":
        return f"better than {who} by {size(lead)}"
    if lead.high < 0:
        return f"worse than {who} by {size(lead)}, which the tolerance allows"
    sign = "+" if lead.difference >= 0 else MINUS
    return f"no different from {who} beyond chance ({sign}{size(lead)})"


def _behind(lead: Lead, name: str) -> str:
    if lead.value == 0:
        return "no baseline answers a test question"
    named = f"the best baseline ({name})"
    if lead.outcome == "better":
        return f"{named} is behind by {number(lead.difference)}"
    if lead.low == lead.high == 0:
        return f"{named} ranks the same"
    if lead.high < 0:
        return f"{named} is ahead by {number(-lead.difference)}, which the tolerance allows"
    side = "behind" if lead.difference >= 0 else "ahead"
    interval = f"{number(lead.low, '+')} to {number(lead.high, '+')}, for all comparisons together"
    return f"{named} is {side} by {number(abs(lead.difference))}, within chance ({interval})"


def size(lead: Lead) -> str:
    """A difference and half the width of its interval, as text.

    >>> size(Lead(metric="ndcg@10", difference=-0.004, low=-0.006, high=-0.002, value=0.1, outcome="worse"))
    '0.0040 ± 0.0020'
    """
    return f"{number(abs(lead.difference))} ± {number(lead.margin)}"


def number(value: float, sign: str = "") -> str:
    """A figure with four decimals, as tables write them, or with its sign.

    >>> number(0.03), number(-0.0035, "+"), number(0.0862, "+")
    ('0.0300', '−0.0035', '+0.0862')
    """
    return f"{value:{sign}.4f}".replace("-", MINUS)


def called(at: datetime, as_of: datetime) -> str:
    """Name the champion: "yesterday's", or by its date.

    >>> from datetime import UTC
    >>> called(datetime(2026, 3, 1, 23, tzinfo=UTC), datetime(2026, 3, 2, 3, tzinfo=UTC))
    "yesterday's"
    >>> called(datetime(2026, 2, 20, 3, tzinfo=UTC), datetime(2026, 3, 2, 3, tzinfo=UTC))
    'the one of 2026-02-20'
    """
    if as_of.date() - at.date() == timedelta(days=1):
        return "yesterday's"
    return f"the one of {at:%Y-%m-%d}"
