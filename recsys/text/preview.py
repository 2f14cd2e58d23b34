"""Preview of what the text encoder will read: some items' sentences, and where they are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID
from recsys.errors import InputError
from recsys.features.sentences import Attribute, cleaned, joined, shortened
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.text.known import load
from recsys.text.represent import text_columns

if TYPE_CHECKING:
    from recsys.features.text import Encoder


def preview(settings: Settings, versions: TableVersions, shown: int) -> dict[str, Any]:
    """Sentences of some items, from the longest to the shortest one of the catalogue.

    Returns
    -------
    dict
        JSON-friendly. `items`, `empty` and `shortened` count in the whole catalogue. Each of `shown` has `item_id`,
        `tokens` (of the whole sentence, special ones and prompt included), `cut` (are there more than the encoder
        reads?), and `attributes`: `name`, `tokens` (its name's too), `kept`, `unread` (beyond `text.max_tokens`),
        `dropped` (beyond `text.attribute_words`).

    Raises
    ------
    InputError
        There is no text, the catalogue lacks an attribute, or the encoder cannot be loaded.
    """
    if settings.items is None or not settings.items.text:
        raise InputError("There are no sentences to show: the configuration has no items.text.")
    if versions.items is None:
        raise InputError(f"{settings.warehouse} has no items yet; run `recsys ingest CONFIG` first, then look again.")
    frame = text_columns(settings, versions, ITEM_ID).collect()
    texts = cleaned(frame, settings.items.text, settings.text.attribute_words)
    every = joined(texts, len(frame))
    lengths = every.str.len_chars().to_numpy()
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(shown, len(order))).astype(np.int64))]
    encoder = load(settings.text)
    return {
        "model": encoder.model,
        "prompt": encoder.prompt,
        "dimensions": encoder.dimensions,
        "max_tokens": encoder.max_tokens,
        "attribute_words": settings.text.attribute_words,
        "items": len(frame),
        "empty": int((every == "").sum()),
        "shortened": shortened(texts),
        "shown": [_item(encoder, frame, texts, int(row)) for row in rows],
    }


def _item(encoder: Encoder, frame: pl.DataFrame, texts: list[Attribute], row: int) -> dict[str, Any]:
    from recsys.features.text import token_count  # torch and more, which a step that shows nothing is spared

    room = encoder.max_tokens - token_count(encoder, encoder.prompt, special=True)[0]
    tokens = encoder.max_tokens - room
    attributes = []
    for text in texts:
        value = text.kept[row]
        if value is None:
            continue
        label = f"{text.name}: "
        count, read = token_count(encoder, label + value, most=max(room, 0))
        place = max(read - len(label), 0)
        attributes.append(
            {
                "name": text.name,
                "tokens": count,
                "kept": value[:place],
                "unread": value[place:],
                "dropped": text.dropped[row] or "",
            }
        )
        room -= count
        tokens += count
    return {"item_id": frame[ITEM_ID][row], "tokens": tokens, "cut": room < 0, "attributes": attributes}
