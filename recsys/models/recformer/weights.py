"""Read and write a Recformer's weights: transformers checkpoints, folders of our own.

A BERT, RoBERTa or Longformer gives its encoder, its token and position embeddings and, where it has one, its head for
masked words. Positions beyond the checkpoint's repeat its own from the beginning, the way Longformer was made from
RoBERTa (Beltagy et al., arXiv 2004.05150, section 5). Item positions start at zero and the four token types at the
checkpoint's one, so that a plain text first means what it meant to the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from recsys.errors import InputError
from recsys.features.model_source import EncoderError, find_model, hub_answers, quiet
from recsys.features.tokens import ItemTokenizer, plain_tokenizer
from recsys.features.whitening import Whitening
from recsys.models.recformer.model import MaskedHead, Recformer, Shape
from recsys.storage.files import folder_aside, move_into_place, sha256, write_json, writing

ABOUT: Final = "recformer.json"
WEIGHTS: Final = "weights.safetensors"
FORMAT: Final = 1
ENCODER: Final = "encoder."  # prefix of the encoder's weights, in folders and bundles
HEAD: Final = "masked_head."
_FAMILIES: Final = {"bert": 0, "roberta": None, "xlm-roberta": None, "camembert": None, "longformer": None}


def from_transformers(
    source: str,
    *,
    items: int,
    tokens: int,
    blocks: int | None = None,
    dropout: float = 0.1,
    **choices: Any,
) -> tuple[Recformer, MaskedHead, ItemTokenizer]:
    """A Recformer from a checkpoint of the transformers library.

    Parameters
    ----------
    source
        A local folder or a hub id.
    items, tokens
        Of a history, at most.
    blocks
        The checkpoint's first so many; None: all.
    dropout
        See `Recformer`.
    choices
        `window`, `places`, `apart` and `pooling` of `Shape`.

    Returns
    -------
    model, head, tokenizer
        The head is a new one where the checkpoint has none.

    Raises
    ------
    InputError
        Unknown id, no network, a checkpoint of another family, or too few blocks.
    """
    network, headless, backend = _load(source)
    config = network.config
    if config.model_type not in _FAMILIES or config.hidden_act != "gelu":
        raise InputError(
            f"recformer.init = {source!r} is a {config.model_type} that this model cannot take over; "
            f"it takes {', '.join(_FAMILIES)}, with gelu."
        )
    if blocks is not None and blocks > config.num_hidden_layers:
        raise InputError(
            f"recformer.layers = {blocks} and {source} has {config.num_hidden_layers}; set no more than it has."
        )
    shape = Shape(
        words=config.vocab_size,
        dimensions=config.hidden_size,
        inner=config.intermediate_size,
        blocks=config.num_hidden_layers if blocks is None else blocks,
        heads=config.num_attention_heads,
        tokens=tokens,
        items=items,
        first=backend.first,
        padding=backend.padding,
        global_projections=config.model_type == "longformer",
        epsilon=config.layer_norm_eps,
        **choices,
    )
    body: nn.Module = network.base_model
    given = {name: value.detach().float() for name, value in body.state_dict().items()}
    unused = _FAMILIES[config.model_type]
    model, head = Recformer(shape, dropout=dropout), MaskedHead(shape)
    own = model.state_dict()
    own |= _embeddings(given, shape, config.pad_token_id + 1 if unused is None else unused)
    for number in range(shape.blocks):
        own |= _block(given, number, shape)
    model.load_state_dict(own)
    if not headless:
        head.load_state_dict(_head(network))
    return model, head, backend


def resized(model: Recformer, *, items: int, tokens: int) -> Recformer:
    """The model for histories of another size: fewer positions, or more, repeated cyclically.

    Further item positions are those of the oldest item it knows.
    """
    shape = replace(model.shape, items=items, tokens=tokens)
    if shape == model.shape:
        return model
    weights = dict(model.state_dict())
    weights["positions.weight"] = _cyclic(weights["positions.weight"], tokens)
    for name, rows in (("item_positions.weight", items + 1), ("recency", items), ("repeats.weight", items)):
        if name in weights:
            weights[name] = weights[name][torch.arange(rows).clamp(max=len(weights[name]) - 1)]
    other = Recformer(shape, dropout=model.dropout.threshold / 256)
    other.load_state_dict(weights)
    return other


def whitened(model: Recformer, whitening: Whitening) -> Recformer:
    """The model with a projection that begins as a whitening, fitted on item vectors of the model as it is."""
    other = Recformer(replace(model.shape, projection=whitening.dimensions), dropout=model.dropout.threshold / 256)
    matrix = torch.from_numpy(whitening.matrix)
    weights = {
        "projection.weight": matrix.T.contiguous(),
        "projection.bias": -torch.from_numpy(whitening.mean) @ matrix,
    }
    other.load_state_dict(model.state_dict() | weights)
    return other


def unprojected(model: Recformer) -> Recformer:
    """The model as it was before its projection, without the maps of what follows, which come after it."""
    other = Recformer(replace(model.shape, projection=None, follows=False), dropout=model.dropout.threshold / 256)
    known = model.state_dict()
    other.load_state_dict({name: known[name] for name in other.state_dict()})
    return other.to(model.device)


def aligned(model: Recformer, whitening: Whitening) -> Recformer:
    """The model with its projection followed by a whitening of what it gives, fitted with `aligned`; one linear map.

    What the axes of the vectors mean is kept, and so is what has been learnt in them.
    """
    known = dict(model.state_dict())
    matrix, mean = (torch.from_numpy(part).to(model.device) for part in (whitening.matrix, whitening.mean))
    known["projection.weight"] = matrix.T @ known["projection.weight"]
    known["projection.bias"] = (known["projection.bias"] - mean) @ matrix
    other = Recformer(model.shape, dropout=model.dropout.threshold / 256)
    other.load_state_dict(known)
    return other


def extended(model: Recformer, *, repeats: bool, follows: bool) -> Recformer:
    """The model with `repeats` and `follows` of `Shape`, or without them; what is new begins at zero."""
    shape = replace(model.shape, repeats=repeats, follows=follows)
    if shape == model.shape:
        return model
    other, known = Recformer(shape, dropout=model.dropout.threshold / 256), model.state_dict()
    other.load_state_dict({name: known.get(name, new) for name, new in other.state_dict().items()})
    return other


def identity(model: Recformer, tokenizer: ItemTokenizer) -> str:
    """sha256 (hex) of weights, shape and tokenizer: what two encoders must share for their vectors to be compared.

    Whatever is kept of a model's vectors is kept under this, never under a path or a name.
    """
    digest = hashlib.sha256(json.dumps([asdict(model.shape), tokenizer.digest], sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def declaration(model: Recformer, tokenizer: ItemTokenizer) -> dict[str, Any]:
    """Return what weights do not say, JSON-friendly: shape, tokenizer, identity."""
    return {
        "shape": asdict(model.shape),
        "tokenizer": tokenizer.to_tree(),
        "identity": identity(model, tokenizer),
    }


def save(
    parent: Path, name: str, model: Recformer, head: MaskedHead, tokenizer: ItemTokenizer, about: Mapping[str, Any]
) -> Path:
    """Write `<parent>/<name>-<first digits of the identity>/`: aside, synchronised to disk, then renamed.

    Parameters
    ----------
    about
        JSON-friendly: how it was trained.

    Returns
    -------
    Path
        The folder; where it is there already, it stays as it is.
    """
    with writing(f"A Recformer in {parent}"), folder_aside(parent, name) as aside:
        weights = {f"{ENCODER}{key}": value for key, value in model.state_dict().items()}
        weights |= {f"{HEAD}{key}": value for key, value in head.state_dict().items()}
        safetensors.torch.save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, aside / WEIGHTS)
        described = declaration(model, tokenizer)
        write_json(
            aside / ABOUT, {"format": FORMAT, "weights": sha256(aside / WEIGHTS), **described, "about": dict(about)}
        )
        target = parent / f"{name}-{described['identity'][:12]}"
        if not target.is_dir():
            move_into_place(aside, target)
        return target


def load(folder: Path, *, dropout: float = 0.1) -> tuple[Recformer, MaskedHead, ItemTokenizer]:
    """Report of `save`.

    Raises
    ------
    InputError
        The folder is damaged, or of another format.
    """
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {FORMAT}")
        if sha256(folder / WEIGHTS) != about["weights"]:
            raise ValueError(f"{WEIGHTS} is not the file that was written")
        return rebuild(about, safetensors.torch.load_file(folder / WEIGHTS), dropout=dropout)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"The Recformer in {folder} cannot be read: {reason}; pre-train again.") from None


def rebuild(
    about: Mapping[str, Any], weights: Mapping[str, Tensor], *, dropout: float = 0.1
) -> tuple[Recformer, MaskedHead, ItemTokenizer]:
    """Model, head and tokenizer of a declaration and weights by name; a new head where there is none."""
    shape = Shape(**about["shape"])
    model, head = Recformer(shape, dropout=dropout), MaskedHead(shape)
    model.load_state_dict(_under(ENCODER, weights))
    if kept := _under(HEAD, weights):
        head.load_state_dict(kept)
    return model, head, ItemTokenizer.from_tree(about["tokenizer"])


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _load(source: str) -> tuple[Any, bool, ItemTokenizer]:
    """The network with its head for masked words, whether that head is new, and the tokenizer."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer  # seconds, which others are spared

    try:
        found = find_model(source)
        offline = not (Path(found).is_dir() or hub_answers())
        with quiet(), _silent():
            network, missing = AutoModelForMaskedLM.from_pretrained(
                found, local_files_only=offline, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
            words = AutoTokenizer.from_pretrained(found, local_files_only=offline)
        special = (words.cls_token_id, words.pad_token_id, words.mask_token_id)
        if words.backend_tokenizer is None or None in special:
            raise EncoderError("its tokenizer lacks a first, a padding or a mask token")
    except Exception as error:  # whatever the libraries and the hub's client raise
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")
        raise InputError(
            f"recformer.init = {source!r} is neither a folder of `recsys pretrain`, a bundle, nor a transformers "
            f"checkpoint with safetensors weights that can be had here ({type(error).__name__}: {cause}); check its "
            "name and the network."
        ) from None
    headless = any("embeddings" not in name and "encoder" not in name for name in missing["missing_keys"])
    return network, headless, plain_tokenizer(words.backend_tokenizer, *map(int, special))


@contextmanager
def _silent() -> Iterator[None]:
    """No report of weights that the checkpoint lacks or has beyond our need."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _embeddings(given: Mapping[str, Tensor], shape: Shape, unused: int) -> dict[str, Tensor]:
    """`unused`: rows of the position table before the first token's."""
    prefix = "embeddings."
    kind = given[f"{prefix}token_type_embeddings.weight"][:1]
    return {
        "words.weight": given[f"{prefix}word_embeddings.weight"],
        "positions.weight": _cyclic(given[f"{prefix}position_embeddings.weight"][unused:], shape.tokens),
        "types.weight": kind.expand(4, -1).clone(),
        "item_positions.weight": torch.zeros(shape.items + 1, shape.dimensions),
        "norm.weight": given[f"{prefix}LayerNorm.weight"],
        "norm.bias": given[f"{prefix}LayerNorm.bias"],
    }


def _block(given: Mapping[str, Tensor], number: int, shape: Shape) -> dict[str, Tensor]:
    theirs, ours = f"encoder.layer.{number}.", f"blocks.{number}."
    names = {
        "out": "attention.output.dense",
        "norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm_out": "output.LayerNorm",
    }
    block: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        block |= {f"{ours}{our}.{part}": given[f"{theirs}{their}.{part}"] for our, their in names.items()}
        for our, suffix in (("qkv", ""), ("global_qkv", "_global"))[: 1 + shape.global_projections]:
            parts = [given[f"{theirs}attention.self.{name}{suffix}.{part}"] for name in ("query", "key", "value")]
            block[f"{ours}{our}.{part}"] = torch.cat(parts)
    return block


def _head(network: Any) -> dict[str, Tensor]:
    given = {name: value.detach().float() for name, value in network.state_dict().items()}
    bert = "cls.predictions.bias" in given
    dense, norm = (
        ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm")
        if bert
        else (
            "lm_head.dense",
            "lm_head.layer_norm",
        )
    )
    return {
        "dense.weight": given[f"{dense}.weight"],
        "dense.bias": given[f"{dense}.bias"],
        "norm.weight": given[f"{norm}.weight"],
        "norm.bias": given[f"{norm}.bias"],
        "bias": given["cls.predictions.bias" if bert else "lm_head.bias"],
    }


def _cyclic(rows: Tensor, count: int) -> Tensor:
    """So many rows, the given ones over and over."""
    return rows[torch.arange(count) % len(rows)]
