"""The users who get rows in the candidate table: all of the log, or some in a file, and the user nobody knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, ITEMS, SENTENCE, USER_ID, WITHDRAWAL
from recsys.data.catalogue import align_catalogue, attributes_of
from recsys.data.left_out import LeftOut, histories_of, left_out
from recsys.data.prepare import Dataset, prepare
from recsys.data.sequences import Sequences, joined
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.reading.id_lists import read_ids
from recsys.serving.fallback import Fallback, Popular, Texts
from recsys.serving.histories import recode
from recsys.serving.recommender import BundleRecommender
from recsys.settings import IdListSettings, Settings
from recsys.storage.addresses import masked
from recsys.storage.warehouse import TableVersions, scan
from recsys.text.represent import text_vectors


def whom_to_serve(
    settings: Settings,
    versions: TableVersions,
    bundle: Bundle,
    dataset: Dataset,
    prepared: Sequences,
    allowed: np.ndarray | None,
) -> tuple[Sequences, Fallback | None]:
    """The histories that get rows, in the bundle's codes and ascending by user, and what fills their lists.

    Parameters
    ----------
    dataset, prepared
        The prepared data, and its histories in the bundle's codes.
    allowed
        bool [V + 1]: items that may be recommended; None: all.

    Raises
    ------
    InputError
        `retrieve.users` or `retrieve.unknown_user` does not fit the log's ids; or as `check_fallback`.
    """
    check_fallback(settings)
    of = settings.retrieve
    everyone, fallback, nobody = prepared, None, None
    if of.fallback:
        others = left_out(settings, versions, bundle.vocabulary, dataset.split.serving.users)
        everyone = joined([prepared, others.histories])
        if of.unknown_user is not None:
            nobody = _nobody(settings, versions, everyone)
            everyone = joined([everyone, nobody])
        size = bundle.vocabulary.size
        fallback = Fallback(
            popular=Popular.fit(prepared, size, of.segment),
            allowed=np.arange(size + 1) > 0 if allowed is None else allowed,
            texts=_texts(settings, versions, bundle, others),
        )
    if of.users is not None:
        asked = _asked(of.users, settings.data_root, everyone.users)
        if nobody is not None:  # whoever is asked for, as this user stands for all the others
            asked = np.union1d(asked, np.flatnonzero((everyone.users == nobody.users[0]).to_numpy()))
        everyone = everyone.select(asked)
    return everyone, fallback


def some_to_serve(
    settings: Settings, versions: TableVersions, served: BundleRecommender, users: pl.Series, allowed: np.ndarray | None
) -> tuple[Sequences, Fallback | None]:
    """As `whom_to_serve`, for some users: their histories alone are read, and the bundle's counts fill their lists.

    Parameters
    ----------
    users
        Ascending. Who is not in the log, or whom the settings give no rows, is left out.

    Raises
    ------
    InputError
        As `whom_to_serve`.
    """
    check_fallback(settings)
    of, bundle = settings.retrieve, served.bundle
    log = scan(settings.warehouse, INTERACTIONS, versions.interactions)
    there = log.filter(pl.col(EVENT) != WITHDRAWAL).select(pl.col(USER_ID).unique())
    everyone = there.collect(engine="streaming")[USER_ID].sort()
    if of.unknown_user is not None and of.fallback:
        _need_nobody(of.unknown_user, everyone)
    if of.users is not None:
        everyone = everyone.gather(_asked(of.users, settings.data_root, everyone))
    here = everyone.filter(everyone.is_in(users.implode()))
    found = histories_of(settings, versions, bundle.vocabulary, here)
    if not of.fallback:
        enough = found.histories.lengths >= max(1, settings.filter.min_user_interactions)
        return found.histories.select(enough), None
    size = bundle.vocabulary.size
    fallback = Fallback(
        popular=_popular(settings, versions, served),
        allowed=np.arange(size + 1) > 0 if allowed is None else allowed,
        texts=_texts(settings, versions, bundle, found),
    )
    return found.histories, fallback


def _popular(settings: Settings, versions: TableVersions, served: BundleRecommender) -> Popular:
    """Counts of what sells now: the bundle's own; those of the whole log where they need segments or it has none."""
    segment, known = settings.retrieve.segment, served.fallback
    if segment is None and known is not None:
        return known.popular
    dataset = prepare(settings, versions)
    histories, _ = recode(dataset.split.serving, dataset.vocabulary, served.bundle.vocabulary)
    return Popular.fit(histories, served.bundle.vocabulary.size, segment)


