"""The configured split of a log."""

from __future__ import annotations

from recsys.data.sequences import Sequences
from recsys.data.splits import Split, leave_one_out
from recsys.data.time_split import cut_offs, time_split
from recsys.errors import InputError
from recsys.settings import SplitSettings


def split_sequences(sequences: Sequences, settings: SplitSettings, seed: int = 0) -> Split:
    """Split by the configured strategy; the seed decides what is drawn.

    Raises
    ------
    InputError
        A time split of a log without time, a cut-off that leaves one side empty, no user with three events.
    """
    baskets = settings.same_time == "basket"
    if settings.strategy == "leave-one-out":
        split = leave_one_out(sequences, baskets=baskets)
        if not len(split.test):
            what = "baskets (interactions at different times)" if baskets else "interactions"
            raise InputError(
                f"None of the {len(sequences)} users has three {what}, which split.strategy = "
                '"leave-one-out" needs to hold out two; give longer histories, or use strategy = "time".'
            )
        return split
    if sequences.times is None:
        raise InputError(
            'split.strategy = "time" needs a timestamp in every interaction and this log has none; '
            'name the column in interactions.columns or use strategy = "leave-one-out".'
        )
    test_from, validation_from = cut_offs(sequences.times, settings)
    return time_split(sequences, settings, test_from=test_from, validation_from=validation_from, seed=seed)
