"""Attributes that a configuration declares, held against the columns of a catalogue or of a user table."""

from __future__ import annotations

from collections.abc import Collection

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError
from recsys.ingestion.contracts import nearest
from recsys.settings import AttributedSettings, ItemSettings


def need_attributes(table: str, settings: AttributedSettings, columns: Collection[str]) -> None:
    """Refuse a table that lacks a column that is declared of it.

    Raises
    ------
    InputError
        Names the setting and the nearest column.
    """
    known = [column for column in columns if column not in (ITEM_ID, USER_ID)]
    asked = {f"{table}.text": list(settings.text)} if isinstance(settings, ItemSettings) else {}
    asked |= {
        f"{table}.categorical": [of.column or name for name, of in settings.categorical.items()],
        f"{table}.numeric": [of.column or name for name, of in settings.numeric.items()],
    }
    whose = "the catalogue has" if isinstance(settings, ItemSettings) else "the users have"
    for key, names in asked.items():
        for name in names:
            if name not in known:
                near = f"; the nearest: {nearest(name, known)}" if known else ""
                raise InputError(f"{key} names {name!r} and {whose} no such attribute{near}.")


def nested_names(settings: AttributedSettings) -> list[str]:
    """Declared columns that may be values inside objects, as they have a dot: "category.path"."""
    texts = settings.text if isinstance(settings, ItemSettings) else ()
    others = [of.column or name for kind in (settings.categorical, settings.numeric) for name, of in kind.items()]
    return list(dict.fromkeys(name for name in (*texts, *others) if "." in name))
