"""Key-value tokens of items, against results worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.features.tokens import (
    NAME,
    VALUE,
    ItemTokenizer,
    ItemTokens,
    content_hash,
    every_text,
    join,
    spans,
    tokenise,
    train_tokenizer,
)

ITEMS = pl.DataFrame(
    {
        "title": ["Red lamp", "blue LAMP &amp; shade", None, "red red red red red red"],
        "main_brand": ["Lux", None, "", "Lux"],
    }
)
ATTRIBUTES = ["title", "main_brand"]


@pytest.fixture(scope="module")
def tokenizer() -> ItemTokenizer:
    return train_tokenizer(list(every_text(ITEMS, ATTRIBUTES)) * 50, 400)


def words(tokenizer: ItemTokenizer, tokens: ItemTokens, code: int, kind: int) -> str:
    part = slice(tokens.offsets[code], tokens.offsets[code + 1])
    ids = tokens.tokens[part][tokens.types[part] == kind]
    return str(tokenizer.backend.decode(ids.tolist())).strip()


def test_an_item_is_its_attributes_names_and_values_in_order(tokenizer: ItemTokenizer) -> None:
    tokens = tokenise(ITEMS, ATTRIBUTES, tokenizer)
    assert tokens.size == 4
    assert tokens.offsets[:2].tolist() == [0, 0]  # padding owns nothing
    assert words(tokenizer, tokens, 1, NAME) == "title main brand"
    assert words(tokenizer, tokens, 1, VALUE) == "red lamp lux"
    assert words(tokenizer, tokens, 2, NAME) == "title"  # what is missing leaves no trace
    assert words(tokenizer, tokens, 2, VALUE) == "blue lamp & shade"
    first = slice(tokens.offsets[1], tokens.offsets[2])
    kinds = tokens.types[first]
    assert np.flatnonzero(np.diff(kinds.astype(int))).size == 3  # name, value, name, value
    assert kinds[0] == NAME and kinds[-1] == VALUE
    assert tokens.empty == 1 and tokens.lengths[3] == 0


def test_an_attribute_is_cut_with_its_name_and_the_cuts_are_counted(tokenizer: ItemTokenizer) -> None:
    whole = tokenise(ITEMS, ["title"], tokenizer, attribute_tokens=32)
    assert whole.truncated == 0
    cut = tokenise(ITEMS, ["title"], tokenizer, attribute_tokens=4)
    assert cut.lengths.max() == 4
    assert cut.truncated == int((whole.lengths > 4).sum())
    assert words(tokenizer, cut, 4, VALUE) == "red red red"
    one = tokenise(ITEMS, ["main_brand"], tokenizer, attribute_tokens=2)
    assert one.lengths.tolist() == [0, 2, 0, 0, 2]  # a long name leaves the value a token


def test_any_script_emoji_and_very_long_values_work(tokenizer: ItemTokenizer) -> None:
    odd = pl.DataFrame({"title": ["夜用面霜 🌙 ночной", "x" * 100_000, "word " * 50_000]})
    tokens = tokenise(odd, ["title"], tokenizer, attribute_tokens=64)
    assert words(tokenizer, tokens, 1, VALUE) == "夜用面霜 🌙 ночной"  # bytes: nothing is unknown
    assert tokens.lengths[2:].tolist() == [64, 64]
    assert tokens.truncated == 2


def test_equal_texts_give_an_equal_tokenizer_that_survives_json(tokenizer: ItemTokenizer) -> None:
    again = train_tokenizer(list(every_text(ITEMS, ATTRIBUTES)) * 50, 400)
    assert again.digest == tokenizer.digest
    copy = ItemTokenizer.from_tree(tokenizer.to_tree())
    assert copy.digest == tokenizer.digest
    assert (tokenise(ITEMS, ATTRIBUTES, copy).tokens == tokenise(ITEMS, ATTRIBUTES, tokenizer).tokens).all()
    with pytest.raises(ValueError, match="tokenizer cannot be read"):
        ItemTokenizer.from_tree({"backend": {}, "first": 0, "padding": 0, "mask": 0})


def test_a_token_that_begins_a_word_is_known(tokenizer: ItemTokenizer) -> None:
    ids = tokenizer.backend.encode("lamp unseen", add_special_tokens=False).ids
    begins = tokenizer.begins[ids]
    assert begins[0] and begins.sum() == 2  # "unseen" is spelled in pieces, its first one begins it
    assert len(ids) > 2


def test_the_hash_stands_for_texts_names_tokenizer_and_settings(tokenizer: ItemTokenizer) -> None:
    known = content_hash(ITEMS, ATTRIBUTES, tokenizer, 32)
    assert known == content_hash(ITEMS.clone(), list(ATTRIBUTES), tokenizer, 32)
    moved = ITEMS.with_columns(pl.Series("title", ["Red", "lampblue LAMP & shade", None, "red red red red red red"]))
    other = train_tokenizer(["something else"] * 20, 300)
    hashes = {
        known,
        content_hash(ITEMS, ATTRIBUTES[::-1], tokenizer, 32),
        content_hash(ITEMS, ATTRIBUTES, tokenizer, 16),
        content_hash(moved, ATTRIBUTES, tokenizer, 32),
        content_hash(ITEMS, ATTRIBUTES, other, 32),
        content_hash(ITEMS.rename({"main_brand": "maker"}), ["title", "maker"], tokenizer, 32),
    }
    assert len(hashes) == 6


def test_joined_catalogues_follow_one_another(tokenizer: ItemTokenizer) -> None:
    left, right = tokenise(ITEMS, ["title"], tokenizer), tokenise(ITEMS[:2], ["main_brand"], tokenizer)
    both = join([left, right])
    assert both.size == 6
    assert both.lengths.tolist() == [0, *left.lengths[1:], *right.lengths[1:]]
    assert words(tokenizer, both, 5, VALUE) == "lux"
    assert words(tokenizer, both, 2, VALUE) == "blue lamp & shade"


def test_spans_are_slices_one_after_the_other() -> None:
    assert spans(np.array([3, 0, 9]), np.array([2, 3, 0])).tolist() == [3, 4, 0, 1, 2]
    assert spans(np.zeros(0, dtype=int), np.zeros(0, dtype=int)).tolist() == []
