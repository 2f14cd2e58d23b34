from __future__ import annotations

import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recsys.features.encode import FeatureEncoder
from recsys.features.hashing import PADDING, hash_values, lookup_rows
from recsys.features.multiplexed import (
    Feature,
    FeatureBatch,
    MultiplexedFeatures,
    MultiplexedTable,
    ShardedTable,
    attend,
)
from recsys.features.rowwise import RowWiseAdagrad

FEATURES = (
    Feature(name="brand", lookups=2),
    Feature(name="tags", kind="multi", lookups=2),
    Feature(name="price", kind="numeric", buckets=4),
    Feature(name="words", kind="multi", pooling="sum"),
    Feature(name="people", kind="multi", lookups=3, pooling="attention"),
    Feature(name="brand x price", kind="crossed", of=("brand", "price")),
)
FRAME = pl.DataFrame(
    {
        "brand": ["opi", None, "opi", "essie", "oui"],
        "tags": [["a", "b"], [], None, ["b"], ["c", "d", "e"]],
        "price": [1.0, 2.0, None, 4.0, 3.0],
        "words": [["x"], ["x", "y"], ["y", "y"], ["z"], []],
        "people": [["p", "q"], ["p"], ["r", "s", "t"], ["q"], ["p", "t"]],
    }
)


def batch_of(features: tuple[Feature, ...] = FEATURES) -> FeatureBatch:
    return FeatureEncoder.fit(features, FRAME).encode(FRAME)


def one_by_one(features: tuple[Feature, ...], table: MultiplexedTable, batch: FeatureBatch, queries: dict) -> Tensor:
    """The same vectors, a value and a feature at a time."""
    pieces, value, bag = [], 0, 0
    for feature in features:
        if feature.kind != "multi":
            rows = lookup_rows(batch.values[:, value], feature.name, feature.lookups, table.rows)
            pieces.append(table.weight[rows].flatten(1))
            value += 1
            continue
        of_rows = []
        for n in range(len(batch)):
            start, stop = batch.offsets[bag * len(batch) + n : bag * len(batch) + n + 2].tolist()
            rows = lookup_rows(batch.bags[start:stop], feature.name, feature.lookups, table.rows)
            vectors = table.weight[rows].flatten(1)  # [values, C * d]
            if feature.pooling == "attention":
                share = torch.softmax(vectors @ queries[feature.name], 0)
                of_rows.append((share[:, None] * vectors).sum(0))
            else:
                of_rows.append(vectors.mean(0) if feature.pooling == "mean" else vectors.sum(0))
        pieces.append(torch.stack(of_rows))
        bag += 1
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("chosen", [FEATURES, FEATURES[:1], FEATURES[1:2], FEATURES[3:4], FEATURES[:4], FEATURES[4:5]])
def test_the_fused_gather_is_one_by_one(chosen: tuple[Feature, ...], sparse: bool) -> None:
    torch.manual_seed(0)
    table = MultiplexedTable(50, 4, sparse=sparse)
    layer = MultiplexedFeatures(chosen, table)
    for query in layer.queries.values():
        torch.nn.init.normal_(query)
    batch = batch_of(chosen)
    fused = layer(batch)
    separate = one_by_one(chosen, table, batch, dict(layer.queries.items()))
    assert fused.shape == (5, layer.width) and layer.width == sum(f.lookups for f in chosen) * 4
    assert torch.allclose(fused, separate, atol=1e-6)
    upstream = torch.randn_like(fused)
    parameters = [table.weight, *layer.queries.values()]
    ours = torch.autograd.grad(fused, parameters, upstream)
    theirs = torch.autograd.grad(separate, parameters, upstream)
    for left, right in zip(ours, theirs, strict=True):
        assert torch.allclose(left.to_dense(), right, atol=1e-5)
    for feature in chosen:
        alone = MultiplexedFeatures(
            [feature] if feature.kind != "crossed" else [FEATURES[0], FEATURES[2], feature], table
        )
        alone.queries.update(dict(layer.queries.items()))
        of_one = alone(batch_of(alone.features))[:, alone.columns[feature.name]]
        assert torch.allclose(fused[:, layer.columns[feature.name]], of_one, atol=1e-6)


def test_one_gather_and_one_bag_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    table = MultiplexedTable(50, 4)
    for name in ("_gather", "_reduce"):
        original = getattr(table, name)
        monkeypatch.setattr(table, name, lambda *a, n=name, f=original: calls.append(n) or f(*a))
    MultiplexedFeatures(FEATURES, table)(batch_of())
    assert sorted(calls) == ["_gather", "_reduce"]


def test_several_tables_behind_one_interface() -> None:
    torch.manual_seed(0)
    sharded = ShardedTable.of(50, 4, 3)
    whole = MultiplexedTable(50, 4)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([shard.weight for shard in sharded.shards]))
    batch = batch_of()
    assert torch.allclose(
        MultiplexedFeatures(FEATURES, sharded)(batch), MultiplexedFeatures(FEATURES, whole)(batch), atol=1e-6
    )


