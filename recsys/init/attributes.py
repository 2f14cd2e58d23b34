"""Find a catalogue's or user table's id, words of the item's sentence, categories and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from recsys.columns import ITEMS, USERS
from recsys.errors import InputError
from recsys.init.times import TimeColumn, read_times
from recsys.reading.column_names import means, tokens
from recsys.reading.nested import leaves
from recsys.reading.sniff import Sample, comma_decimals, known_share, looks_numeric, point_thousands, share
from recsys.settings import RESERVED

_TITLE: Final = re.compile(
    r"(?i)(^|_|\b)(title|name|headline|label|titel|titre|titulo|bezeichnung|nombre)|(title|name)$"
)
_LONG: Final = re.compile(r"(?i)desc|plot|summary|overview|abstract|feature|about|text|body|review|beschreib")
_BRAND: Final = re.compile(r"(?i)brand|manufact|author|artist|publisher|studio|maker|vendor|director|marke|herstell")
_CATEGORY: Final = re.compile(
    r"(?i)categ|kateg|genre|tags?$|topic|class|department|type|kind|group|section|attribute|path"
)
_ID_NAME: Final = re.compile(r"(?i)(^|_|[a-z])(id|asin|sku|key|code|isbn|nr|nummer)$|^(id|asin|sku)")
_CODE: Final = re.compile(r"(?i)(^|[\W_]|[a-z])(id|key|code|nr|no|nummer)$")
_POSTAL: Final = re.compile(r"(?i)zip|postal|post_?code|postcode|plz|codigo_?postal|code_?postal|cap$")
_QUANTITY: Final = (  # numbers whose size means something, however few different ones there are
    *("age", "alter", "edad", "eta", "idade", "leeftijd", "year", "jahr", "annee", "anio", "ano", "anno", "jaar"),
    *("price", "preis", "prix", "precio", "prezzo", "preco", "prijs", "cost", "amount", "count", "rating", "score"),
    *("weight", "length", "height", "width", "size", "duration", "income", "pages", "runtime", "stock"),
)
_YES_OR_NO: Final = tuple(  # how the languages of column names write it; as words of a sentence they say nothing
    frozenset(pair.split())
    for pair in (
        *("true false", "t f", "yes no", "y n", "1 0", "on off", "wahr falsch", "ja nein", "j n", "oui non", "o n"),
        *("vrai faux", "si no", "sí no", "s n", "sì no", "vero falso", "sim não", "sim nao", "ja nee"),
    )
)
_FRACTION: Final = r"^\s*[+-]?(\d*\.\d+([eE][+-]?\d+)?|\d+[eE][+-]?\d+)\s*$"
_ADDRESS: Final = r"^\s*(https?://|www\.|/)"
_SEPARATORS: Final = ("|", ";", " > ", " / ", ", ", ",")
_FILLED: Final = 0.05  # share of the rows that must have a value for a column to be used
_WHOLE: Final = 0.8  # share of the log's items that a catalogue holds, below which its file may be a part of it
_MISSING: Final = 0.1  # share of the rows that may lack an id in the column of ids
_CODES: Final = 30  # whole numbers of no more than these different values are codes rather than quantities


@dataclass(kw_only=True)
class AttributeGuess:
    """A table's columns by meaning, and what is said about them."""

    id: str
    text: list[str] = field(default_factory=list)  # title first
    categorical: dict[str, str | None] = field(default_factory=dict)  # separator; None: a value is not to be split
    numeric: list[str] = field(default_factory=list)
    decimal: str = "."
    unused: dict[str, list[str]] = field(default_factory=dict)  # columns by reason
    found: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def guess_attributes(table: str, sample: Sample, log_ids: pl.Series) -> AttributeGuess:
    """Look at a catalogue (`table` "items") or a user table ("users") beside the ids of its log.

    Raises
    ------
    InputError
        No column can be the id.
    """
    result = _guess_id(table, sample, log_ids)
    titles: list[str] = []
    others: list[str] = []
    long: list[str] = []
    for name, values in _columns(sample.frame, result.id):
        place = _meaning(table, sample, name, values, result)
        if place == "title":
            titles.append(name)
        elif place == "long":
            long.append(name)
        elif place == "category":
            others.append(name)
        elif place:
            result.unused.setdefault(place, []).append(name)
    if table == ITEMS:
        titles.sort(key=lambda name: not _TITLE.search(name))
        others.sort(key=lambda name: 0 if _BRAND.search(name) else 1 if _CATEGORY.search(name) else 2)
        words = [name for name in others if not looks_numeric(_flat(sample.frame, name))]
        result.text = [*titles, *words, *long]
    else:
        for name in (*titles, *long):
            result.unused.setdefault("text", []).append(name)
    _describe(table, sample, result)
    return result


