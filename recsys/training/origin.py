"""Knowledge of the weights that a training begins with: up to when, and whether of events held out now."""

from __future__ import annotations

from typing import Final

from recsys.bundles.bundle import Bundle
from recsys.data.sequences import Sequences
from recsys.data.splits import Split, moment
from recsys.settings import Settings

BEST_EPOCH: Final = "best_epoch"  # in a bundle's lineage: the epoch whose weights it has; None: there were none
STAGES: Final = "stages"  # in a bundle's lineage: epochs of each stage that its weights went through


def trained_until(train: Sequences, previous: Bundle | None) -> int | None:
    """The time of the newest event that weights have learnt from, in microseconds; None: it cannot be known.

    Those of the bundle that they began with have learnt from its events, too.
    """
    own = None if train.times is None else int(train.times.max())
    if previous is None or own is None:
        return own
    before = previous.manifest["lineage"].get("trained_until")
    return None if before is None else max(own, int(before))


def known_before(previous: Bundle, settings: Settings, split: Split) -> str | None:
    """Why weights that a training begins with may know events that are held out now; None: no test item is known.

    Leave-one-out holds out the last two events of each user. In a log that only grows, what is the last one now was
    the last one when the earlier bundle was trained, or had not come yet: as long as both were split and filtered
    alike, weights that begin with it know no test item. (They may know a validation item: a user of two events trains
    with both, and the third makes a question of the second.) Events that were taken back break the rule for single
    users; `learned_before` finds their questions. A time split moves its cut-off forward, and the newest event that was
    learnt from proves that it did.
    """
    lineage = previous.manifest["lineage"]
    begins = f"The bundle {previous.label}, from which training begins,"
    flatters = (
        "so it may know events that are held out now, which would flatter the figures; train once from nothing for "
        "figures that compare."
    )
    if split.validation_from is not None:
        until, cut = lineage.get("trained_until"), split.validation_from
        if until is None:
            return f"{begins} does not say up to when it was trained, {flatters}"
        if until < cut:
            return None
        return f"{begins} was trained on events up to {moment(until)}, after the cut-off {moment(cut)}, {flatters}"
    earlier = previous.settings
    if "data" not in lineage:
        return f"{begins} does not say which events it was trained on, {flatters}"
    then, now = earlier.split, settings.split
    # where baskets are steps, more events are held out of each user than where events are
    alike = (then.strategy, then.same_time) == (now.strategy, now.same_time)
    if not alike or earlier.filter != settings.filter:
        return f"{begins} was trained with another [split] or [filter], {flatters}"
    if settings.filter.repeats == "last":
        return f'{begins} was trained with filter.repeats = "last", which moves a repeated event to the end, {flatters}'
    return lineage.get("known_before")