def check_fallback(settings: Settings) -> None:
    """Refuse settings of the fallback that would do nothing; a stored bundle may have them.

    Raises
    ------
    InputError
        There is no fallback, or the segment is no user attribute.
    """
    of = settings.retrieve
    for name, value in (("segment", of.segment), ("unknown_user", of.unknown_user)):
        if value is not None and not of.fallback:
            raise InputError(
                f"retrieve.{name} = {value!r} is of the fallback, and retrieve.fallback = false; leave {name} out, or "
                "set fallback = true."
            )
    segment, known = of.segment, settings.users.categorical if settings.users else {}
    if segment is not None and segment not in known:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f"retrieve.segment = {segment!r} is no categorical attribute of [users]; {has}.")


def _nobody(settings: Settings, versions: TableVersions, everyone: Sequences) -> Sequences:
    """A user without events under the configured id."""
    name = settings.retrieve.unknown_user
    users = pl.Series(USER_ID, [name]).cast(everyone.users.dtype, strict=False)
    if users.null_count():
        raise InputError(
            f"retrieve.unknown_user = {name!r} is no id as the log's, which are {everyone.users.dtype}; "
            "choose a number that no user has."
        )
    _need_nobody(users[0], everyone.users)
    nothing = everyone.select(np.arange(0))
    return replace(
        nothing,
        users=users,
        offsets=np.zeros(2, dtype=np.int64),
        attributes=None if everyone.attributes is None else attributes_of(users, settings, versions),
    )


def _need_nobody(name: Any, users: pl.Series) -> None:
    if str(name) in users.cast(pl.String):
        raise InputError(f"retrieve.unknown_user = {str(name)!r} is a user of the log; choose an id that nobody has.")


def _texts(settings: Settings, versions: TableVersions, bundle: Bundle, others: LeftOut) -> Texts | None:
    """Texts of what users had of whom the bundle knows no item; None where there is no such user or no text."""
    silent = others.histories.lengths == 0
    asking = others.unknown.filter(pl.Series(silent[others.unknown["user"].to_numpy()]))
    if asking.is_empty() or settings.items is None or not settings.items.text or versions.items is None:
        return None
    catalogue = scan(settings.warehouse, ITEMS, versions.items).collect()
    theirs = Vocabulary(asking[ITEM_ID].unique().sort())
    words = settings.text.attribute_words
    try:
        ours, others_text = (
            _units(text_vectors(settings, align_catalogue(of, catalogue, settings.items, words)[SENTENCE]))
            for of in (bundle.vocabulary, theirs)
        )
    except InputError:  # `recsys represent` has not run: what sells now is the next rung
        return None
    means = np.zeros((len(others.histories), ours.shape[1]), dtype=np.float32)
    np.add.at(means, asking["user"].to_numpy(), others_text[theirs.encode(asking[ITEM_ID]) - 1])
    rows = np.unique(asking["user"].to_numpy())
    users = others.histories.users[rows].to_list()
    items = np.concatenate([np.zeros((1, ours.shape[1]), dtype=np.float32), ours])
    return Texts(items=items, users=dict(zip(users, means[rows], strict=True)))


def _units(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32, copy=False)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _asked(given: str | IdListSettings, data_root: str, users: pl.Series) -> np.ndarray:
    """int64 places of the users that a list names.

    Raises
    ------
    InputError
        It cannot be read, or names nobody of the log.
    """
    wanted = read_ids(given, "retrieve.users", data_root)
    found = np.flatnonzero(users.cast(pl.String).is_in(wanted.implode()).to_numpy())
    if not len(found):
        source = given if isinstance(given, str) else masked(given.source)
        raise InputError(
            f"{source}, which retrieve.users names, has {len(wanted):,} ids and none is a user of the log, whose ids "
            f"are {users.dtype}; give ids of the log."
        )
    return found
