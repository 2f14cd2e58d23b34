"""Sentences to vectors with any frozen sentence-transformers model.

Shapes: n sentences, B of a batch, L tokens of a sentence, H width of the network, E of the encoder.

Nothing is padded, so a vector depends on its sentence and not on the batch's other sentences: on one machine it is the
same within `SAMENESS` in any order and any company. It is not the same to the last bit, as a processor may add up the
products of a large batch in another order than those of a small one. In one call each distinct sentence is encoded
once, and `recsys.text.represent` keeps its vector by content: equal sentences have equal bytes, also after an
interrupted run. BERTs on a CPU run as `features/packed.py` has them; other networks run as the library has them, a
batch holding sentences of one length only."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch

from recsys.features.device import best_device
from recsys.features.model_source import OFFLINE_MODEL, EncoderError, explain, find_model, hub_answers, quiet
from recsys.features.packed import PackedBert
from recsys.features.precision import native_bf16

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_CODE_VERSION: Final = 2  # part of an encoder's identity; raise it when this file changes the vectors
_BATCH_TOKENS: Final = {"cpu": 4096, "cuda": 65_536}
_CHARACTERS_PER_TOKEN: Final = 64  # text beyond this many for each token cannot matter, and is not tokenised
_LEAST_AGREEMENT: Final = 0.999  # cosine between bf16 and fp32 below which bf16 is not used
_LEAST_SAMENESS: Final = 0.99999  # cosine to the library below which our own fp32 is not used
# largest difference between numbers of a sentence's unit vectors in two batches; measured with AMX: 6e-4 and 0
SAMENESS: Final = {"bf16": 3e-3, "fp32": 1e-5}
_READ_LAST_STATES: Final = {"Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"}  # the library's modules
_PROBES: Final = (
    "title: OPI Nail Lacquer, Simmer and Shimmer, 0.5-Fluid Ounce category: Makeup, Nails, Nail Polish",
    "Toy Story (1995) Adventure, Animation, Children, Comedy, Fantasy",
    "12 V cordless drill driver",
    "Zur Nachtpflege 夜用面霜 ночной крем 🌙",
    "a",
)

Precision = Literal["auto", "bf16", "fp32"]
Progress = Callable[[int, int], None]  # (sentences done, sentences in all)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A loaded text encoder.

    Attributes
    ----------
    id
        16 hex digits of a hash over weights, tokenizer, pooling, `max_tokens`, prompt, dimensions and precision.
        Vectors of different encoders are never compared; a changed checkpoint under the same name is another encoder.
    model
        The name it was asked for.
    network
        The model as the library has it, what follows the transformer in fp32.
    packed
        Its transformer for a CPU; None: that of `network` runs.
    dimensions
        E, width of its vectors: the first so many of the model's, of length 1 again.
    max_tokens
        Longer sentences are cut (special tokens included).
    precision
        "bf16" or "fp32" for the transformer's weights and activations.
    prompt
        What the model wants to see before each sentence; mostly empty.
    """

    id: str
    model: str
    network: SentenceTransformer
    packed: PackedBert | None = None
    dimensions: int
    max_tokens: int
    precision: Literal["bf16", "fp32"]
    prompt: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Vectors of sentences.

    Attributes
    ----------
    vectors
        float32 [n, E] unit vectors in the caller's order; zeros for an empty sentence.
    truncated
        bool [n], sentences that were cut at `max_tokens`.
    """

    vectors: np.ndarray
    truncated: np.ndarray


def load_encoder(
    model: str = OFFLINE_MODEL,
    *,
    max_tokens: int = 128,
    prompt: str | None = None,
    truncate: int | None = None,
    precision: Precision = "auto",
) -> Encoder:
    """Load a sentence-transformers model.

    Parameters
    ----------
    model
        A local folder or a hub id. `all-MiniLM-L6-v2` comes from the package of the `offline` extra where
        that is installed, after its weights have been compared with their known sha256.
    max_tokens
        (tokens) sentences are cut here, or at the model's own limit if that is lower.
    prompt
        What stands before each sentence: the name of one of the model's prompts, or the words themselves. None: as
        the model says; the empty string: nothing.
    truncate
        Keep the first so many dimensions, which models trained for that (Matryoshka) put the most into. None: as
        the model says, mostly all.
    precision
        "auto" takes bf16 where the processor multiplies it natively and the model's vectors survive it
        (cosine to fp32 of at least .999 on a few probes).

    Raises
    ------
    EncoderError
        Unknown model, no network, weights that are damaged or not in safetensors, fewer dimensions than asked for.
    """
    source = find_model(model)
    from sentence_transformers import SentenceTransformer  # seconds, which who encodes nothing is spared

    device = best_device().type
    try:
        with quiet():
            network = SentenceTransformer(
                source,
                device=device,
                local_files_only=not (Path(source).is_dir() or hub_answers()),
                model_kwargs={"use_safetensors": True},
            )
    except Exception as error:  # whatever the libraries and the hub's client raise
        raise EncoderError(explain(model, source, error)) from error
    network.eval().requires_grad_(False)
    limit = network.max_seq_length
    plain = Encoder(
        id="",
        model=model,
        network=network,
        dimensions=_dimensions(network, model, truncate),
        max_tokens=max_tokens if limit is None else min(max_tokens, int(limit)),
        precision="fp32",
        prompt=_prompt(network, prompt),
    )
    identity = _identity(plain)
    encoder = _fastest(plain, precision)
    name = hashlib.sha256(json.dumps([identity, encoder.precision]).encode()).hexdigest()[:16]
    return replace(encoder, id=name)


def _dimensions(network: SentenceTransformer, model: str, truncate: int | None) -> int:
    width = len(network.encode([_PROBES[0]], show_progress_bar=False, truncate_dim=1_000_000)[0])
    wanted = truncate or network.truncate_dim or width
    if wanted > width:
        raise EncoderError(f"text.truncate = {wanted} is more than the {width} dimensions of {model}; lower it.")
    return wanted


def _prompt(network: SentenceTransformer, asked: str | None) -> str:
    known: dict[str, str | None] = dict(network.prompts)
    if asked is None:
        return known.get(network.default_prompt_name or "") or ""
    return (known[asked] or "") if asked in known else asked


def _fastest(plain: Encoder, precision: Precision) -> Encoder:
    """The encoder in the precision asked for, in the fastest form that gives the library's vectors."""
    if plain.network.transformers_model is None:  # averages of word vectors and the like
        return plain
    expected = encode(plain, _PROBES).vectors

    def agreement(encoder: Encoder) -> float:
        return float((expected * encode(encoder, _PROBES).vectors).sum(1).min())

    if precision == "bf16" or (precision == "auto" and (plain.network.device.type == "cuda" or native_bf16())):
        packed = _packed(plain.network, torch.bfloat16)
        network = _in_bf16(plain.network) if packed is None else plain.network
        narrow = replace(plain, network=network, packed=packed, precision="bf16")
        if precision == "bf16" or agreement(narrow) >= _LEAST_AGREEMENT:
            return narrow
    packed = _packed(plain.network, torch.float32)
    same = replace(plain, packed=packed)
    return plain if packed is None or agreement(same) < _LEAST_SAMENESS else same


