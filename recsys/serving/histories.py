"""The histories that a warehouse knows, in a bundle's codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.bundles.bundle import Bundle
from recsys.columns import PADDING
from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions


def known_histories(settings: Settings, versions: TableVersions, bundle: Bundle) -> tuple[Sequences, int]:
    """All users' histories in the tables at these versions, and how many events the bundle does not know.

    These events are left out.
    """
    dataset = prepare(settings, versions)
    return recode(dataset.split.serving, dataset.vocabulary, bundle.vocabulary)


def recode(sequences: Sequences, theirs: Vocabulary, ours: Vocabulary) -> tuple[Sequences, int]:
    """Histories in another vocabulary's codes, and how many events it does not know (they are left out)."""
    if theirs.digest == ours.digest:
        return sequences, 0
    codes = np.concatenate([[PADDING], ours.encode(theirs.items)]).astype(np.int32)[sequences.items]
    known = codes != PADDING
    return replace(sequences, items=codes).keep(known), int((~known).sum())
