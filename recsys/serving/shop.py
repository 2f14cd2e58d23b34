"""The shop that rules are made for: the newest catalogue of a warehouse in a bundle's codes, or the bundle's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import polars as pl

from recsys.candidates.text import Text
from recsys.columns import ITEM_ID, ITEMS, LISTED, SENTENCE
from recsys.data.catalogue import align_catalogue
from recsys.data.prepare import prepare
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.retrieval.shelf import listed_items
from recsys.rules.apply import Rules, rules_of
from recsys.rules.base import Pin, Shop
from recsys.serving.recommender import BundleRecommender
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan
from recsys.text.represent import text_vectors


def shop_of(
    settings: Settings,
    served: BundleRecommender,
    now: datetime,
    *,
    versions: TableVersions | None = None,
    timed: bool = True,
) -> Shop:
    """Return the shop in a bundle's codes.

    Parameters
    ----------
    settings
        The configuration that has the rules; its `data_root` is that of their lists.
    versions
        Tables of the configuration's warehouse: their items are the catalogue. None: the bundle's own, which has ids
        and titles alone.
    timed
        Whether histories tell the times of their events.
    """
    bundle = served.bundle
    if versions is None or versions.items is None or settings.items is None:
        called = f"the catalogue of the bundle {bundle.label}"
        return _shop(settings, bundle.catalogue, now, timed, called, lambda: _bundled_texts(served))
    catalogue = items_table(settings, versions, bundle.vocabulary)

    def texts() -> np.ndarray | None:
        own = _bundled_texts(served)
        return own if own is not None else encoded_texts(settings, versions, bundle.vocabulary)

    return _shop(settings, catalogue, now, timed, "the newest catalogue", texts)


def shop_of_tables(
    settings: Settings, versions: TableVersions, vocabulary: Vocabulary, now: datetime, *, timed: bool = True
) -> Shop:
    """Return the shop in the codes of prepared data, before there is a bundle; it has no text vectors yet."""
    items = vocabulary.items.alias(ITEM_ID).to_frame()
    called = "the log, which has no catalogue,"
    if versions.items is not None and settings.items is not None:
        items, called = items_table(settings, versions, vocabulary), "the newest catalogue"
    size = vocabulary.size + 1
    has_text = settings.items is not None and bool(settings.items.text)
    return _shop(settings, items, now, timed, called, lambda: np.zeros((size, 1), np.float32) if has_text else None)


def items_table(settings: Settings, versions: TableVersions, vocabulary: Vocabulary) -> pl.DataFrame:
    """Return the items table in a vocabulary's order, [V] rows; what it does not have of an item is null."""
    rows = scan(settings.warehouse, ITEMS, versions.items).collect()
    rows = rows.drop(LISTED, strict=False)
    return vocabulary.items.alias(ITEM_ID).to_frame().join(rows, on=ITEM_ID, how="left", maintain_order="left")


def encoded_texts(settings: Settings, versions: TableVersions, vocabulary: Vocabulary) -> np.ndarray | None:
    """Return float32 [V + 1, E] text vectors of a vocabulary's items; None where there are none."""
    if settings.items is None or not settings.items.text:
        return None
    items = scan(settings.warehouse, ITEMS, versions.items).collect()
    sentences = align_catalogue(vocabulary, items, settings.items, settings.text.attribute_words)[SENTENCE]
    try:
        vectors = text_vectors(settings, sentences)
    except InputError:  # `recsys represent` has not run
        return None
    return np.vstack([np.zeros((1, vectors.shape[1]), dtype=np.float32), vectors]).astype(np.float32)


def _bundled_texts(served: BundleRecommender) -> np.ndarray | None:
    text = None if served.blended is None else served.blended.source(Text)
    return None if text is None else text.vectors


def _shop(
    settings: Settings,
    catalogue: pl.DataFrame,
    now: datetime,
    timed: bool,
    called: str,
    texts: Callable[[], np.ndarray | None],
) -> Shop:
    users = settings.users
    return Shop(
        catalogue=catalogue,
        now=now,
        data_root=settings.data_root,
        texts=texts,
        user_attributes=() if users is None else (*users.categorical, *users.numeric),
        timed=timed,
        called=called,
        timezone=settings.interactions.timezone,
        decimal="." if settings.items is None else settings.items.decimal,
    )


def rules_for(
    settings: Settings, served: BundleRecommender, now: datetime, versions: TableVersions, *, timed: bool
) -> Rules | None:
    """Return the rules of a configuration for the tables of its warehouse, in a bundle's codes; None: it has none.

    Raises
    ------
    InputError
        A rule does not fit the catalogue or the log; see `rules_of`.
    """
    if not settings.rules.by_name:
        return None
    return rules_of(settings, shop_of(settings, served, now, versions=versions, timed=timed))


def check_rules(settings: Settings, versions: TableVersions, now: datetime) -> tuple[str, ...]:
    """Try the rules of a configuration on the tables, before a night works; returns remarks on them.

    Raises
    ------
    InputError
        A rule does not fit the catalogue or the log, a list cannot be read, or the rules leave no item.
    """
    if not settings.rules.by_name:
        return ()
    dataset = prepare(settings, versions)
    timed = dataset.split.serving.times is not None
    rules = rules_of(settings, shop_of_tables(settings, versions, dataset.vocabulary, now, timed=timed))
    assert rules is not None
    allowed = rules.joined(listed_items(settings, versions, dataset.vocabulary))
    left, k = dataset.vocabulary.size if allowed is None else int(allowed.sum()), settings.retrieve.k
    if not left:
        raise InputError(
            f"The rules {', '.join(rules.names)} leave none of the items that the newest catalogue lists; loosen one "
            'of them, or set retrieve.items = "all".'
        )
    remarks = list(rules.remarks)
    if left < k:
        remarks.append(f"The rules leave {left:,} items, so no list has retrieve.k = {k:,} rows.")
    for rule in rules.rules:
        if isinstance(rule, Pin) and rule.place + len(rule.codes) > k:
            last = rule.place + len(rule.codes)
            remarks.append(f"rules.{rule.name} pins items down to place {last}, and lists end at retrieve.k = {k}.")
    return tuple(remarks)
