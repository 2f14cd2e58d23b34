"""Checkpoints of the transformers library and folders of our own, against the library itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    LongformerConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from recsys.errors import InputError
from recsys.features.model_source import OFFLINE_MODEL, find_model
from recsys.features.tokens import ItemTokenizer, train_tokenizer
from recsys.models.recformer.inputs import Input
from recsys.models.recformer.model import MaskedHead, Recformer
from recsys.models.recformer.weights import ABOUT, WEIGHTS, from_transformers, identity, load, resized, save
from recsys.storage.files import write_json

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS: ItemTokenizer = train_tokenizer(["red lamp", "blue drill"] * 20, 300)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., str]:
    """A folder with random weights of a family and a tokenizer, as the library writes it."""

    def write(config: Any) -> str:
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        folder = tmp_path / config.model_type
        model.save_pretrained(folder)
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
        PreTrainedTokenizerFast(tokenizer_object=WORDS.backend, **special).save_pretrained(folder)
        return str(folder)

    return write


def plain(ids: np.ndarray, lengths: list[int] | None = None) -> Input:
    """A plain text as one item's value."""
    width = ids.shape[1]
    values = np.where(np.arange(width) == 0, 0, 1) * np.ones_like(ids)
    places = np.arange(width) * np.ones_like(ids)
    given = np.array([width] * len(ids) if lengths is None else lengths)
    return Input(tokens=ids, types=2 * values, places=places, items=values, lengths=given)


def random_ids(length: int, rows: int = 2) -> np.ndarray:
    ids = np.random.default_rng(0).integers(3, WORDS.size, (rows, length))
    ids[:, 0] = WORDS.first
    return ids


@torch.no_grad()
def states(model: Recformer, given: Input) -> torch.Tensor:
    return model.eval().states(given)