def test_padding_is_zero_without_gradient_and_events_may_have_any_shape() -> None:
    features = (Feature(name="event", lookups=2), Feature(name="hour"))
    table = MultiplexedTable(40, 3)
    layer = MultiplexedFeatures(features, table)
    hashes = torch.from_numpy(hash_values(range(24))).view(2, 6, 2).clone()
    hashes[0, :4] = PADDING  # [B, L, S], padded on the left
    none = torch.zeros(0, dtype=torch.int64)
    vectors = layer(FeatureBatch(values=hashes, bags=none, offsets=none.new_zeros(1)))
    assert vectors.shape == (2, 6, 9)
    assert not vectors[0, :4].any() and vectors[0, 4:].all() and vectors[1].all()
    vectors[0, :4].sum().backward()
    assert table.weight.grad is None or not table.weight.grad.any()
    bags = torch.cat([batch_of(FEATURES[1:2]).bags, torch.zeros(2, dtype=torch.int64)])
    offsets = torch.cat([batch_of(FEATURES[1:2]).offsets, torch.tensor([len(bags)])])
    padded = FeatureBatch(values=torch.zeros(6, 0, dtype=torch.int64), bags=bags, offsets=offsets)
    for pooling in ("mean", "sum", "attention"):
        tags = MultiplexedFeatures([Feature(name="tags", kind="multi", pooling=pooling)], table)  # type: ignore[arg-type]
        assert not tags(padded)[-1].any() and tags(padded)[:-1].any(1).all()


def test_attention_starts_as_the_mean_and_finds_its_value() -> None:
    vectors = torch.eye(4)[[0, 1, 2, 3]] * 100
    offsets = torch.tensor([0, 3, 3, 4])
    assert torch.allclose(attend(vectors, offsets, torch.zeros(4))[0], vectors[:3].mean(0))
    sought = attend(vectors, offsets, torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert torch.allclose(sought, torch.stack([vectors[1], torch.zeros(4), vectors[3]]))


def test_a_value_never_seen_has_a_vector_and_the_size_stays() -> None:
    layer = MultiplexedFeatures(FEATURES[:1], MultiplexedTable(50, 4))
    hashes = torch.from_numpy(hash_values([f"never seen {i}" for i in range(1000)]))[:, None]
    vectors = layer(FeatureBatch(values=hashes, bags=hashes[:0, 0], offsets=torch.zeros(1, dtype=torch.int64)))
    assert vectors.any(1).all()
    assert len(vectors.unique(dim=0)) > 800  # 50 x 50 pairs of rows
    assert sum(p.numel() for p in layer.parameters()) == 200


def test_a_batch_of_other_features_is_refused() -> None:
    layer = MultiplexedFeatures(FEATURES, MultiplexedTable(50, 4))
    with pytest.raises(ValueError, match="1 columns of values and the declaration 3 features"):
        layer(batch_of(FEATURES[:1]))
    with pytest.raises(ValueError, match="14 bags for 5 rows of 3"):
        layer(FeatureBatch(values=batch_of().values, bags=batch_of().bags, offsets=batch_of().offsets[:-1][:15]))


def test_two_lookups_separate_what_one_cannot_in_a_quarter_of_the_memory() -> None:
    ids, width = 400, 4
    labels = torch.randint(0, 2, (ids,), generator=torch.Generator().manual_seed(0)).float()
    hashes = torch.from_numpy(hash_values(range(ids)))[:, None]
    none = torch.zeros(0, dtype=torch.int64)
    batch = FeatureBatch(values=hashes, bags=none, offsets=none.new_zeros(1))

    def accuracy(lookups: int) -> float:
        torch.manual_seed(1)
        rows = ids // 4 * lookups  # of width 4 / look-ups: equal bytes
        table = MultiplexedTable(rows, width // lookups, spread=0.05, sparse=True)
        layer = MultiplexedFeatures([Feature(name="id", lookups=lookups)], table)
        logit = torch.nn.Linear(width, 1)
        optimizers = [RowWiseAdagrad(table.parameters(), 0.3), torch.optim.Adam(logit.parameters(), 0.03)]
        for _ in range(400):
            logits = logit(layer(batch)).squeeze(1)
            functional.binary_cross_entropy_with_logits(logits, labels).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        return float(((logits > 0) == (labels > 0)).float().mean())

    rows = lookup_rows(hashes[:, 0], "id", 1, ids // 4)[:, 0]
    ones, of_row = torch.bincount(rows, labels), torch.bincount(rows)
    bound = float(torch.maximum(ones, of_row - ones).sum() / ids)  # the majority of each row; no model does better
    assert bound < 0.8
    assert accuracy(1) <= bound + 1e-6
    assert accuracy(2) > bound + 0.15
