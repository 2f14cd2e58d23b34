from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.settings.pretrain import PretrainSettings, load_pretrain_settings

CONFIG = """
name = "words"
data_root = "data"
warehouse = "store/"
[catalogues.a]
interactions = { source = "a.csv" }
items = { source = "a.jsonl", text = ["title"] }
[catalogues.b]
held_out = true
interactions = { source = "b.csv" }
items = { source = "b.jsonl", text = ["title", "brand"] }
"""


def load(folder: Path, *overrides: str) -> PretrainSettings:
    (folder / "words.toml").write_text(CONFIG)
    return load_pretrain_settings(folder / "words.toml", overrides)


def test_each_catalogue_is_a_run_of_its_own(tmp_path: Path) -> None:
    settings = load(tmp_path, "seed=3", "recformer.max_items=5")
    one, other = settings.catalogue("a"), settings.catalogue("b")
    assert [one.warehouse, other.warehouse] == [str(tmp_path / "store" / "catalogues" / name) for name in "ab"]
    assert one.data_root == str(tmp_path / "data") and one.seed == 3
    assert one.items is not None and one.items.text == ("title",)
    assert one.recformer.max_items == 5
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=3", r"there is no setting train.step; did you mean train.steps\?"),
        ("catalogues.a.hold_out=true", r"no setting catalogues.a.hold_out; did you mean catalogues.a.held_out\?"),
        ("catalogues.a.held_out=true", "every catalogue is held_out; leave at least one"),
        ("catalogues.a.items.text=[]", r"catalogues.a: items.text is empty; name the attributes"),
        ("recformer.heads=3", r"dimensions = 128 must be divisible by heads = 3"),
        ("train.mask_share=0", r"train.mask_share = 0"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, override)


def test_attention_cannot_have_a_window_and_lean_to_the_item(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"cross_item_bias = 4.0 needs attention over the whole history; leave window out"
    ):
        load(tmp_path, "recformer.cross_item_bias=4.0", "recformer.window=64")