@torch.no_grad()
def test_minilm_says_of_a_sentence_what_it_always_said() -> None:
    model, _, tokenizer = from_transformers(OFFLINE_MODEL, items=8, tokens=64)
    reference = AutoModel.from_pretrained(find_model(OFFLINE_MODEL)).eval()
    ids = tokenizer.backend.encode("porter cable sanding roll, 80 grit", add_special_tokens=False).ids
    tokens = np.array([[tokenizer.first, *ids]])
    expected = reference(torch.from_numpy(tokens)).last_hidden_state
    torch.testing.assert_close(states(model, plain(tokens)), expected, rtol=1e-4, atol=1e-5)
    shallow, _, _ = from_transformers(OFFLINE_MODEL, items=8, tokens=64, blocks=2)
    hidden = reference(torch.from_numpy(tokens), output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(states(shallow, plain(tokens)), hidden, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("config", [BertConfig, RobertaConfig])
def test_a_checkpoint_says_what_it_said_and_fills_words_in(config: Any, checkpoint: Callable[..., str]) -> None:
    padding = {"pad_token_id": WORDS.padding}
    folder = checkpoint(config(vocab_size=WORDS.size, max_position_embeddings=40, **padding, **SMALL))
    model, head, tokenizer = from_transformers(folder, items=4, tokens=24)
    assert (tokenizer.first, tokenizer.padding, tokenizer.mask) == (WORDS.first, WORDS.padding, WORDS.mask)
    reference = AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = random_ids(20)
    ids[1, 12:] = WORDS.padding
    mask = torch.from_numpy(ids != WORDS.padding).long()
    expected = reference(torch.from_numpy(ids), attention_mask=mask, output_hidden_states=True)
    found = states(model, plain(ids, [20, 12]))
    for row, length in enumerate((20, 12)):
        torch.testing.assert_close(found[row, :length], expected.hidden_states[-1][row, :length], rtol=1e-4, atol=1e-4)
    logits = head(found[0], model.words.weight)
    torch.testing.assert_close(logits, expected.logits[0], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_longformer_sees_its_window_and_the_first_token_sees_all(checkpoint: Callable[..., str]) -> None:
    config = LongformerConfig(
        vocab_size=WORDS.size, max_position_embeddings=60, attention_window=8, pad_token_id=WORDS.padding, **SMALL
    )
    folder = checkpoint(config)
    model, _, _ = from_transformers(folder, items=4, tokens=48, window=8)
    reference = AutoModel.from_pretrained(folder).eval()
    ids = random_ids(40)
    everywhere = torch.zeros(ids.shape, dtype=torch.long)
    everywhere[:, 0] = 1
    expected = reference(torch.from_numpy(ids), global_attention_mask=everywhere).last_hidden_state
    torch.testing.assert_close(states(model, plain(ids)), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_positions_beyond_the_checkpoints_repeat_its_own(checkpoint: Callable[..., str]) -> None:
    folder = checkpoint(RobertaConfig(vocab_size=WORDS.size, max_position_embeddings=12, pad_token_id=0, **SMALL))
    model, _, _ = from_transformers(folder, items=4, tokens=25)
    given = AutoModel.from_pretrained(folder).embeddings.position_embeddings.weight
    assert len(given) == 12  # the first is the padding's and no place of a token
    assert model.positions.weight.shape == (25, 16)
    torch.testing.assert_close(model.positions.weight, torch.cat([given[1:], given[1:], given[1:4]]))


def test_another_size_keeps_what_fits_and_repeats_what_does_not(checkpoint: Callable[..., str]) -> None:
    folder = checkpoint(BertConfig(vocab_size=WORDS.size, max_position_embeddings=16, pad_token_id=0, **SMALL))
    model, _, _ = from_transformers(folder, items=3, tokens=16, pooling="items")
    with torch.no_grad():
        model.item_positions.weight.normal_()
    larger = resized(model, items=5, tokens=20)
    assert larger.positions.weight.tolist() == model.positions.weight[[*range(16), *range(4)]].tolist()
    assert larger.item_positions.weight.tolist() == model.item_positions.weight[[0, 1, 2, 3, 3, 3]].tolist()
    assert larger.recency.tolist() == model.recency[[0, 1, 2, 2, 2]].tolist()
    smaller = resized(larger, items=3, tokens=16)
    assert identity(smaller, WORDS) == identity(model, WORDS)
    assert resized(model, items=3, tokens=16) is model


def test_an_identity_is_of_weights_and_tokenizer_and_not_of_a_name(checkpoint: Callable[..., str]) -> None:
    folder = checkpoint(BertConfig(vocab_size=WORDS.size, max_position_embeddings=16, pad_token_id=0, **SMALL))
    one, _, tokenizer = from_transformers(folder, items=3, tokens=16)
    other, _, _ = from_transformers(folder, items=3, tokens=16)
    assert identity(one, tokenizer) == identity(other, tokenizer)
    with torch.no_grad():
        other.blocks[1].down.bias[0] += 1e-3
    another = train_tokenizer(["something else"] * 20, 300)
    pooled, _, _ = from_transformers(folder, items=3, tokens=16, pooling="items")
    found = {identity(model, tokenizer) for model in (one, other, pooled)} | {identity(one, another)}
    assert len(found) == 4


def test_a_folder_gives_back_what_was_saved(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    folder = checkpoint(BertConfig(vocab_size=WORDS.size, max_position_embeddings=16, pad_token_id=0, **SMALL))
    model, head, tokenizer = from_transformers(folder, items=3, tokens=16, pooling="items", apart=2.0)
    path = save(tmp_path / "made", "shop", model, head, tokenizer, {"steps": 3})
    assert path.name == f"shop-{identity(model, tokenizer)[:12]}"
    assert save(tmp_path / "made", "shop", model, head, tokenizer, {"steps": 3}) == path
    assert [p.name for p in (tmp_path / "made").iterdir()] == [path.name]
    again, its_head, its_tokenizer = load(path)
    assert identity(again, its_tokenizer) == identity(model, tokenizer)
    assert all((a == b).all() for a, b in zip(head.state_dict().values(), its_head.state_dict().values(), strict=True))
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"weights.safetensors is not the file that was written; pre-train again"):
        load(path)
    write_json(path / ABOUT, {"format": 7})
    with pytest.raises(InputError, match="its format is 7, not 1"):
        load(path)


def test_what_cannot_be_taken_over_says_so_in_one_sentence(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recformer.init = 'no/such-model' is neither a folder"):
        from_transformers("no/such-model", items=3, tokens=16)
    with pytest.raises(InputError, match=r"recformer.init = '/no/such/folder' is neither"):
        from_transformers("/no/such/folder", items=3, tokens=16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is neither a folder of `recsys pretrain`"):
        from_transformers(str(tmp_path / "empty"), items=3, tokens=16)
    other = checkpoint(DistilBertConfig(vocab_size=WORDS.size, dim=16, n_layers=1, n_heads=2, hidden_dim=32))
    with pytest.raises(InputError, match=r"is a distilbert .*takes bert, roberta"):
        from_transformers(other, items=3, tokens=16)
    folder = checkpoint(BertConfig(vocab_size=WORDS.size, max_position_embeddings=16, pad_token_id=0, **SMALL))
    with pytest.raises(InputError, match=r"recformer.layers = 5 and .* has 2; set no more than it has"):
        from_transformers(folder, items=3, tokens=16, blocks=5)


def test_a_head_of_its_own_begins_where_the_checkpoint_has_none() -> None:
    model, head, _ = from_transformers(OFFLINE_MODEL, items=3, tokens=16, blocks=1)
    assert isinstance(head, MaskedHead)
    assert head.bias.abs().max() == 0
    assert model.item_positions.weight.abs().max() == 0
    assert (model.types.weight == model.types.weight[0]).all()
