"""Paths in a configuration are relative to its folder, whatever the working directory is."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.settings import FileExportSettings, Settings, SqliteExportSettings, targets_of
from recsys.settings.places import Place, moved
from recsys.settings.read import anchored, keys_of, load_settings, parse_settings
from recsys.tuning.space import with_values

SHOP = """\
name = "shop"
data_root = "data"

[interactions]
source = "log.csv"

[export.files]
path = "exports/shop"

[export.app]
kind = "sqlite"
path = "app.db"
"""
NAME = st.text("abc", min_size=1, max_size=3)
FOLDERS = st.lists(NAME | st.just(".."), min_size=1, max_size=4).map("/".join)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration in `srv/shop`; the working directory is `home`."""
    for folder in ("home", "srv/shop"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    path = tmp_path / "srv" / "shop" / "recsys.toml"
    path.write_text(SHOP)
    return path


def paths(settings: Settings) -> list[str]:
    """Paths that are opened: data, warehouse, MLflow's file and the exports."""
    exports = [
        str(one.path)
        for one in targets_of(settings.export).values()
        if isinstance(one, FileExportSettings | SqliteExportSettings)
    ]
    found = [settings.data_root, settings.warehouse, settings.tracking.uri.removeprefix("sqlite:///"), *exports]
    return [str(Path(path).resolve()) for path in found]


def test_every_path_is_relative_to_the_configuration(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [str(shop.parent / name) for name in ("data", "warehouse", "mlruns/mlflow.db", "exports/shop", "app.db")]
    assert paths(load_settings(shop)) == own
    assert paths(load_settings("../srv/shop/recsys.toml")) == own
    monkeypatch.chdir(shop.parent)
    settings = load_settings("recsys.toml")
    assert paths(settings) == own
    assert (settings.data_root, settings.warehouse) == ("data", "warehouse")  # short where they are short


def test_what_is_written_by_a_night_follows_state_root(shop: Path) -> None:
    state = str(shop.parent.parent / "state")
    expected = [str(shop.parent / "data"), *(f"{state}/{name}" for name in ("warehouse", "mlruns/mlflow.db"))]
    shop.write_text('state_root = "../state"\n' + SHOP)
    assert paths(load_settings(shop))[:3] == expected
    assert paths(load_settings(shop))[3:] == [f"{state}/exports/shop", f"{state}/app.db"]
    shop.write_text('state_root = "s3://bucket"\n' + SHOP)
    with pytest.raises(InputError, match="state_root = 's3://bucket': it is a folder of this machine; set warehouse"):
        load_settings(shop)


def test_a_path_of_the_shell_is_relative_to_the_working_directory(shop: Path) -> None:
    given = ["data_root=d", "warehouse=w", "tracking.uri=sqlite:///m.db", "export={path = 'e'}"]
    assert paths(load_settings(shop, given)) == [str(Path.cwd() / name) for name in ("d", "w", "m.db", "e")]
    assert paths(load_settings(shop, ["state_root=."]))[1:3] == [
        str(Path.cwd() / n) for n in ("warehouse", "mlruns/mlflow.db")
    ]
    assert load_settings(shop, ["interactions.source=other.csv"]).interactions.source == "other.csv"  # under data_root


def test_addresses_and_whole_paths_stay(shop: Path) -> None:
    said = ("data_root='s3://bucket/in'", "warehouse='s3://bucket/w'", "tracking.uri=http://host:5000")
    lines = "\n".join(f"{key} = {value}" for key, value in (line.split("=") for line in said[:2]))
    shop.write_text(lines + '\ntracking.uri = "http://host:5000"\n' + SHOP.replace('data_root = "data"\n', ""))
    settings = load_settings(shop)
    assert settings.data_root == "s3://bucket/in" and settings.warehouse == "s3://bucket/w"
    assert settings.tracking.uri == "http://host:5000"


@bounds(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=FOLDERS, state=FOLDERS, warehouse=FOLDERS)
def test_identity_goes_by_what_is_written(shop: Path, data: str, state: str, warehouse: str) -> None:
    """Property: from any folder and in any spelling the same files are opened, and the settings have one digest."""
    head = f'name = "shop"\ndata_root = "{data}"\nstate_root = "{state}"\nwarehouse = "{warehouse}"\n'
    shop.write_text(head + SHOP.partition("\n\n")[2])
    one, other = load_settings(shop), load_settings("../srv/shop/recsys.toml")
    assert [os.path.realpath(path) for path in paths(one)] == [os.path.realpath(path) for path in paths(other)]
    assert os.path.realpath(one.warehouse) == os.path.realpath(shop.parent / state / warehouse)
    assert one.digest() == other.digest()
    written = one.model_dump(mode="json")
    assert (written["data_root"], written["state_root"], written["warehouse"]) == (data, state, warehouse)
    assert with_values(one, {}) == one and with_values(one, {"train.epochs": 3}).warehouse == one.warehouse


def test_settings_of_a_dictionary_are_relative_to_the_working_directory(shop: Path) -> None:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}}
    assert parse_settings(tree).warehouse == "warehouse"
    assert parse_settings({**tree, "state_root": "state"}).warehouse == "state/warehouse"


