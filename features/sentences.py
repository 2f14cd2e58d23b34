"""Sentences of items for a language model, from their attributes: `title: OPI Nail Lacquer category: Makeup, Nails`.

The key-value form is Recformer's (Li et al., "Text Is All You Need", 2023, section 2.2). All work is
polars expressions; Python handles only the distinct HTML entities that occur.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

# Separator of values: a character that no catalogue contains and that `\s` does not match. Lists are flattened first
# and cleaned as one string afterwards.
_END: Final = "\x1f"
_ENTITY: Final = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_ENTITY_ROUNDS: Final = 2  # scraped catalogues are often escaped twice: &amp;quot;
_HIDDEN: Final = r"(?is)<(script|style)\b[^<>]*>.*?</(script|style)\s*>|<!--.*?-->"
# HTML's own elements only, so that "size <large>" survives. Inline ones may stand inside a word, others
# separate words.
_INLINE: Final = r"(?i)</?(?:a|abbr|b|big|em|font|i|mark|s|small|span|strong|su[bp]|tt|u|wbr)(?:\s[^<>]*)?/?>"
_BLOCK: Final = (
    r"(?i)</?(?:blockquote|body|br|center|dd|div|dl|dt|h[1-6]|head|hr|html|img|li|link|meta|ol|option|p|pre|select"
    r"|table|tbody|td|tfoot|th|thead|title|tr|ul)(?:\s[^<>]*)?/?>"
)
_BLANK: Final = r"[[\s\p{Cc}]--[\x1f]]+"
_INVISIBLE: Final = r"[\u{200B}\u{2060}\u{FEFF}\u{00AD}]"  # not the joiners that emoji and Persian need
# A word of the budget, with the blank before it: a character of the scripts that write without blanks, a run of letters
# and digits of any other, or a sign; what makes up one emoji stays together.
_DENSE: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD: Final = (
    rf"\s*(?:[{_DENSE}]|[\w--[{_DENSE}\u{{200D}}]]+|\p{{Regional_Indicator}}{{2}}"
    r"|\S(?:[\p{M}\p{Emoji_Modifier}]|\u{200D}\S)*)"
)
_WHOLE: Final = 2.0**53  # beyond it floats skip integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribute:
    """Text of one attribute, and the part beyond its budget.

    Attributes
    ----------
    name
        The column.
    kept
        String, one row an item; null for no text.
    dropped
        String: text beyond the budget; null for none.
    """

    name: str
    kept: pl.Series
    dropped: pl.Series


def sentences(
    frame: pl.DataFrame, attributes: Sequence[str], *, names: bool = True, words: int | None = None
) -> pl.Series:
    """Write one sentence an item from its attributes, in the given order.

    Nested lists and structs are flattened, HTML entities decoded, tags removed, whitespace collapsed; numbers
    are written without a trailing `.0`. Missing and blank values are left out, together with their attributes' names.

    Parameters
    ----------
    frame
        One row an item.
    attributes
        Columns of `frame`: strings, numbers, booleans, dates, lists or structs of them.
    names
        True: each attribute's name before its value, as Recformer reads it. False: values only.
    words
        Most words of one attribute, without its name. A character of a script without blanks (Chinese, Thai) and a
        sign are words too. None: no limit.

    Returns
    -------
    Series
        String, as long as `frame`, named `sentence`; the empty string for an item without text.

    Raises
    ------
    ValueError
        `frame` lacks an attribute, or its type has no text (binary, object).

    Examples
    --------
    >>> frame = pl.DataFrame({"title": ["Nail&nbsp;Lacquer", None], "tags": [["OPI", "<b>Nails</b>"], []]})
    >>> sentences(frame, ["title", "tags"]).to_list()
    ['title: Nail Lacquer tags: OPI, Nails', '']
    >>> sentences(frame, ["title", "tags"], names=False, words=1).to_list()
    ['Nail OPI', '']
    """
    return joined(cleaned(frame, attributes, words), len(frame), names=names)


def cleaned(frame: pl.DataFrame, attributes: Sequence[str], words: int | None = None) -> list[Attribute]:
    """Return each attribute's plain text and the part beyond the budget; see `sentences`."""
    missing = [name for name in attributes if name not in frame.columns]
    if missing:
        raise ValueError(f"there is no attribute {missing[0]!r}; the columns are {', '.join(frame.columns)}")
    return [
        _cut(name, _clean(frame.select(_render(pl.col(name), frame.schema[name], name)).to_series()), words)
        for name in attributes
    ]


