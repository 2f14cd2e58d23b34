"""Arrays of a large part of a bundle are mapped from its file, and equal what the library reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import SafetensorError

from recsys.bundles import mapped
from recsys.bundles.mapped import read_arrays

TYPES = (np.bool_, np.int8, np.float16, np.int32, np.float32, np.int64, np.uint64, np.float64)
TENSORS = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4),
    st.sampled_from(TYPES).flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=2, min_side=0))),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module", autouse=True)
def _all_are_large() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(mapped, "LEAST", 0)
    yield
    patch.undo()


@given(tensors=TENSORS)
@settings(max_examples=40, deadline=None)
def test_mapped_arrays_are_those_of_the_library(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("part") / "part.safetensors"
    safetensors.numpy.save_file(tensors, path)
    found, expected = read_arrays(path), safetensors.numpy.load_file(path)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape)
        assert array.tobytes() == expected[name].tobytes()
        assert not array.flags.writeable and array.flags.aligned


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    safetensors.numpy.save_file({"a": np.arange(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SafetensorError):
        read_arrays(path)
