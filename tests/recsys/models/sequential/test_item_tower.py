from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from recsys.features.declaration import Feature
from recsys.features.multiplexed import hash_values, lookup_rows
from recsys.models.sequential.item_tower import Attribute, ItemFeatures, ItemTower, module_key


def brands(name: str = "brand", **changes: object) -> Attribute:
    return Attribute(
        feature=Feature(**({"name": name, "lookups": 2, "kind": "multi"} | changes)),  # type: ignore[arg-type]
        hashes=torch.from_numpy(hash_values(["a", "a", "b", "b"])),
        offsets=torch.tensor([0, 0, 1, 3, 4]),
    )


def features(*, attributes: bool = True, text: bool = True, trained: tuple[int, ...] = (1, 2)) -> ItemFeatures:
    """Three items; brands: item 1 "a", item 2 "a" and "b", item 3 "b"."""
    known = torch.zeros(4, dtype=torch.bool)
    known[list(trained)] = True
    return ItemFeatures(
        id_hashes=torch.from_numpy(hash_values([None, "i1", "i2", "i3"])),
        trained=known,
        attributes={"brand": brands()} if attributes else {},
        text=torch.nn.functional.normalize(torch.randn(4, 6)) if text else None,
    )


def tower(of: ItemFeatures, **changes: object) -> ItemTower:
    torch.manual_seed(0)
    arguments = {
        "dimensions": 8,
        "table_rows": 97,
        "ids": True,
        "id_lookups": 2,
        "id_dropout": 0.0,
    }
    return ItemTower(of, **(arguments | changes))  # type: ignore[arg-type]


def test_padding_is_zero_and_gets_no_gradient() -> None:
    built = tower(features(), id_dropout=0.5)
    vectors = built()
    assert vectors.shape == (4, 8)
    assert not vectors[0].any()
    vectors[0].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in built.parameters())


def test_ids_and_attributes_share_one_table() -> None:
    built = tower(features())
    names = [name for name, _ in built.named_parameters()]
    assert [name for name in names if "table" in name] == ["table.weight"]
    built()[1].sum().backward()
    assert built.table is not None and built.table.weight.grad is not None
    touched = built.table.weight.grad.abs().sum(1) > 0
    assert 2 <= int(touched.sum()) <= 4  # two look-ups of the id, two of the brand


def test_channels_add_up() -> None:
    of = features(trained=(1, 2, 3))
    everything = tower(of)
    alone = everything.table.single(everything.id_rows)  # type: ignore[union-attr]
    assert everything.text_map is not None
    text = everything.text_map(of.text)
    brand = everything.attribute_maps["brand"](
        everything.table.pooled(everything.rows_of_brand, everything.offsets_of_brand)  # type: ignore[union-attr]
    )
    assert torch.allclose(everything()[1:], (alone + text + brand)[1:], atol=1e-6)


def test_an_item_nobody_has_seen_is_its_content_alone() -> None:
    of = features(trained=(1, 2))
    with_ids, without = tower(of), tower(of, ids=False)
    without.load_state_dict({k: v for k, v in with_ids.state_dict().items() if k in without.state_dict()})
    assert torch.allclose(with_ids()[3], without()[3])
    assert not torch.allclose(with_ids()[1], without()[1])


def test_id_dropout_hides_about_its_share_in_training_only() -> None:
    of = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(4001))),
        trained=torch.ones(4001, dtype=torch.bool),
        text=torch.ones(4001, 3),
    )
    built = tower(of, id_dropout=0.25, table_rows=10_000)
    assert torch.equal(built.eval()(), built())
    content = built.text_map(of.text)[1]  # type: ignore[misc,index]
    hidden = torch.isclose(built.train()()[1:], content, rtol=0, atol=1e-6).all(1).float().mean().item()
    assert abs(hidden - 0.25) < 0.03


def test_ids_only_never_hides_them() -> None:
    built = tower(features(attributes=False, text=False), id_dropout=0.9)
    assert not built.has_content
    assert torch.equal(built.train()(), built.eval()())


def test_no_channel_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        tower(features(attributes=False, text=False), ids=False)


def test_an_attribute_s_look_ups_and_pooling_are_its_own() -> None:
    of = features(text=False)
    hashes = brands().hashes
    one_each = brands("price", kind="numeric", lookups=1)
    values = {
        "brand": brands(lookups=4, pooling="sum"),
        "tags": brands("tags", pooling="attention"),
        "price": Attribute(feature=one_each.feature, hashes=hashes[:3], offsets=torch.tensor([0, 0, 1, 2, 3])),
    }
    of = ItemFeatures(id_hashes=of.id_hashes, trained=of.trained, attributes=values)
    built = tower(of, ids=False)
    table = built.table
    assert table is not None
    widths = {name: module.in_features for name, module in built.attribute_maps.items()}  # type: ignore[union-attr]
    assert widths == {"brand": 16, "tags": 8, "price": 4}
    second = table.single(lookup_rows(hashes[1:3], "brand", 4, 97)).sum(0)
    tags = table.single(lookup_rows(hashes[1:3], "tags", 2, 97)).mean(0)  # attention begins as the mean
    price = table.single(lookup_rows(hashes[1:2], "price", 1, 97))[0]
    expected = sum(
        built.attribute_maps[name](vector) for name, vector in (("brand", second), ("tags", tags), ("price", price))
    )
    assert torch.allclose(built()[2], expected, atol=1e-6)  # type: ignore[arg-type]
    some = built(torch.tensor([3, 2]))
    assert torch.allclose(some, built()[[3, 2]], atol=1e-6)
    assert built.attribute_queries["tags"].shape == (8,)


@pytest.mark.parametrize("name", ["type", "specs.color", "training", "keys", "Größe in cm"])
def test_an_attribute_may_be_called_as_it_likes(name: str) -> None:
    plain = features()
    of = ItemFeatures(id_hashes=plain.id_hashes, trained=plain.trained, attributes={name: brands(name)})
    built = tower(of)
    assert built().shape == (4, 8)
    assert f"attribute_maps.{module_key(name)}.weight" in built.state_dict()
    assert (module_key(name) == name) == (name == "Größe in cm")


def test_text_in_half_precision_is_read_as_what_it_says() -> None:
    of = features()
    assert of.text is not None
    half = replace(of, text=of.text.half())
    told = replace(of, text=of.text.half().float())
    codes = torch.tensor([2, 0, 3])
    assert torch.equal(tower(half)(), tower(told)()) and torch.equal(tower(half)(codes), tower(told)(codes))
    assert tower(half).text.dtype == torch.float16  # it stays as small as it came
