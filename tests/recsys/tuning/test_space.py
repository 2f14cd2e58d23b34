"""The space of a search: ranges and choices, of settings that there are, that validation depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recsys.errors import InputError
from recsys.settings import KindSettings, Settings, kinds
from recsys.settings.read import load_settings, parse_settings
from recsys.tuning.space import space_of, value_of, with_values
from tests.recsys.tuning.shop import SPACE, settings

CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[3] / "configs").glob("*.toml")
    if "\n[catalogues." not in path.read_text(encoding="utf-8")
)


def test_ranges_and_choices_are_of_the_settings_types() -> None:
    space = space_of(settings(tune=SPACE | {"train.weight_decay": {"low": 0, "high": 1, "step": 0.25}}))
    assert space.distributions == {
        "train.learning_rate": FloatDistribution(1e-3, 1e-1, log=True),
        "model.dimensions": CategoricalDistribution([8, 16]),
        "model.heads": IntDistribution(1, 3),
        "train.weight_decay": FloatDistribution(0.0, 1.0, step=0.25),  # whole numbers as bounds make no whole numbers
    }
    assert space.own is None  # 128 dimensions are no choice


def test_a_section_within_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    head = 'name = "a"\n[interactions]\nsource = "x.csv"\n'
    path.write_text(f'{head}[tune]\n"train.epochs" = [1, 2]\n"model.temperature" = ["none", 0.1]\n')
    quoted = space_of(load_settings(path))
    path.write_text(f'{head}[tune.train]\nepochs = [1, 2]\n[tune.model]\ntemperature = ["none", 0.1]\n')
    assert space_of(load_settings(path)) == quoted
    assert quoted.distributions["model.temperature"] == CategoricalDistribution([None, 0.1])


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("train.learnin_rate", [0.1, 0.2], "there is no setting train.learnin_rate; did you mean train.learning_rate"),
        ("model.dimension", [8, 16], "there is no setting model.dimension; did you mean model.dimensions"),
        ("retrieve.k", [10, 20], "of model, train, recformer or blend can"),
        ("seed", [1, 2], "of model, train, recformer or blend can"),
        ("train.users", [0.5, 1.0], "trials would learn from different users"),
        ("train.validation_users", [500, 1000], "trials would be asked different questions"),
        ("train.epochs", [], "must hold two or more different choices"),
        ("train.epochs", [3, 3], "must hold two or more different choices"),
        ("train.epochs", 3, "must be a range such as"),
        ("train.epochs", {"low": 5, "high": 5}, "low = 5 must lie below high = 5"),
        ("train.epochs", {"low": 5}, "high: field required"),
        ("train.epochs", {"low": 5, "high": 9, "hihg": 1}, "hihg: extra inputs are not permitted"),
        ("train.epochs", {"low": 1, "high": 9, "step": 0.5}, "step = 0.5 must be a whole number"),
        ("train.epochs", {"low": 1.5, "high": 9}, r"low = 1.5 is no value of train.epochs"),
        (
            "train.epochs",
            {"low": -1, "high": 9},
            r"low = -1 is no value of train.epochs: .* greater",
        ),
        ("train.learning_rate", {"low": 0, "high": 1, "log": True}, "log = true needs low above zero"),
        ("model.dropout", {"low": 0.0, "high": 1.0}, "high = 1.0 is no value of model.dropout: .* less than 1"),
        ("train.loss", ["full", "half"], "the choice 'half' is no value of train.loss"),
        ("train.loss", {"low": 1, "high": 2}, "is no number, so it takes a list of choices"),
        ("model.rotary", {"low": 0, "high": 1}, "is no number, so it takes a list of choices"),
        ("model.temperature", {"low": 0.1, "high": float("inf")}, "must be finite"),
    ],
)
def test_what_makes_no_space_is_told_in_one_sentence(key: str, values: Any, told: str) -> None:
    with pytest.raises(InputError, match=told) as raised:
        space_of(settings(tune={key: values}))
    assert key in str(raised.value) and "\n" not in str(raised.value)


def test_a_bundle_of_an_earlier_version_that_tuned_the_questions_opens() -> None:
    tree = settings().model_dump(mode="json") | {"tune": {"train.validation_users": [500, 1000]}}
    assert Settings.model_validate(tree).tune


def test_keys_of_another_kind_are_told() -> None:
    items, interactions = {"source": "x.csv", "text": ["title"]}, {"source": "log.csv"}
    tree = {"name": "a", "interactions": interactions, "items": items, "model": {"kind": "text"}}
    with pytest.raises(InputError, match="does not say what to tune"):
        space_of(parse_settings(tree))
    with pytest.raises(InputError, match=r"there is no setting model\.dimensions"):
        space_of(parse_settings(tree | {"tune": {"model.dimensions": [8, 16]}}))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_default_space_holds_the_configuration_itself(path: Path) -> None:
    configured = load_settings(path)
    if configured.model.kind == "text":
        return
    space = space_of(configured)
    assert space.own is not None and "train.learning_rate" in space.distributions
    assert with_values(configured, space.own) == configured


def test_the_default_space_leaves_out_what_the_model_does_not_read() -> None:
    asked = space_of(settings(model={"objective": "next-item", "temperature": None, "dimensions": 32})).distributions
    assert not {"train.mask_probability", "model.temperature"} & asked.keys()
    assert asked["model.dimensions"] == CategoricalDistribution([32, 64, 128, 256])  # widened


class OwnSettings(KindSettings):
    kind: str = "own"
    width: int = 4

    @property
    def tuned(self) -> dict[str, Any]:
        return {"model.width": [2, 4, 8]}


def test_a_kind_of_ones_own_says_its_own_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    kinds.register("own", "nowhere:Own", f"{__name__}:OwnSettings")
    monkeypatch.setattr(kinds, "imported", lambda name: OwnSettings)
    own = settings(model={"kind": "own"})
    assert space_of(own).distributions == {"model.width": CategoricalDistribution([2, 4, 8])}
    assert value_of(with_values(own, {"model.width": 8}), "model.width") == 8


def test_values_that_do_not_go_together_are_told() -> None:
    with pytest.raises(InputError, match="dimensions = 128 must be divisible by heads = 3"):
        with_values(settings(), {"model.heads": 3})


def test_a_space_survives_a_bundle() -> None:
    given = settings(tune=SPACE)
    assert Settings.model_validate(given.model_dump(mode="json")).tune == given.tune