def joined(attributes: Sequence[Attribute], items: int, *, names: bool = True) -> pl.Series:
    """Join attributes' texts into the sentences of `items` items; see `sentences`."""
    if not attributes:
        return pl.Series("sentence", [""] * items, dtype=pl.String)
    parts = pl.DataFrame([attribute.kept.alias(str(place)) for place, attribute in enumerate(attributes)])
    shown = [
        pl.concat_str(pl.lit(f"{attribute.name}: "), pl.col(str(place))) if names else pl.col(str(place))
        for place, attribute in enumerate(attributes)
    ]
    return parts.select(pl.concat_str(shown, separator=" ", ignore_nulls=True).alias("sentence")).to_series()


def shortened(attributes: Sequence[Attribute]) -> int:
    """Count the items that lost text of an attribute."""
    if not attributes:
        return 0
    cut = pl.DataFrame([attribute.dropped.alias(str(place)) for place, attribute in enumerate(attributes)])
    return int(cut.select(pl.any_horizontal(pl.all().is_not_null()).sum()).item())


def _cut(name: str, values: pl.Series, words: int | None) -> Attribute:
    if words is None:
        return Attribute(name=name, kept=values, dropped=pl.Series([None] * len(values), dtype=pl.String))
    value = pl.col("value")
    first = value.str.extract_all(_WORD).list.head(words).list.join("")
    kept = pl.when(value.is_not_null()).then(first)
    size = kept.str.len_bytes()
    rest = pl.when(value.str.len_bytes() > size).then(
        value.str.tail(value.str.len_chars().cast(pl.Int64) - kept.str.len_chars())
    )
    found = (
        values.alias("value").to_frame().select(kept.alias("kept"), rest.str.strip_chars_start(" ").alias("dropped"))
    )
    return Attribute(name=name, kept=found["kept"], dropped=found["dropped"])


def _render(value: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
    """Render a value of any type as String, leaves of a nested one separated by `_END`; null for none."""
    if isinstance(dtype, pl.List):
        leaves = value.list.eval(_render(pl.element(), _inner(dtype), name))
        return leaves.list.drop_nulls().list.join(_END)
    if isinstance(dtype, pl.Array):
        return _render(value.arr.to_list(), pl.List(_inner(dtype)), name)
    if isinstance(dtype, pl.Struct):
        fields = [_render(value.struct.field(field.name), field.dtype, name) for field in dtype.fields]  # type: ignore[arg-type]
        return pl.concat_str(fields, separator=_END, ignore_nulls=True) if fields else pl.lit(None, pl.String)
    if dtype.is_float():
        whole = (value == value.floor()) & (value.abs() < _WHOLE)
        number = (
            pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
        )
        return pl.when(value.is_finite()).then(number)
    if dtype in (pl.Binary, pl.Object):
        raise ValueError(f"the attribute {name!r} is of type {dtype}, which has no text; leave it out")
    return value.cast(pl.String)


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    return dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()


def _clean(values: pl.Series) -> pl.Series:
    """Return plain text with single spaces, leaves joined by ", "; null where nothing is left."""
    for _ in range(_ENTITY_ROUNDS):
        values = _decode_entities(values)
    text = (
        pl.col("value")
        .str.replace_all(_HIDDEN, " ")
        .str.replace_all(_INLINE, "")
        .str.replace_all(_BLOCK, " ")
        .str.replace_all(_INVISIBLE, "")
        .str.replace_all(_BLANK, " ")
        .str.replace_all(rf" ?{_END}[ {_END}]*", _END)
        .str.strip_chars(f" {_END}")
        .str.replace_all(_END, ", ", literal=True)
    )
    return values.to_frame("value").select(pl.when(text != "").then(text)).to_series()


def _decode_entities(values: pl.Series) -> pl.Series:
    """Decode HTML entities once (`&amp;` to `&`); unknown entities stay."""
    rows = values.filter(values.str.contains("&", literal=True).fill_null(False))
    entities = rows.str.extract_all(_ENTITY).explode().drop_nulls().unique().sort().to_list()
    if not entities:
        return values
    return values.str.replace_many(entities, [html.unescape(entity) for entity in entities])