def test_what_only_the_working_directory_has_is_used_and_said_once(shop: Path) -> None:
    home = Path.cwd()
    (home / "data").mkdir()
    (home / "data" / "log.csv").write_text("")
    (home / "warehouse").mkdir()
    with pytest.warns(FutureWarning) as said:
        settings = load_settings(shop)
    assert paths(settings) == [
        str(home / n) for n in ("data", "warehouse", "mlruns/mlflow.db", "exports/shop", "app.db")
    ]
    (warning,) = said
    assert 'write data_root = "../../home/data", state_root = "../../home" into' in str(warning.message)
    shop.write_text(SHOP.replace('"data"', '"../../home/data"\nstate_root = "../../home"'))  # as it says
    with warnings.catch_warnings(action="error"):
        assert paths(load_settings(shop)) == paths(settings)


@pytest.mark.parametrize("here", ["data/log.csv", "data/log.csv.gz"])
def test_what_the_configuration_has_beside_it_counts(shop: Path, here: str) -> None:
    """The configuration's folder is read where both folders have it, and where neither has."""
    shop.write_text(SHOP.replace("log.csv", "log.csv*"))
    for folder in (Path.cwd(), shop.parent):
        (folder / "data").mkdir()
        (folder / here).write_text("")
        (folder / "warehouse").mkdir()
    with warnings.catch_warnings(action="error"):
        assert paths(load_settings(shop))[:2] == [str(shop.parent / "data"), str(shop.parent / "warehouse")]


def test_another_store_in_the_working_directory_is_not_taken(shop: Path) -> None:
    """MLflow's store of another project lies in many a home; the warehouse decides where the state is."""
    (Path.cwd() / "mlruns").mkdir()
    (Path.cwd() / "mlruns" / "mlflow.db").write_text("")
    with warnings.catch_warnings(action="error"):
        assert paths(load_settings(shop))[1:3] == [str(shop.parent / n) for n in ("warehouse", "mlruns/mlflow.db")]


def test_a_model_is_a_folder_or_a_name(shop: Path) -> None:
    shop.write_text(SHOP + '[text]\nmodel = "models/small"\n[train]\nwarm_start = "previous"\n')
    assert load_settings(shop).text.model == "models/small"  # a hub's name, as far as anybody can see
    (shop.parent / "models" / "small").mkdir(parents=True)
    assert load_settings(shop).text.model == str(shop.parent / "models" / "small")
    assert load_settings(shop).train.warm_start == "previous"
    (Path.cwd() / "bundles").mkdir()
    (Path.cwd() / "bundles" / "shop.latest.json").write_text("{}")
    with pytest.warns(FutureWarning, match=r'write train.warm_start = "../../home/bundles/shop"'):
        shop.write_text(SHOP + '[train]\nwarm_start = "bundles/shop"\n')
        assert load_settings(shop).train.warm_start == "bundles/shop"


def test_a_link_to_a_folder_is_followed_as_the_system_does(shop: Path) -> None:
    (shop.parent / "deep" / "er").mkdir(parents=True)
    link = Path.cwd() / "link"
    link.symlink_to(shop.parent / "deep" / "er")
    shop.rename(link / "recsys.toml")
    (link / "recsys.toml").write_text(SHOP.replace('"data"', '"../data"'))
    assert os.path.realpath(load_settings(link / "recsys.toml").data_root) == str(shop.parent / "deep" / "data")


def test_a_copy_elsewhere_says_its_paths_anew(shop: Path) -> None:
    overrides = ["warehouse=w"]
    settings = load_settings(shop, overrides)
    assert moved(settings, shop.parent, shop.parent, keys_of(overrides)) == {"warehouse": "../../home/w"}
    assert moved(settings, shop.parent, Path.cwd(), keys_of(overrides)) == {
        "data_root": "../srv/shop/data",
        "state_root": "../srv/shop",
        "warehouse": "w",
    }


def test_a_place_survives_copies(shop: Path) -> None:
    settings = load_settings(shop)
    again = settings.model_copy(deep=True)
    assert isinstance(again.warehouse, Place) and again.warehouse.written == "warehouse" and again == settings


def test_overrides_are_handed_to_a_process_in_another_folder(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        "data_root=d",
        "tracking.uri=sqlite:///m.db",
        "export={path = 'e'}",
        "train.epochs=3",
        "warehouse=s3://b/w",
    ]
    settings = load_settings(shop, given)
    handed = anchored(settings, given)
    monkeypatch.chdir("/")
    again = load_settings(shop, handed)
    assert again.warehouse == "s3://b/w" and again.train.epochs == 3
    assert paths(again)[0] == str(shop.parent.parent.parent / "home" / "d")
    assert paths(again)[2:] == [str(shop.parent.parent.parent / "home" / name) for name in ("m.db", "e")]


@pytest.mark.parametrize("address", ["databricks", "uc", "http://host:5000", "file:mlruns"])
def test_other_addresses_of_mlflow_are_no_paths(shop: Path, address: str) -> None:
    shop.write_text(f'tracking.uri = "{address}"\n' + SHOP)
    assert load_settings(shop).tracking.uri == address


@pytest.mark.parametrize("stray", ["mlruns/mlflow.db", "exports/shop/x"])
def test_the_warehouse_alone_decides_where_the_state_is(shop: Path, stray: str) -> None:
    (shop.parent / stray).parent.mkdir(parents=True, exist_ok=True)
    (shop.parent / stray).write_text("")
    (Path.cwd() / "warehouse").mkdir()
    with pytest.warns(FutureWarning, match="state_root"):
        assert Path(load_settings(shop).warehouse).absolute() == Path.cwd() / "warehouse"
