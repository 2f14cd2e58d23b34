"""JSON lines to columns, all by one decoder, so that one value has one text whatever stands in other lines.

polars decodes a batch of lines at once and refuses the batch for one broken line. Python then finds the broken lines
of that batch, and the decoder reads the others.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.errors import InputError, first_line
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW, INEXACT_ID, NESTED, NO_RECORD

SAMPLE: Final = 10_000  # lines whose keys an error can suggest
WHOLE: Final = 2**53  # from here on not every integer has a float
_TEXTS: Final = "__texts"
_BLANKS: Final = " \t\r"
# a pair of escaped surrogates is one character; one of them alone is none, and the decoder makes it NUL
_PAIR: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_SURROGATE: Final = r"\\u[dD][89a-fA-F]"
# what an id is that was perhaps written as a float: a large integer, or minus nought
_ODD_ID: Final = r"^-?\d{16,}$|^-0$"
_FLOAT: Final = r"\d\.\d|\d[eE][+-]?\d"


def read_wanted(
    lines: pl.LazyFrame, staged: Path, wanted: Sequence[str], ids: Collection[str]
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """The wanted keys of one object a line as text, parsed once into a Parquet file, and the names of the file's keys.

    Parameters
    ----------
    lines
        FILE_LINE, FILE_RAW and DEFECT of the lines that are not empty.
    staged
        The Parquet file to write.
    ids
        Keys among them whose values are ids.
    """
    keys = tuple(dict.fromkeys(wanted))
    dtype = pl.Struct({**dict.fromkeys(keys, pl.String), DEFECT: pl.String})
    sound = pl.when(pl.col(DEFECT).is_null()).then(FILE_RAW)
    texts = sound.map_batches(
        lambda raw: read_texts(raw, keys, ids).to_struct(), return_dtype=dtype, is_elementwise=True
    )
    bad_bytes = pl.col(DEFECT).cast(pl.String)
    lines.select(FILE_LINE, FILE_RAW, bad_bytes.alias("__bad"), texts.alias(_TEXTS)).unnest(_TEXTS).with_columns(
        pl.coalesce("__bad", DEFECT).alias(DEFECT)
    ).drop("__bad").sink_parquet(staged)
    read = pl.scan_parquet(staged, glob=False)
    named = _keys(read.head(SAMPLE))
    rare = [key for key in keys if key not in named]
    if rare:
        there = read.select(pl.col(rare).is_not_null().any()).collect(engine="streaming").row(0, named=True)
        named += [key for key in rare if there[key]]
    found = [key for key in keys if key in named]
    return read.select(*found, FILE_LINE, FILE_RAW, DEFECT), (*found, *(key for key in named if key not in found))


def read_all(name: str, lines: pl.LazyFrame, ids: Collection[str]) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """All keys of one object a line with types of their own, ids as text; a row of another form than most is broken.

    Raises
    ------
    InputError
        The values of one key do not go together.
    """
    table = lines.collect(engine="streaming")
    raw = table.select(pl.when(pl.col(DEFECT).is_null()).then(FILE_RAW).alias(FILE_RAW))[FILE_RAW]
    texts = read_texts(raw, tuple(ids), ids)
    decoded, faults = decode_objects(name, _without(raw, texts[DEFECT]), texts[DEFECT])
    columns = tuple(decoded.columns)
    defects = pl.coalesce(pl.col(DEFECT).cast(pl.String), pl.lit(faults))
    table = table.select(FILE_LINE, FILE_RAW, defects.alias(DEFECT))
    ours = decoded.with_columns(texts[key] for key in ids if key in columns)
    return pl.concat([ours, table], how="horizontal").lazy(), columns


def decode_objects(name: str, objects: pl.Series, faults: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
    """A column a key of JSON objects, and the faults (a reason, or null) with those of rows unlike most others.

    Raises
    ------
    InputError
        The values of one key do not go together.
    """
    if objects.null_count() == len(objects):
        return pl.DataFrame(), faults
    try:
        return _typed(objects), faults
    except pl.exceptions.PolarsError:
        odd = odd_forms([None if line is None else json.loads(line) for line in objects])
        faults = _either(faults, pl.Series(odd, dtype=pl.String))
    try:
        return _typed(_without(objects, faults)), faults
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{name}: the values of one key do not go together ({first_line(error)}); "
            "write each key's values in one form."
        ) from None


def read_texts(raw: pl.Series, keys: Sequence[str], ids: Collection[str]) -> pl.DataFrame:
    """Values of JSON objects as text: strings as they are, 7.0 as 7, true as true.

    Parameters
    ----------
    raw
        An object each; null ones have neither values nor a defect.
    keys
        To read; a value that is a list or an object is a defect.
    ids
        Keys among them whose values must be exact.

    Returns
    -------
    DataFrame
        A String column a key, and DEFECT: the reason why a row is broken, or null.
    """
    frame = raw.alias(FILE_RAW).to_frame()
    text = pl.col(FILE_RAW)
    stripped = text.str.strip_chars(_BLANKS)
    escaped = pl.when(text.str.contains(r"\\u[dD]")).then(text)
    unpaired = escaped.str.replace_all("\\\\", "", literal=True).str.replace_all(_PAIR, "").str.contains(_SURROGATE)
    whole = stripped.str.starts_with("{") & stripped.str.ends_with("}") & ~unpaired.fill_null(False)
    frame = frame.with_columns(
        pl.when(whole).then(text).alias("object"),
        pl.when(~whole).then(pl.lit(NO_RECORD)).alias(DEFECT),  # null for a null line
    )
    dtype = pl.Struct(dict.fromkeys(keys or ("",), pl.String))
    objects = frame["object"]
    decoded = _decoded(objects, dtype)
    if decoded is None:
        faults = pl.Series(DEFECT, [None if line is None else _fault(line, keys) for line in objects], dtype=pl.String)
        objects = _without(objects, faults)
        decoded = _decoded(objects, dtype)
        if decoded is None:  # what Python takes and the decoder refuses, such as 1e400
            refused = [NO_RECORD if broken else None for broken in _refused(objects, dtype)]
            faults = _either(faults, pl.Series(refused, dtype=pl.String))
            decoded = _decoded(_without(objects, faults), dtype)
            assert decoded is not None
        frame = frame.with_columns(_either(frame[DEFECT], faults))
    values = decoded.struct.unnest().select(keys)
    return _exact(frame.select(FILE_RAW, DEFECT), values, [key for key in keys if key in ids])


def odd_forms(trees: Sequence[Any]) -> list[str | None]:
    """Why values do not go with the others: an object stands where most have none, or the other way round.

    >>> odd_forms([{"tags": ["a"]}, {"tags": {"a": 1}}, {"tags": ["b"]}])
    [None, "'tags' is an object, unlike in most rows", None]
    """
    votes: dict[str, Counter[bool]] = defaultdict(Counter)
    for tree in trees:
        for place, is_object in set(_forms(tree)):
            votes[place][is_object] += 1
    usual = {place: count[True] > count[False] for place, count in votes.items() if len(count) > 1}
    reasons: list[str | None] = []
    for tree in trees:
        odd = next(((place, kind) for place, kind in _forms(tree) if usual.get(place, kind) != kind), None)
        kind = "an object" if odd is not None and odd[1] else "no object"
        reasons.append(None if odd is None else f"{odd[0]!r} is {kind}, unlike in most rows")
    return reasons


def _forms(tree: Any, place: str = "") -> Iterator[tuple[str, bool]]:
    """(place, whether an object) of every value that is there; elements of a list stand where the list stands."""
    if isinstance(tree, dict):
        if place:
            yield place, True
        for key, value in tree.items():
            yield from _forms(value, f"{place}.{key}" if place else key)
    elif isinstance(tree, list):
        for value in tree:
            yield from _forms(value, f"{place}[]")
        yield place, False
    elif tree is not None:
        yield place, False


def _typed(objects: pl.Series) -> pl.DataFrame:
    decoded = objects.str.json_decode(infer_schema_length=None).struct.unnest()
    wide = [name for name, dtype in decoded.schema.items() if dtype in (pl.Int128, pl.UInt128)]
    return decoded.with_columns(pl.col(wide).cast(pl.String))


def _decoded(objects: pl.Series, dtype: pl.Struct) -> pl.Series | None:
    try:
        return objects.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        return None


def _refused(objects: pl.Series, dtype: pl.Struct) -> list[bool]:
    if _decoded(objects, dtype) is not None:
        return [False] * len(objects)
    if len(objects) == 1:
        return [True]
    half = len(objects) // 2
    return _refused(objects.head(half), dtype) + _refused(objects.slice(half), dtype)


def _fault(line: str, keys: Collection[str]) -> str | None:
    try:
        tree = json.loads(line, parse_int=len, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return NO_RECORD
    return NESTED if any(isinstance(tree.get(key), list | dict) for key in keys) else None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _either(first: pl.Series, second: pl.Series) -> pl.Series:
    return pl.select(pl.coalesce(pl.lit(first), pl.lit(second)).alias(DEFECT))[DEFECT]


def _without(objects: pl.Series, faults: pl.Series) -> pl.Series:
    return pl.select(pl.when(pl.lit(faults).is_null()).then(pl.lit(objects)).alias(FILE_RAW))[FILE_RAW]


def _exact(rows: pl.DataFrame, values: pl.DataFrame, ids: Sequence[str]) -> pl.DataFrame:
    """Values and DEFECT; ids that were floats beyond what counts in ones are a defect, and minus nought is nought."""
    table = pl.concat([values, rows], how="horizontal")
    for key in ids:
        odd = pl.col(key).str.contains(_ODD_ID) & pl.col(FILE_RAW).str.contains(_FLOAT)
        places = table.select(odd.fill_null(False).arg_true()).to_series()
        if places.is_empty():
            continue
        numbers = [json.loads(line).get(key) for line in table[FILE_RAW].gather(places)]
        large = [isinstance(number, float) and abs(number) >= WHOLE for number in numbers]
        nought = [isinstance(number, float) and number == 0 for number in numbers]
        at = pl.int_range(pl.len())
        table = table.with_columns(
            pl.when(at.is_in(places.filter(pl.Series(nought)).implode())).then(pl.lit("0")).otherwise(key).alias(key),
            pl.when(at.is_in(places.filter(pl.Series(large)).implode()) & pl.col(DEFECT).is_null())
            .then(pl.lit(INEXACT_ID))
            .otherwise(DEFECT)
            .alias(DEFECT),
        )
    return table.drop(FILE_RAW)


def _keys(rows: pl.LazyFrame) -> list[str]:
    """The keys of a sample's objects, in order of first appearance."""
    objects = pl.col(DEFECT).is_null() | pl.col(DEFECT).is_in([NESTED, INEXACT_ID])
    lines = rows.filter(objects).select(FILE_RAW).collect(engine="streaming")[FILE_RAW]
    return list(dict.fromkeys(key for line in lines for key in json.loads(line)))
