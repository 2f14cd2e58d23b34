"""The packed BERT beside transformers' own: the same states from sentences of any lengths laid end to end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from recsys.features.packed import FusedDense, PackedBert, fuses
from recsys.features.precision import native_bf16

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,  # random weights that do something
}
GROUPS = ((2, 9), (1, 4), (3, 1))


def tiny(kind: str, **changed: Any) -> Any:
    torch.manual_seed(3)
    if kind == "bert":
        return BertModel(BertConfig(**SHAPE | changed)).eval()
    if kind == "roberta":
        return RobertaModel(RobertaConfig(**SHAPE | changed)).eval()
    return XLMRobertaModel(XLMRobertaConfig(**SHAPE | changed)).eval()


class Lacking:
    """A namespace of operations without one of them."""

    def __init__(self, operations: Any, name: str) -> None:
        self.operations, self.name = operations, name

    def __getattr__(self, name: str) -> Any:
        if name == self.name:
            raise AttributeError(f"'_OpNamespace' 'mkldnn' object has no attribute '{name}'")
        return getattr(self.operations, name)


def refuses(*_: Any) -> Tensor:
    raise RuntimeError("mkldnn bf16 path needs the cpu support avx512bw, avx512vl and avx512dq")


def other_meaning(inputs: Tensor, weight: Tensor, bias: Tensor, after: str, *_: Any) -> Tensor:
    return inputs[:, :1].expand(-1, 32)


TORCHES = ["this one", "no oneDNN", "no packed weights", "no fused product", "refuses", "means another thing"]


@pytest.fixture(params=TORCHES)
def any_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """torch as it is here, and as it may be elsewhere: without, or with other, private products."""
    operations = torch.ops.mkldnn
    match request.param:
        case "no oneDNN":
            monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
            monkeypatch.setattr(torch.ops, "mkldnn", None)
        case "no packed weights":
            monkeypatch.setattr(torch.ops, "mkldnn", Lacking(operations, "_reorder_linear_weight"))
        case "no fused product":
            monkeypatch.setattr(torch.ops, "mkldnn", Lacking(operations, "_linear_pointwise"))
        case "refuses":
            monkeypatch.setattr(operations, "_linear_pointwise", refuses)
        case "means another thing":
            other_meaning.binary = lambda *_: torch.zeros(3, 32)  # type: ignore[attr-defined]
            monkeypatch.setattr(operations, "_linear_pointwise", other_meaning)
    if request.param != "this one":
        assert not fuses(torch.float32) and not fuses(torch.bfloat16)
    name: str = request.param
    return name


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_where_onednn_is_its_products_are_used() -> None:
    assert fuses(torch.float32)
    assert fuses(torch.bfloat16) or not native_bf16()
    model = PackedBert.of(tiny("bert"), torch.float32)
    assert model is not None and type(model.blocks[0].widened) is FusedDense


@pytest.mark.usefixtures("any_torch")
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
@torch.inference_mode()
def test_the_states_are_those_of_transformers(kind: str) -> None:
    model = tiny(kind)
    packed = PackedBert.of(model, torch.float32)
    assert packed is not None
    ids = torch.randint(5, 50, (2 * 9 + 4 + 3,), generator=torch.Generator().manual_seed(0))
    states = packed(ids, GROUPS)
    assert [tuple(state.shape) for state in states] == [(2, 9, 32), (1, 4, 32), (3, 1, 32)]
    for state, part, (count, length) in zip(states, ids.split([18, 4, 3]), GROUPS, strict=True):
        expected = model(part.view(count, length)).last_hidden_state
        torch.testing.assert_close(state, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.usefixtures("any_torch")
@torch.inference_mode()
def test_bf16_stays_near() -> None:
    model = tiny("bert")
    packed = PackedBert.of(model, torch.bfloat16)
    assert packed is not None
    ids = torch.arange(5, 25)
    (states,) = packed(ids, [(2, 10)])
    assert states.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(states.float(), model(ids.view(2, 10)).last_hidden_state, dim=-1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("changed", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_another_computation_is_left_to_the_library(changed: dict[str, Any]) -> None:
    assert PackedBert.of(tiny("bert", **changed), torch.float32) is None


def test_another_architecture_is_left_to_the_library() -> None:
    model = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16))
    assert PackedBert.of(model, torch.float32) is None
    assert PackedBert.of(None, torch.float32) is None


def test_an_adapter_is_left_to_the_library() -> None:
    model = tiny("bert")
    model.encoder.layer[1].output.dense = torch.nn.Sequential(model.encoder.layer[1].output.dense)
    assert PackedBert.of(model, torch.float32) is None
