"""A shop after its first night, and copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.recsys.table.shops import TeaShop


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A shop after its first night."""
    root = tmp_path_factory.mktemp("tea")
    shop = TeaShop(root / "shop")
    bundle = shop.learn()
    shop.publish(bundle, "run-1")
    return root / "shop", bundle


@pytest.fixture
def shop(first: tuple[Path, str], tmp_path: Path) -> TeaShop:
    """A copy of it, at a place of its own."""
    shop = TeaShop(tmp_path / "shop")
    shutil.rmtree(shop.root)
    shutil.copytree(first[0], shop.root)
    return shop
