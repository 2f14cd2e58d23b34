"""Key-value tokens of items, as Recformer reads them: `title opi nail lacquer brand opi`.

Source: Li et al., "Text Is All You Need" (KDD 2023, arXiv 2305.13731), section 3.1, and its public tokenisation. Each
attribute gives the tokens of its name, then those of its value, up to a limit; attributes follow one another.

Shapes: V items, T tokens of all items.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
import polars as pl
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from recsys.features.sentences import sentences

FIRST, NAME, VALUE, FILL = 0, 1, 2, 3  # token types: the first token, an attribute's name, its value, padding
TOKEN_TYPES: Final = 4
_SPECIAL: Final = ("[PAD]", "[CLS]", "[MASK]")  # of a tokenizer trained here
_CHARACTERS_PER_TOKEN: Final = 64  # longer text cannot matter and is not tokenised
_CHUNK: Final = 65_536  # values tokenised at once; bounds memory
_CODE_VERSION: Final = 1  # part of a catalogue's content hash; raise it when this file changes the tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemTokenizer:
    """Tokenizer of item texts, without special tokens, truncation or padding.

    Attributes
    ----------
    backend
        A tokenizer of the `tokenizers` library.
    first, padding, mask
        Ids of the token before a history (`<s>`, `[CLS]`), of padding, and of a hidden token.
    """

    backend: Tokenizer
    first: int
    padding: int
    mask: int

    @property
    def size(self) -> int:
        """Number of ids, including gaps."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def begins(self) -> np.ndarray:
        """bool [size]: tokens that begin a word, judged by their spelling."""
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        begins = np.ones(self.size, dtype=bool)
        for signs, when in (("##", False), (("Ġ", "▁"), True)):
            marked = [place for token, place in vocabulary.items() if token.startswith(signs)]
            if marked:
                begins[:] = not when
                begins[marked] = when
                break
        return begins

    def to_tree(self) -> dict[str, Any]:
        """Return JSON-friendly values. Equal tokenizers give equal trees."""
        return {
            "backend": json.loads(self.backend.to_str()),
            "first": self.first,
            "padding": self.padding,
            "mask": self.mask,
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> ItemTokenizer:
        """Read the output of `to_tree`.

        Raises
        ------
        ValueError
            The tree is not a tokenizer.
        """
        try:
            backend = Tokenizer.from_str(json.dumps(tree["backend"]))
            return plain_tokenizer(backend, *(int(tree[name]) for name in ("first", "padding", "mask")))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"the tokenizer cannot be read ({type(error).__name__}: {error})") from None

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of everything that decides the tokens of a text."""
        return hashlib.sha256(json.dumps(self.to_tree(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemTokens:
    """A tokenised catalogue.

    Attributes
    ----------
    tokens
        int32 [T] token ids, item after item.
    types
        uint8 [T]: NAME or VALUE.
    offsets
        int64 [V + 2]; item of code `c` owns `[offsets[c], offsets[c + 1])`. Code 0 is padding and owns none.
    truncated
        Number of values that were cut.
    """

    tokens: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    truncated: int = 0

    @property
    def size(self) -> int:
        """V, the number of items."""
        return len(self.offsets) - 2

    @property
    def lengths(self) -> np.ndarray:
        """int64 [V + 1], the number of tokens of each item."""
        return np.diff(self.offsets)

    @property
    def empty(self) -> int:
        """Number of items without a token."""
        return int((self.lengths[1:] == 0).sum())


def plain_tokenizer(backend: Tokenizer, first: int, padding: int, mask: int) -> ItemTokenizer:
    """Wrap a backend as an `ItemTokenizer`. The backend is changed: it no longer cuts, pads or adds special tokens."""
    backend.no_truncation()
    backend.no_padding()
    return ItemTokenizer(backend=backend, first=first, padding=padding, mask=mask)


def train_tokenizer(texts: Iterable[str], size: int) -> ItemTokenizer:
    """Train a byte-pair tokenizer on a catalogue, for languages and catalogues that no checkpoint covers.

    It works on bytes, so it knows every script and emoji. Equal texts in equal order give an equal tokenizer.

    Parameters
    ----------
    texts
        Texts to train on.
    size
        Most ids; 259 of them are bytes and special tokens.
    """
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # fixed ids, and all bytes known
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return plain_tokenizer(backend, first=_SPECIAL.index("[CLS]"), padding=0, mask=_SPECIAL.index("[MASK]"))


def attribute_texts(frame: pl.DataFrame, attributes: Sequence[str]) -> list[pl.Series]:
    """Return each attribute's cleaned values, String; the empty string where an item lacks it.

    Raises
    ------
    ValueError
        See `sentences`.
    """
    return [sentences(frame, [name], names=False) for name in attributes]


def every_text(frame: pl.DataFrame, attributes: Sequence[str]) -> Iterator[str]:
    """Yield names and distinct values in a fixed order, for `train_tokenizer`."""
    for name, values in zip(attributes, attribute_texts(frame, attributes), strict=True):
        yield _words(name)
        yield from values.unique().sort()


def content_hash(
    frame: pl.DataFrame, attributes: Sequence[str], tokenizer: ItemTokenizer, attribute_tokens: int
) -> str:
    """Return the sha256 (hex) of all inputs of `tokenise`. Equal hashes mean equal tokens."""
    digest = hashlib.sha256(json.dumps([_CODE_VERSION, list(attributes), tokenizer.digest, attribute_tokens]).encode())
    for values in attribute_texts(frame, attributes):
        digest.update(values.str.len_bytes().to_numpy().tobytes())
        for start in range(0, len(values), _CHUNK):
            digest.update("".join(values[start : start + _CHUNK]).encode())
    return digest.hexdigest()


def tokenise(
    frame: pl.DataFrame, attributes: Sequence[str], tokenizer: ItemTokenizer, attribute_tokens: int = 32
) -> ItemTokens:
    """Tokenise a catalogue, each distinct value once.

    Parameters
    ----------
    frame
        V rows; row `i` belongs to code `i + 1`.
    attributes
        Columns of `frame`, in reading order. An attribute that an item lacks is left out, together with its name.
    attribute_tokens
        Most tokens of one attribute, including its name. A value keeps at least one.

    Raises
    ------
    ValueError
        See `sentences`.
    """
    pieces = [
        _pieces(name, values, tokenizer, attribute_tokens)
        for name, values in zip(attributes, attribute_texts(frame, attributes), strict=True)
    ]
    lengths = [piece.name_lengths + piece.value_lengths for piece in pieces]
    per_item = sum(lengths, np.zeros(len(frame), dtype=np.int64))
    offsets = np.concatenate([[0, 0], np.cumsum(per_item)]).astype(np.int64)
    tokens = np.empty(offsets[-1], dtype=np.int32)
    types = np.empty(offsets[-1], dtype=np.uint8)
    at = offsets[1:-1].copy()  # where each item's next piece goes
    for piece in pieces:
        for source, starts, counts, kind in (
            (piece.name, np.zeros_like(at), piece.name_lengths, NAME),
            (piece.values, piece.value_starts, piece.value_lengths, VALUE),
        ):
            to = spans(at, counts)
            tokens[to] = source[spans(starts, counts)]
            types[to] = kind
            at += counts
    return ItemTokens(
        tokens=tokens, types=types, offsets=offsets, truncated=sum(int(piece.cut.sum()) for piece in pieces)
    )


def join(catalogues: Sequence[ItemTokens]) -> ItemTokens:
    """Join several catalogues into one. The codes of each catalogue follow those of the one before."""
    ends = np.cumsum([0, *(len(part.tokens) for part in catalogues)])
    return ItemTokens(
        tokens=np.concatenate([part.tokens for part in catalogues]),
        types=np.concatenate([part.types for part in catalogues]),
        offsets=np.concatenate(
            [[0], *(part.offsets[1:-1] + end for part, end in zip(catalogues, ends[:-1], strict=True)), ends[-1:]]
        ),
        truncated=sum(part.truncated for part in catalogues),
    )


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return flat indices of the slices `[start, start + length)`, one after the other.

    >>> spans(np.array([3, 0]), np.array([2, 3])).tolist()
    [3, 4, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pieces:
    """One attribute of all items: the start of each item's value in `values`, and the number of tokens read."""

    name: np.ndarray  # the name's tokens
    name_lengths: np.ndarray  # [V], 0 where the item lacks the attribute
    values: np.ndarray
    value_starts: np.ndarray
    value_lengths: np.ndarray
    cut: np.ndarray


