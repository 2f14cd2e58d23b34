from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.settings import Settings
from recsys.settings.read import load_settings, parse_settings

VALID = 'name = "n"\n[interactions]\nsource = "a"\n'
MINIMAL = {"name": "n", "interactions": {"source": "log.csv"}}


def write(folder: Path, text: str) -> Path:
    path = folder / "recsys.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VALID + "[train]\nepoch = 3", "no setting train.epoch; did you mean train.epochs?"),
        (VALID + '[modle]\nkind = "text"', "no setting modle; did you mean model?"),
        ('name = "n"\n[interactions]\nsorce = "a"', "interactions.sorce; did you mean interactions.source?"),
        (
            VALID + '[items]\nsource = "a"\ncategorical = { genres = { seperator = "|" } }',
            "did you mean items.categorical.genres.separator?",
        ),
        ('name = "n"', "interactions is missing"),
        (VALID + "[train]\nepochs = -1", "train.epochs = -1"),
        (VALID + "[model]\nheads = 7", "dimensions = 128 must be divisible by heads = 7"),
        (VALID + '[model]\nkind = "text"', "needs items.text"),
        (VALID + "[split]\ntest_from = 2020-01-01T00:00:00", "no time zone"),
        ("name = ", "is not valid TOML"),
        (VALID.replace('"n"', f'"{"n" * 300}"'), "at most 200 characters"),
        (VALID + f'[tracking]\nexperiment = "{"e" * 257}"', "at most 256 characters"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "recsys.toml" in str(caught.value)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no configuration .*nothing\.toml"):
        load_settings(tmp_path / "nothing.toml")


@pytest.mark.parametrize("kind", ["auto", "always", "never"])
def test_every_kind_of_blend_can_be_named_on_the_command_line(tmp_path: Path, kind: str) -> None:
    """Where the word `none` takes a setting away."""
    path = tmp_path / "night.toml"
    path.write_text('name = "night"\n[interactions]\nsource = "log.csv"\n')
    assert load_settings(path, [f"blend.kind={kind}"]).blend.kind == kind


def test_none_takes_away_what_may_be_nothing(tmp_path: Path) -> None:
    """In the file, where TOML has no word for it, as on the command line; a setting that cannot be nothing refuses."""
    path = write(tmp_path, VALID + '[model]\ntemperature = "none"\n[text]\ndimensions = "none"\n')
    settings = load_settings(path)
    assert settings.model.temperature is None and settings.text.dimensions is None
    assert load_settings(write(tmp_path, 'items = "none"\n' + VALID)).items is None
    assert load_settings(write(tmp_path, VALID), ["model.temperature=none"]).model.temperature is None
    with pytest.raises(InputError, match=r"model\.dimensions = 'none'"):
        load_settings(write(tmp_path, VALID + '[model]\ndimensions = "none"\n'))


def test_overrides_are_read_as_toml_and_checked_like_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    changed = load_settings(
        path,
        ["train.epochs=5", "data_root=../x y", "interactions.columns={user_id = 'u'}", "model.ids=false"],
    )
    assert (changed.train.epochs, changed.data_root, changed.model.ids) == (5, "../x y", False)
    assert changed.interactions.columns == {"user_id": "u"}
    with pytest.raises(InputError, match=r"did you mean train\.epochs"):
        load_settings(path, ["train.epoch=5"])
    with pytest.raises(InputError, match="not of the form key=value"):
        load_settings(path, ["train.epochs"])


def test_settings_are_frozen_and_equal_settings_share_a_digest() -> None:
    a, b = parse_settings(MINIMAL), parse_settings(MINIMAL | {"seed": 0})
    assert a == b and a.digest() == b.digest()
    assert parse_settings(MINIMAL | {"seed": 1}).digest() != a.digest()
    with pytest.raises(Exception, match="frozen"):
        a.seed = 3  # type: ignore[misc]


def test_settings_survive_json() -> None:
    settings = parse_settings(MINIMAL | {"split": {"strategy": "time", "test_from": "2020-01-01T00:00:00Z"}})
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"interactions": 5}, r"interactions = 5: it must be a section of settings \(\[interactions\]\)"),
        ({"interactions": {"source": []}}, r"interactions: source = \(\) names no file"),
        ({"interactions": {"source": ""}}, "interactions: source = '' names no file"),
        ({"interactions": {"source": "a.csv", "fields": []}}, r"interactions\.fields: .*at least 1"),
        ({"interactions": {"source": "a.csv", "decimal": ","}}, 'interactions: decimal = "," is the separator, too'),
        ({"interactions": {"source": "a.csv", "decimal": "·"}}, r"interactions\.decimal = '·': input should be"),
        (
            {"items": {"source": "a.csv", "categorical": {"sentence": {}}}},
            "items: categorical cannot hold 'sentence', which is a name of ours",
        ),
    ],
)
def test_values_that_nothing_can_be_done_with(change: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_settings({"name": "n", "interactions": {"source": "a.csv"}} | change)


def test_a_decimal_comma_needs_another_separator() -> None:
    for source in ({"source": "a.csv", "separator": ";"}, {"source": "a.tsv"}, {"source": "a", "format": "jsonl"}):
        parse_settings({"name": "n", "interactions": {**source, "decimal": ","}})


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"(?=a)(a)", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        (r"(a{1000000})", "exceeds size limit"),
        (r"(", "unclosed group"),
        (r"\d+", "has no group"),
    ],
)
def test_patterns_are_checked_by_the_engine_that_runs_them(pattern: str, told: str) -> None:
    items = {"source": "i.csv", "numeric": {"year": {"pattern": pattern}}}
    with pytest.raises(InputError, match=rf"items\.numeric\.year: pattern = .*{told}"):
        parse_settings({"name": "n", "interactions": {"source": "a.csv"}, "items": items})


@pytest.mark.parametrize("name", ["negatives", "num_negatives", "sampling"])
def test_sampled_negatives_are_refused_with_the_reason(name: str) -> None:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "evaluate": {name: 100, "cutoffs": [10]}}
    with pytest.raises(InputError) as caught:
        parse_settings(tree, "shop.toml")
    sentence = str(caught.value)
    assert f"sampled negatives ({name}) are not supported, because ranking a target among a sample" in sentence
    assert "Krichene and Rendle" in sentence and "KDD 2020" in sentence
    assert sentence.startswith("shop.toml: evaluate") and sentence.count(". ") == 0