def _columns(frame: pl.DataFrame, key: str) -> Iterator[tuple[str, pl.Series]]:
    """Every column but the id, objects replaced by what is inside them."""
    inside = frame.select(value.alias(name) for name, value in leaves(frame.schema).items())
    for name in frame.columns:
        dtype = frame.schema[name]
        if isinstance(dtype, pl.Struct) or (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)):
            yield from ((leaf, inside[leaf]) for leaf in inside.columns if leaf.startswith(f"{name}."))
        elif name != key:
            yield name, frame[name]


def _flat(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame[name] if name in frame.columns else pl.Series(name, [], dtype=pl.String)


def _meaning(table: str, sample: Sample, name: str, values: pl.Series, result: AttributeGuess) -> str:
    """ "title", "long" or "category" for the sentence, "" for a number that is taken; else why it is not used.

    Categorical and numeric attributes are added to the result.
    """
    text = values.dtype == pl.String
    there = values.drop_nulls()
    there = there.filter(there.str.strip_chars() != "") if text else there
    filled = len(there) / len(values)
    if filled < _FILLED:
        return "hardly a row has a value"
    flat = there.explode(empty_as_null=False, keep_nulls=False) if values.dtype == pl.List else there
    if values.dtype != pl.Array and flat.n_unique() <= 1 and len(values) > 1:
        return "every row says the same"
    if name in RESERVED:
        words = text or values.dtype == pl.List(pl.String)
        return "title" if words and name in ("title", "sentence") else "its name is one of ours"
    if values.dtype == pl.List:
        if _fractions(flat):
            return "lists of numbers"  # such as a vector, of which hardly a number comes again
        result.categorical[name] = None
        return "category"
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        return "nested or binary"
    if _POSTAL.search(name):
        result.categorical[name] = None
        return "category" if table == USERS else ""
    if values.dtype == pl.Boolean or _yes_or_no(there):
        result.categorical[name] = None
        return "" if table == ITEMS else "category"
    if looks_numeric(there):
        return _number(sample, name, there, result)
    if values.dtype.is_temporal() or (text and isinstance(_times(there, name), TimeColumn)):
        return "dates"
    if share(there.str.contains(_ADDRESS)) > 0.5:
        return "addresses"
    return _words(sample, name, there, result)


def _fractions(values: pl.Series) -> bool:
    """Return whether the values are numbers with a fraction, or nearly all are written as such."""
    if values.dtype == pl.String:
        return share(values.str.contains(_FRACTION)) > 0.9
    return values.dtype.is_float() or values.dtype.is_decimal()


def _yes_or_no(values: pl.Series) -> bool:
    """Return whether the values are one pair of words for yes and no, or 1 and 0."""
    if not (values.dtype == pl.String or values.dtype.is_numeric()) or values.n_unique() > _CODES:
        return False
    written = values.unique().cast(pl.String).str.strip_chars().str.to_lowercase().str.replace(r"^([01])\.0+$", "${1}")
    return frozenset(written) in _YES_OR_NO


def _times(values: pl.Series, name: str) -> object:
    found = read_times(values.head(1000), name)
    return found if isinstance(found, TimeColumn) and found.plausible else None


def _number(sample: Sample, name: str, values: pl.Series, result: AttributeGuess) -> str:
    """Numeric where the size means something, categorical where it is a code of many rows."""
    commas = comma_decimals(values)
    if commas is None or (commas and sample.format != "csv"):
        return "numbers with a comma that may stand before a fraction or between thousands"
    written = values.cast(pl.String).str.strip_chars()
    whole = bool(written.str.contains(r"^[+-]?\d+(\.0+)?$").all())
    coded = bool(_CODE.search(name) or _CATEGORY.search(name) or _BRAND.search(name))
    zeros = share(written.str.contains(r"^0\d")) > 0  # 01067 is no size
    quantity = bool(tokens(name) & set(_QUANTITY))
    few = values.n_unique() <= _CODES and not quantity
    own = not quantity and len(values) > 20 and values.n_unique() >= 0.95 * len(values)
    if zeros or (sample.types.get(name) != "float" and whole and (coded or few or own)):
        if not (_repeats(values) or few):
            return "codes, of which hardly any comes again"
        result.categorical[name] = None
        return "category"
    result.numeric.append(name)
    result.decimal = "," if commas else result.decimal
    asked = point_thousands(sample, values)
    if asked is not None:
        result.unsure.append(
            f"The numbers in {name!r} of {sample.path} have a point that may stand before a fraction or between "
            f"thousands (such as {asked!r}); it is read as one before a fraction: take it out if it is not."
        )
    return ""


def _words(sample: Sample, name: str, values: pl.Series, result: AttributeGuess) -> str:
    """Text or categories, by length and by how often values come again."""
    separator = _separator(values)
    if separator is None and sample.types.get(name) == "token_seq" and _parts_repeat(values, " "):
        separator = " "
    words = float(values.str.count_matches(r"\S+").to_numpy().mean())
    title = bool(_TITLE.search(name))
    if separator is not None and not title:
        result.categorical[name] = separator
        return "category"
    if _repeats(values) and not (title and words >= 2):
        result.categorical[name] = None
        return "category"
    if words > 25 or (_LONG.search(name) and words > 8):
        return "long"
    return "title" if words >= 1.5 or title else "a value of its own in nearly every row"


def _separator(values: pl.Series) -> str | None:
    """The sign between several values in one string, where the parts come again and again."""
    return next((s for s in _SEPARATORS if _parts_repeat(values, s)), None)


def _parts_repeat(values: pl.Series, separator: str) -> bool:
    if share(values.str.contains(separator, literal=True)) < 0.2:
        return False
    parts = values.str.split(separator).explode(empty_as_null=True, keep_nulls=True)
    return parts.n_unique() <= max(0.05 * len(parts), 10) and len(parts) >= 3 * parts.n_unique()


def _repeats(values: pl.Series) -> bool:
    """Return whether a value stands for a class of rows: three and more rows a value."""
    return values.n_unique() * 3 <= len(values)


# --- ids ------------------------------------------------------------------------------------------


def _guess_id(table: str, sample: Sample, log_ids: pl.Series) -> AttributeGuess:
    """The column whose values are the most often among the log's ids: distinct ones, or its name says what they are."""
    frame, key = sample.frame, f"{table[:-1]}_id"
    named = {name for name in frame.columns if sample.named and (means(name) == key or name == log_ids.name)}
    shares = {}
    for name in frame.columns:
        values = frame[name]
        flat = values.dtype.is_integer() or values.dtype == pl.String
        if flat and _missing(values) <= _MISSING and (name in named or values.n_unique() >= 0.9 * len(values)):
            shares[name] = known_share(log_ids, values)
    if not shares:
        raise InputError(
            f"{sample.path}: no column holds a different value in every row (its columns: "
            f'{", ".join(frame.columns)}); name the id in a configuration: [{table}] columns = {{ {key} = "..." }}.'
        )
    best = max(shares, key=lambda n: (shares[n], n in named, bool(_ID_NAME.search(n)), -frame.columns.index(n)))
    known = shares[best]
    result = AttributeGuess(id=best)
    repeated = len(frame) - frame[best].null_count() - frame[best].drop_nulls().n_unique()
    if repeated:
        result.unsure.append(
            f"{repeated:,} rows of {sample.path} repeat the {key} of another one; the last one of each counts "
            f'({table}.several = "last").'
        )
    shown = repr(best) if sample.named else f"field {best.removeprefix('column_')}"
    part = f" (among {sample.part})" if sample.part else ""
    told = f"{len(frame):,} {table} in {sample.path}{part}, {key} = {shown}: it holds {known:.0%} of the log's {table}."
    count = _renumbered(log_ids) if table == ITEMS else 0
    if count and known < 1:
        result.unsure.append(
            f"THE CATALOGUE IS PROBABLY JOINED WRONGLY: the log numbers its {count:,} items without a gap, as logs do "
            f"whose ids were replaced, and {sample.path} (item_id = {shown}) has gaps where the log has none, so that "
            f"{known:.0%} of the numbers meet says nothing, and titles and attributes would go to other items. Name a "
            "file of the two ids (the log's, the catalogue's) in items.id_map, or run without the catalogue: --set "
            "items=none."
        )
        return result
    partly = table == ITEMS and 0.5 <= known < _WHOLE and not sample.part
    if partly:
        told += ' Nobody is recommended the others, unless retrieve.items = "all".'
    (result.unsure if partly or known < 0.5 else result.found).append(told)
    whose = "catalogue" if table == ITEMS else "user table"
    if known < 0.5:
        result.unsure.append(
            f"If the {whose} numbers the {table} in another way than the log, name a file of the two ids in "
            f"{table}.id_map."
        )
    elif table == ITEMS and best != log_ids.name and looks_numeric(frame[best]) and looks_numeric(log_ids):
        result.unsure.append(
            "Log and catalogue number the items, and no common name says that the numbers are the same; look at "
            "a few items, and if they differ, name a file of the two ids in items.id_map."
        )
    return result


def _missing(values: pl.Series) -> float:
    """Share of the values that are null or blank."""
    blank = values.is_null() | (values.str.strip_chars() == "") if values.dtype == pl.String else values.is_null()
    return share(blank.fill_null(True))


def _renumbered(log_items: pl.Series) -> int:
    """Count the items of a log that numbers them 1, 2, 3, ... (or from 0) without a gap; else 0."""
    numbers = log_items.cast(pl.Int64, strict=False).drop_nulls().unique().sort()
    if len(numbers) < 20 or numbers[0] not in (0, 1) or numbers[-1] - numbers[0] + 1 > len(numbers):
        return 0
    return len(numbers)


# --- words ----------------------------------------------------------------------------------------


def _describe(table: str, sample: Sample, result: AttributeGuess) -> None:
    whose = "" if table == ITEMS else " of users"
    if result.text:
        result.found.append(f"The item's sentence is made of {', '.join(result.text)}.")
    elif table == ITEMS:
        result.unsure.append(f"No column of {sample.path} holds words; the text channel has nothing to read.")
    if result.categorical:
        several = [f"{name} (split at {mark!r})" if mark else name for name, mark in result.categorical.items()]
        result.found.append(f"Categorical attributes{whose}: {', '.join(several)}.")
    if result.numeric:
        result.found.append(f"Numeric attributes{whose}: {', '.join(result.numeric)}.")
    if table == USERS and not (result.categorical or result.numeric):
        result.unsure.append(f"No column of {sample.path} holds categories or numbers; it says nothing of the users.")
    if result.unused:
        told = "; ".join(f"{', '.join(names)} ({why})" for why, names in result.unused.items())
        result.found.append(f"Not used of {sample.path}: {told}.")
    if result.text and not _TITLE.search(result.text[0]) and sample.named:
        result.unsure.append(f"{result.text[0]!r} is taken as the title: no column is named like one.")


def attribute_tree(result: AttributeGuess, table: str, names: dict[str, str]) -> dict[str, Any]:
    """The keys of [items] or [users] that declare attributes; `names` are those of ours for columns without one."""
    categorical = {
        names.get(name, name): {} if separator is None else {"separator": separator}
        for name, separator in result.categorical.items()
    }
    tree: dict[str, Any] = {"text": [names.get(name, name) for name in result.text]} if table == ITEMS else {}
    tree["categorical"] = categorical
    if result.numeric:
        tree["numeric"] = {names.get(name, name): {} for name in result.numeric}
    return tree
