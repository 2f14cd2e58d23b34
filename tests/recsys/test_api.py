"""The public API: what `import recsys` promises."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recsys


def ring(users: int = 100) -> pl.DataFrame:
    """Users who each go through six of ten items in a ring."""
    rows = [(f"u{user}", (user + step) % 10, 1_700_000_000 + 60 * step) for user in range(users) for step in range(6)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> recsys.Settings:
    return recsys.configure(ring(), folder=tmp_path_factory.mktemp("ring"), overrides=["train.epochs=1"])


@pytest.fixture(scope="module")
def model(settings: recsys.Settings) -> recsys.Model:
    return recsys.fit(settings)


def test_the_example_of_the_package_is_true() -> None:
    failed, tried = doctest.testmod(recsys)
    assert tried >= 8 and not failed


def test_importing_it_imports_no_library() -> None:
    code = (
        "import recsys, sys; print([m for m in ('torch', 'polars', 'mlflow', 'prefect', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in recsys.__all__:
        assert getattr(recsys, name).__doc__, name
    assert set(recsys.__all__) <= set(dir(recsys))
    with pytest.raises(AttributeError, match=r"no attribute 'recomend'; its public names are"):
        recsys.recomend  # noqa: B018


def test_many_histories_are_answered_as_each_alone(model: recsys.Model) -> None:
    histories = [[1, 2, 3], ["7"], [4, 4, 5]]
    together = model.recommend(histories, k=4)
    for place, history in enumerate(histories):
        alone = model.served.recommend(history, 4)
        mine = together.filter(pl.col("user_id") == place)
        assert mine["item_id"].to_list() == [row["item_id"] for row in alone]
        assert mine["rank"].to_list() == [1, 2, 3, 4]
        assert mine["score"].to_list() == pytest.approx([row["score"] for row in alone], abs=1e-5)


def test_a_frame_of_histories_keeps_users_and_their_order(model: recsys.Model) -> None:
    frame = pl.DataFrame({"user_id": ["b", "a", "b", "a"], "item_id": [1, 7, 2, 8]})
    found = model.recommend(frame, k=2)
    assert found["user_id"].to_list() == ["b", "b", "a", "a"]
    assert found.filter(pl.col("user_id") == "b")["item_id"].to_list() == (
        model.recommend([[1, 2]], k=2)["item_id"].to_list()
    )
    with pytest.raises(recsys.InputError, match=r"no column 'item_id', only user_id, item"):
        model.recommend(frame.rename({"item_id": "item"}))


def test_unknown_items_are_left_out_and_a_history_without_known_ones_has_no_row(model: recsys.Model) -> None:
    found = model.recommend([["nobody's", 3, None], [99], []], k=2)
    assert found["user_id"].to_list() == [0, 0]
    assert found["item_id"].to_list() == model.recommend([[3]], k=2)["item_id"].to_list()
    nothing = model.recommend([[99]], k=2)
    assert nothing.is_empty() and nothing.schema == found.schema
    assert model.recommend([]).schema == found.schema


def test_vectors_and_scores_belong_together(model: recsys.Model) -> None:
    queries = model.encode([[1, 2, 3], [5]])
    assert queries.shape == (2, model.vectors.shape[1]) and len(model.vectors) == len(model.items) == 10


def test_a_fitted_model_is_the_newest_and_can_be_measured(settings: recsys.Settings, model: recsys.Model) -> None:
    assert recsys.load(settings).path == model.path == recsys.load(model.path).path
    report = recsys.evaluate(settings)
    assert report.metrics["test/hr_at_10"] == 1.0  # there are but ten items
    assert "popularity" in report.baselines


def test_configure_again_replaces_the_frames_and_keeps_the_settings(tmp_path: Path) -> None:
    first = recsys.configure(ring(20), folder=tmp_path)
    (tmp_path / "recsys.toml").write_text((tmp_path / "recsys.toml").read_text().replace("seed = 0", "seed = 7"))
    again = recsys.configure(ring(30), folder=tmp_path)
    assert (first.seed, again.seed) == (0, 7)
    assert len(pl.read_parquet(tmp_path / "data" / "interactions.parquet")) == 180
    assert Path(again.warehouse).parent == tmp_path and again.export.path is None


@pytest.mark.parametrize("histories", [["12", "34"], [1, 2], "ab"])
def test_what_is_no_list_of_histories_is_told(model: recsys.Model, histories: Any) -> None:
    with pytest.raises(recsys.InputError, match="is no history; give a list of item ids a user"):
        model.recommend(histories)


@pytest.mark.parametrize("k", [0, 2.5])
def test_a_wrong_number_of_items_is_told(model: recsys.Model, k: Any) -> None:
    with pytest.raises(recsys.InputError, match="must be a number of items, at least 1"):
        model.recommend([[1]], k=k)


def test_ids_as_floats_and_lazy_frames_are_read(model: recsys.Model) -> None:
    expected = model.recommend([[1, 2]], k=3)["item_id"].to_list()
    assert model.recommend(((1.0, 2.0),), k=3)["item_id"].to_list() == expected
    lazy = pl.LazyFrame({"user_id": ["a", "a"], "item_id": [1.0, 2.0]})
    assert model.recommend(lazy, k=3)["item_id"].to_list() == expected


def test_the_folders_configuration_is_the_commands_too(settings: recsys.Settings, model: recsys.Model) -> None:
    path = Path(settings.warehouse).parent / "recsys.toml"
    assert recsys.load_settings(path, ["train.epochs=1"]) == settings
    assert recsys.load(recsys.load_settings(path)).path == model.path


def test_a_frame_without_items_leaves_nothing_and_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(recsys.InputError, match=r"^interactions has no column .* the item's id .*rename\("):
        recsys.configure(pl.DataFrame({"user": ["a", "b", "c"] * 9}), folder=tmp_path / "new" / "shop")
    assert list(tmp_path.iterdir()) == []


def test_other_tables_for_a_folder_are_refused(tmp_path: Path) -> None:
    recsys.configure(ring(20), folder=tmp_path)
    items = pl.DataFrame({"item_id": range(10), "title": [f"thing {n}" for n in range(10)]})
    with pytest.raises(recsys.InputError, match=r"does not read .*items.parquet as its items.*remove it to guess anew"):
        recsys.configure(ring(20), items, folder=tmp_path)
    with pytest.raises(recsys.InputError, match="interactions is a dict; give a polars frame"):
        recsys.configure({"user_id": [1]}, folder=tmp_path)  # type: ignore[arg-type]