def encode(
    encoder: Encoder,
    sentences: Sequence[str],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Encoded:
    """Vectors of sentences, each distinct one computed once.

    Parameters
    ----------
    sentences
        n sentences in any order; the empty one has the zero vector.
    batch_size
        Sentences a batch at most; the tokens of a batch are limited too.
    progress
        Called with (done, all) distinct sentences after each batch.
    """
    distinct = sorted(set(sentences) - {""})
    place = {sentence: row for row, sentence in enumerate(distinct)}
    vectors = np.zeros((len(distinct) + 1, encoder.dimensions), dtype=np.float32)  # the last row: empty
    cut = np.zeros(len(distinct) + 1, dtype=bool)
    if encoder.network.transformers_model is None:  # averages of word vectors and the like: fast as they are
        done: Iterator[tuple[np.ndarray, np.ndarray]] = _encode_plainly(encoder, distinct)
    else:
        tokens, cut[:-1] = _tokenise(encoder, distinct)
        done = _encode_by_length(encoder, tokens, batch_size)
    count = 0
    for rows, values in done:
        values = values[:, : encoder.dimensions]
        vectors[rows] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        count += len(rows)
        if progress is not None:
            progress(count, len(distinct))
    order = np.fromiter((place.get(sentence, -1) for sentence in sentences), dtype=np.int64, count=len(sentences))
    return Encoded(vectors=vectors[order], truncated=cut[order])


def token_count(encoder: Encoder, text: str, *, special: bool = False, most: int | None = None) -> tuple[int, int]:
    """(tokens of a text, its characters that the first `most` of them cover); `special`: with those around a sentence.

    A tokenizer that does not tell where its tokens come from is answered for in proportion.
    """
    tokenizer: Any = encoder.network.tokenizer
    told = tokenizer(text, add_special_tokens=special, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    count = len(told["input_ids"])
    if most is None or count <= most:
        return count, len(text)
    if not tokenizer.is_fast:
        return count, len(text) * most // count
    return count, told["offset_mapping"][most - 1][1] if most else 0


def _packed(network: SentenceTransformer, dtype: torch.dtype) -> PackedBert | None:
    """Its transformer packed; None where that cannot be, or where what follows reads more than the last states."""
    follows = {type(module).__name__ for module in list(network)[1:]}
    return PackedBert.of(network.transformers_model, dtype) if follows <= _READ_LAST_STATES else None


def _in_bf16(network: SentenceTransformer) -> SentenceTransformer:
    """A copy whose transformer computes in bf16; pooling and all that follows stay in fp32."""
    narrow = copy.deepcopy(network)
    narrow[0].to(torch.bfloat16)
    return narrow


def _identity(encoder: Encoder) -> list[str]:
    """Return what makes two encoders the same: weights, tokenizer, the modules' settings, ours."""
    weights = hashlib.sha256()
    for name, tensor in sorted(encoder.network.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    modules = [(type(module).__name__, _settings_of(module)) for module in list(encoder.network)[1:]]
    backend = getattr(encoder.network.tokenizer, "backend_tokenizer", None)
    words = repr(encoder.network.tokenizer)
    if backend is not None:  # truncation and padding are what the last call asked for
        words = json.dumps({**json.loads(backend.to_str()), "truncation": None, "padding": None}, sort_keys=True)
    config = encoder.network.config  # what the weights do not say: heads, activation, ...
    shape = {} if config is None else config.to_diff_dict()
    for key in ("_name_or_path", "transformers_version", "architectures", "dtype"):
        shape.pop(key, None)
    ours = {"max_tokens": encoder.max_tokens, "prompt": encoder.prompt, "dimensions": encoder.dimensions}
    ours["version"] = _CODE_VERSION
    return [
        weights.hexdigest(),
        hashlib.sha256(words.encode()).hexdigest(),
        json.dumps([modules, shape, ours], sort_keys=True, default=str),
    ]


def _settings_of(module: torch.nn.Module) -> dict[str, Any]:
    return {key: getattr(module, key, None) for key in getattr(module, "config_keys", ())}


def _tokenise(encoder: Encoder, sentences: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
    """Token ids of each sentence with its special tokens, and which sentences were cut."""
    tokenizer: Any = encoder.network.tokenizer
    limit = encoder.max_tokens * _CHARACTERS_PER_TOKEN
    texts = [(encoder.prompt + sentence)[:limit] for sentence in sentences]
    if not texts:
        return [], np.zeros(0, dtype=bool)
    output = tokenizer(
        texts, truncation=True, max_length=encoder.max_tokens, return_attention_mask=False, verbose=False
    )
    ids: list[list[int]] = output["input_ids"]
    if output.encodings is not None:
        cut = [bool(encoding.overflowing) for encoding in output.encodings]
    else:  # a tokenizer written in Python does not say; full means cut, most likely
        cut = [len(row) >= encoder.max_tokens for row in ids]
    long = [len(encoder.prompt) + len(sentence) > limit for sentence in sentences]
    return ids, np.array(cut) | np.array(long)


def _encode_by_length(
    encoder: Encoder, tokens: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, vectors [rows, E]) batch by batch, the longest first: what does not fit fails at once."""
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    for rows in _batches(order, lengths[order], batch_size, _budget(encoder), mixed=encoder.packed is not None):
        ids = torch.from_numpy(np.concatenate([tokens[row] for row in rows])).to(encoder.network.device)
        groups = [(len(list(same)), int(length)) for length, same in groupby(lengths[rows])]
        yield rows, _forward(encoder, ids, groups)


def _budget(encoder: Encoder) -> int:
    return _BATCH_TOKENS.get(encoder.network.device.type, _BATCH_TOKENS["cpu"])


def _batches(order: np.ndarray, lengths: np.ndarray, most: int, budget: int, *, mixed: bool) -> Iterator[np.ndarray]:
    """Parts of `order`, whose sentences have these lengths in descending order.

    A part has at most so many sentences, and as many tokens as the budget or one sentence; without `mixed` one length.
    """
    start = 0
    while start < len(order):
        stop = min(start + most, len(order))
        if not mixed:
            stop = min(stop, start + int(np.searchsorted(-lengths[start:], -lengths[start], side="right")))
        fitting = int(np.searchsorted(np.cumsum(lengths[start:stop]), budget, side="right"))
        stop = start + max(fitting, 1)
        yield order[start:stop]
        start = stop


@torch.inference_mode()
def _forward(encoder: Encoder, ids: torch.Tensor, groups: Sequence[tuple[int, int]]) -> np.ndarray:
    """float32 [B, E'] of token ids [T]: B sentences one after the other, by groups of (sentences, tokens of each)."""
    transformer, *rest = encoder.network
    given: list[dict[str, Any]] = []
    parts = ids.split([count * length for count, length in groups])
    for part, (count, length) in zip(parts, groups, strict=True):
        rectangle = part.view(count, length)
        given.append({"input_ids": rectangle, "attention_mask": torch.ones_like(rectangle)})
        if encoder.prompt:  # some poolings leave it out
            given[-1]["prompt_length"] = _prompt_tokens(encoder)
    if encoder.packed is None:
        given = [transformer(features) for features in given]
    else:
        states = encoder.packed(ids, groups)
        given = [features | {"token_embeddings": state} for features, state in zip(given, states, strict=True)]
    vectors = []
    for features in given:
        if "token_embeddings" in features:
            features["token_embeddings"] = features["token_embeddings"].float()  # pooling adds up in fp32
        for module in rest:
            features = module(features)
        vectors.append(features["sentence_embedding"].float().cpu())
    return torch.cat(vectors).numpy()


def _prompt_tokens(encoder: Encoder) -> int:
    """Tokens of the prompt with the special ones before it, as poolings that leave it out count them."""
    tokenizer: Any = encoder.network.tokenizer
    ids: list[int] = tokenizer(encoder.prompt)["input_ids"]
    return len(ids) - (ids[-1] in (tokenizer.sep_token_id, tokenizer.eos_token_id))


def _encode_plainly(encoder: Encoder, sentences: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The library's own way, for models without a transformer."""
    step = 4096
    for start in range(0, len(sentences), step):
        part = list(sentences[start : start + step])
        told = [encoder.prompt + sentence for sentence in part]
        yield np.arange(start, start + len(part)), encoder.network.encode(told, prompt="", show_progress_bar=False)
