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
        (
            VALID + "[interactions.columns]\nusr_id = 'u'",
            "interactions.columns.usr_id; did you mean interactions.columns.user_id?",
        ),
        (
            VALID + "[items]\nsource = 'i'\ncolumns = { id = 'u' }",
            "items.columns.id; did you mean items.columns.item_id?",
        ),
        (VALID + "[train]\nepochs = -1", "train.epochs = -1"),
        (VALID + "[model]\nheads = 7", "dimensions = 128 must be divisible by heads = 7"),
        (VALID + '[model]\nkind = "text"', "needs items.text"),
        (VALID + "[split]\ntest_from = 2020-01-01T00:00:00", "no time zone"),
        ("name = ", "is not valid TOML"),
        (VALID + "[retrieve]\nk = = 100\n", ": `k = = 100`."),
        (VALID + "[tracking]\nuri = http://ann:word@host\n", ": `uri = ...`."),
        (VALID + "[x]\npassword = 12 34\n", ": `password = ...`."),
        (VALID + "[train\n", ": `[train`."),
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


@pytest.mark.parametrize("content", [b"user,item,time\n1,2,3\n", b"\x1f\x8b\x08", b'{"user": 1}\n'])
def test_a_log_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"log\.csv is not a configuration.*`recsys init .*log\.csv` writes"):
        load_settings(path)


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


@pytest.mark.parametrize("kind", ["text", "recformer"])
def test_the_sequence_models_keys_are_passed_over_by_other_kinds(kind: str) -> None:
    """A configuration can be run with another kind, and bundles that carry all keys stay readable."""
    tree = {"name": "a", "interactions": {"source": "a.csv"}, "items": {"source": "i.csv", "text": ["title"]}}
    given = {"kind": kind, "dimensions": 64, "heads": 7, "objective": "next-item", "context": []}
    settings = parse_settings({**tree, "model": given})
    assert settings.model == parse_settings({**tree, "model": {"kind": kind}}).model
    assert not {"dimensions", "heads"} & settings.model_dump()["model"].keys()
    again = parse_settings(settings.model_dump(mode="json"))
    assert again == settings and again.digest() == settings.digest()
    for context in (["hour"], 5):
        with pytest.raises(InputError, match=rf'context = .* needs kind = "bert4rec"; "{kind}" reads items alone'):
            parse_settings({**tree, "model": {**given, "context": context}})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": "recformer", "repeat_bia": True}, r"no setting model\.repeat_bia; did you mean model\.repeat_bias\?"),
        ({"kind": "recformer", "repeat_bias": 3}, r"model\.repeat_bias = 3: input should be a valid boolean"),
        ({"kind": "bert"}, r"model\.kind = 'bert': there is no such kind of model; the kinds are bert4rec, recformer"),
        ({"heds": 2}, r"no setting model\.heds; did you mean model\.heads\?"),
        (7, r"model = 7: it must be a section of settings \(\[model\]\)"),
    ],
)
def test_a_mistake_is_told_against_the_keys_of_its_kind(model: object, message: str) -> None:
    tree = {"name": "a", "interactions": {"source": "a.csv"}, "items": {"source": "i.csv", "text": ["title"]}}
    with pytest.raises(InputError, match=message):
        parse_settings({**tree, "model": model})


def test_old_names_of_settings_work_with_a_warning(tmp_path: Path) -> None:
    """Files written before a key was renamed are read as they were meant; both names at once are refused."""
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "items": {"source": "items.csv", "text": ["title"]}}
    old = tree | {"model": {"kind": "recformer", "repeats": True}, "recformer": {"places": "item", "apart": 2.0}}
    with pytest.warns(FutureWarning, match="is now called .*; the old name works until version 0.3") as told:
        settings = parse_settings(old)
    assert settings.model.model_dump()["repeat_bias"] is True
    assert (settings.recformer.positions, settings.recformer.cross_item_bias) == ("item", 2.0)
    assert len(told) == 3
    with pytest.raises(InputError, match="places is the old name of positions; leave places out"):
        parse_settings(tree | {"recformer": {"places": "item", "positions": "item"}})


def test_an_old_name_means_nothing_to_a_kind_that_passes_the_new_one_over() -> None:
    tree = {"name": "s", "interactions": {"source": "log.csv"}, "items": {"source": "items.csv", "text": ["title"]}}
    assert parse_settings(tree | {"model": {"kind": "text", "repeats": True}}).model.model_dump() == {"kind": "text"}


@pytest.mark.parametrize("name", ["negatives", "num_negatives", "sampling"])
def test_sampled_negatives_are_refused_with_the_reason(name: str) -> None:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "evaluate": {name: 100, "cutoffs": [10]}}
    with pytest.raises(InputError) as caught:
        parse_settings(tree, "shop.toml")
    sentence = str(caught.value)
    assert f"sampled negatives ({name}) are not supported, because ranking a target among a sample" in sentence
    assert "Krichene and Rendle" in sentence and "KDD 2020" in sentence
    assert sentence.startswith("shop.toml: evaluate") and sentence.count(". ") == 0
