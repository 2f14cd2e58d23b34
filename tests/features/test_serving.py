from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.serving import ServingTable
from recsys.features.tables import MultiplexedTable


def trained(rows: int = 200, width: int = 16, seed: int = 0) -> MultiplexedTable:
    """Rows of very different sizes, one of them zero."""
    table = MultiplexedTable(rows, width)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        scale = 10.0 ** torch.randint(-4, 3, (rows, 1), generator=generator)
        table.weight.copy_(torch.randn(rows, width, generator=generator) * scale)
        table.weight[0] = 0
    return table


@given(st.integers(0, 10_000))
def test_the_error_stays_within_its_bound(seed: int) -> None:
    table = trained(20, 8, seed)
    weight, every = table.weight.detach(), torch.arange(20)
    int8 = ServingTable.of(table, "int8").gather(every)
    # half a step, and the rounding of a float32 code times a float32 scale: 127 steps' last bit
    assert ((int8 - weight).abs() <= weight.abs().amax(1, keepdim=True) * (1 / 254 + 2**-22)).all()
    bf16 = ServingTable.of(table, "bf16").gather(every)
    assert ((bf16 - weight).abs() <= weight.abs() / 256).all()


def test_bytes() -> None:
    table = trained(200, 16)
    assert ServingTable.of(table, "bf16").size == table.weight.nbytes // 2
    assert ServingTable.of(table, "int8").size == table.weight.nbytes // 4 + 4 * 200


def test_it_serves_as_the_table_does() -> None:
    table = trained()
    rows, offsets = torch.tensor([[3, 200], [7, 9], [200, 0]]), torch.tensor([0, 2, 3])
    for storage, tolerance in (("bf16", 1 / 256), ("int8", 1 / 100)):
        served = ServingTable.of(table, storage)  # type: ignore[arg-type]
        assert served.single(rows).dtype == torch.float32
        for ours, theirs in (
            (served.single(rows), table.single(rows)),
            (served.pooled(rows, offsets), table.pooled(rows, offsets)),
        ):
            assert torch.equal(ours == 0, theirs == 0)  # padding included
            assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
        assert set(served.state_dict()) == {"codes", "scales"}


def test_what_cannot_be_stored() -> None:
    table = trained()
    with pytest.raises(ValueError, match="cannot be stored as 'int4'; choose bf16 or int8"):
        ServingTable.of(table, "int4")  # type: ignore[arg-type]
    with torch.no_grad():
        table.weight[3, 3] = torch.nan
    with pytest.raises(ValueError, match="weights that are no numbers"):
        ServingTable.of(table, "int8")