def _pieces(name: str, values: pl.Series, tokenizer: ItemTokenizer, most: int) -> _Pieces:
    distinct = values.unique(maintain_order=True)
    rows = pl.DataFrame({"text": distinct, "row": np.arange(len(distinct))})
    row = values.alias("text").to_frame().join(rows, on="text", how="left", maintain_order="left")["row"].to_numpy()
    texts = distinct.str.slice(0, most * _CHARACTERS_PER_TOKEN).to_list()
    flat, lengths = _encode(tokenizer, texts)
    label, _ = _encode(tokenizer, [_words(name)])
    label = label[: most - 1]
    starts = np.cumsum(lengths) - lengths
    room = most - len(label)
    kept = np.minimum(lengths, room)
    cut = (lengths > room) | (distinct.str.len_chars().to_numpy() > most * _CHARACTERS_PER_TOKEN)
    return _Pieces(
        name=label,
        name_lengths=np.where(kept[row] > 0, len(label), 0),
        values=flat,
        value_starts=starts[row],
        value_lengths=kept[row],
        cut=cut[row],
    )


def _words(name: str) -> str:
    """Write an attribute's name as words: `main_category` becomes `main category`."""
    return re.sub(r"[_\W]+", " ", name).strip()


def _encode(tokenizer: ItemTokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids int32 [sum], lengths int64 [n]) of n texts."""
    parts, lengths = [np.zeros(0, dtype=np.int32)], np.zeros(len(texts), dtype=np.int64)
    for start in range(0, len(texts), _CHUNK):
        encoded = tokenizer.backend.encode_batch_fast(texts[start : start + _CHUNK], add_special_tokens=False)
        ids = [encoding.ids for encoding in encoded]
        lengths[start : start + len(ids)] = [len(row) for row in ids]
        parts.append(np.fromiter(chain.from_iterable(ids), dtype=np.int32))
    return np.concatenate(parts), lengths
