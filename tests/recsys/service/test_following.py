"""A follower that refused a bundle tries it again: what was wrong may have passed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.bundles.manifest import WEIGHTS
from recsys.service import following
from recsys.service.following import ChampionSource, Follower
from recsys.service.metrics import Metrics
from tests.recsys.service.conftest import two_nights
from tests.recsys.service.shops import AnsweringShop


def missing_list(shop: AnsweringShop) -> Callable[[], object]:
    """Take the list of a rule away; returns what brings it back."""
    path = shop.root / "blocked.txt"
    path.unlink()
    return lambda: path.write_text("3\n")


def damaged_bundle(shop: AnsweringShop) -> Callable[[], object]:
    """Damage the newest bundle; returns what repairs the file and leaves the manifest alone."""
    path = ChampionSource(shop.settings).target().bundle / WEIGHTS  # type: ignore[union-attr]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    return lambda: path.write_bytes(content)


@pytest.mark.parametrize("spoilt", [missing_list, damaged_bundle])
def test_a_refused_bundle_is_tried_again_after_a_while(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoilt: Callable[[AnsweringShop], Callable[[], object]],
) -> None:
    root = two_nights(tmp_path).root
    (root / "blocked.txt").write_text("3\n")
    shop = AnsweringShop(root, data_root=str(root), rules={"blocked": {"kind": "deny", "items": "blocked.txt"}})
    metrics = Metrics()
    follower = Follower(ChampionSource(shop.settings), metrics)
    follower.start()
    before = follower.current
    shop.night("c")
    mend = spoilt(shop)
    with caplog.at_level(logging.WARNING, "recsys"):
        follower.check()
        mend()
        follower.check()  # not at every poll: a bundle is read from end to end
        assert follower.current is before is not None
        monkeypatch.setattr(following, "REFUSED_FOR", 0.0)
        follower.check()
    assert follower.current is not None and follower.current.target.run == "c"
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["Refused to switch"]
