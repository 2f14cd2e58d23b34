"""The benchmark scripts on a handful of rows: they run without the peers, say so, and answer in one JSON object."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.data.prepare import Dataset
from recsys.data.sequences import Sequences
from recsys.data.splits import leave_one_out
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.features.tokens import tokenise
from recsys.models.recformer.encode import item_table
from recsys.models.recformer.start import start
from recsys.settings import ModelSettings, RecformerSettings

FOLDER = Path(__file__).parents[2] / "benchmarks"
SHARED = ("common.py", "generated_log.py", "withheld.py", "serving_load.py", "year_shop.py")  # what scripts import
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.name not in SHARED)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Imports a script, in a world without the peers."""
    monkeypatch.syspath_prepend(FOLDER)
    common = importlib.import_module("common")
    monkeypatch.setattr(common, "PEERS_PYTHON", tmp_path / "nowhere" / "python")
    return importlib.import_module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data folders with a log of twelve users."""
    rng = np.random.default_rng(0)
    lines = [f"{user} {item}" for user in range(1, 13) for item in rng.permutation(np.arange(1, 41))[: 8 + user]]
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ml-1m.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_listed_and_says_what_it_takes(path: Path) -> None:
    assert f"`{path.name}`" in (FOLDER / "README.md").read_text(encoding="utf-8")
    source = path.read_text(encoding="utf-8")
    for option in ("--quick", "--json"):
        assert option in source or "options(__doc__)" in source  # those of common.py


def test_data_that_are_not_there_are_named_in_one_sentence(tmp_path: Path) -> None:
    for script, missing in (("warm_start", "ml-1m.txt"), ("text_throughput", "items.jsonl")):
        command = [sys.executable, str(FOLDER / f"{script}.py"), "--data", str(tmp_path / "nowhere"), "--quick"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and missing in done.stderr.splitlines()[-1]


def test_histories_keep_their_order_and_number_items_anew(script: Any, tmp_path: Path) -> None:
    common: ModuleType = script("common")
    file = tmp_path / "log.txt"
    file.write_text("7 30\n7 10\n7 20\n9 20\n9 30\n4 10\n")
    everyone = common.histories(file)
    assert everyone.users.to_list() == [7, 9, 4]
    assert [everyone.history(u).tolist() for u in range(3)] == [[3, 1, 2], [2, 3], [1]]
    assert common.histories(file, users=2).offsets.tolist() == [0, 3, 5]
    newest = common.newest(everyone, 2)
    assert [newest.history(u).tolist() for u in range(3)] == [[1, 2], [2, 3], [1]]


def test_a_table_is_markdown_with_equal_columns(script: Any) -> None:
    lines = script("common").table([{"model": "ours", "users/s": "12"}, {"model": "plain torch", "users/s": 7}])
    assert lines.splitlines() == [
        "| model       | users/s |",
        "|-------------|---------|",
        "| ours        | 12      |",
        "| plain torch | 7       |",
    ]


def test_model_flops_of_a_case_worked_by_hand(script: Any) -> None:
    throughput = script("training_throughput")
    D, blocks, masked = throughput.MODEL.dimensions, throughput.MODEL.blocks, throughput.MASKED
    lengths, items = np.array([2, 3]), 10
    wide, narrow = 5 * 12 * D * D, 5 * 6 * D * D  # 4 projections, a feed-forward of 4 D or D, for each of five tokens
    cloze = 6 * (blocks * (wide + 2 * (4 + 9) * D) + masked * 5 * D * items)
    causal = 6 * (blocks * (narrow + 2 * (3 + 6) * D) + 3 * D * items)
    assert throughput.flops(throughput.shaped("cloze"), lengths, items) == pytest.approx(cloze)
    assert throughput.flops(throughput.shaped("next-item"), lengths, items) == pytest.approx(causal)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("training_throughput", {"tokens", "bf16_gflops", "models", "ratios"}),
        ("evaluation_throughput", {"users", "full", "ranking", "ratio_to_plain_torch"}),
    ],
)
def test_without_the_peers_it_measures_our_side_and_says_so(
    script: Any, data: Path, capsys: pytest.CaptureFixture[str], name: str, expected: set[str]
) -> None:
    module = script(name)
    module.main(["--data", str(data), "--quick"])
    assert "`make peers`" in capsys.readouterr().out
    module.main(["--data", str(data), "--quick", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert expected | {"machine", "quick"} <= set(answer)
    assert "ratio_to_rectools" not in answer
    assert {"cpu", "cores", "threads", "torch", "date"} <= set(answer["machine"])


def test_our_lists_are_those_of_plain_torch(script: Any, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("evaluation_throughput").main(["--data", str(data), "--runs", "1", "--k", "5", "--json"])
    ranking = json.loads(capsys.readouterr().out)["ranking"]
    assert {name: of["agreement"] for name, of in ranking.items()} == dict.fromkeys(ranking, 1.0)


def test_the_metrics_are_measured_for_a_few_users(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("metrics_throughput")
    monkeypatch.setattr(module, "BLOCK", 32)
    row = module.measure(80, 2000)
    assert row["users"] == 80 and row["measures"] > 40 and row["slices"] > 10
    assert row["data_mib"] <= row["lists_mib"] <= row["peak_mib"]


def test_a_row_of_the_catalogue_scale_reports_time_and_memory() -> None:
    row = {"items": 500, "batch": 4, "loss": "sampled", "steps": 1}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "catalogue_scale.py"), "--data", ".", "--row", json.dumps(row)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(done.stdout)
    assert found["step_seconds"] > 0
    assert found["peak"] > found["state"] > 5 * 4 * 500 * 64  # at least five float32 copies of the item vectors
    assert found["scores"] == 4 * 10 * 500 * 4


def test_growth_compares_the_batches_of_one_size_and_loss(script: Any) -> None:
    rows = [
        {"loss": loss, "items": 10, "batch": batch, "rest": batch + extra, "scores": 40 * batch}
        for loss, extra in (("full", 5), ("sampled", 7))
        for batch in (2, 8)
    ]
    assert script("catalogue_scale").growth(rows) == [
        {"loss": "full", "items": 10, "added_rest": 6, "added_scores": 240},
        {"loss": "sampled", "items": 10, "added_rest": 6, "added_scores": 240},
    ]


def test_time_to_quality_is_the_first_place_within_two_percent_of_the_best(script: Any) -> None:
    values = [0.10, 0.197, 0.19, 0.2, 0.18]
    curve = [{"epoch": n, "minutes": float(n), "ndcg_at_10": value} for n, value in enumerate(values, start=1)]
    found = script("time_to_quality").summary(curve)
    assert found["final"] == 0.2
    assert found["reached"]["epoch"] == 2


@pytest.fixture
def catalogues(tmp_path: Path) -> Path:
    """The data folders of the text benchmarks, with a dozen items and users."""
    titles = [
        f"{colour} {thing} no {number}"
        for number, (colour, thing) in enumerate(
            [
                (colour, thing)
                for colour in ("red", "blue", "green")
                for thing in ("lipstick", "drill", "lamp", "scarf")
            ],
            1,
        )
    ]
    beauty, scientific = tmp_path / "amazon-beauty", tmp_path / "recformer-scientific"
    beauty.mkdir()
    scientific.mkdir()
    rng = np.random.default_rng(0)
    users = {str(user): [int(item) for item in rng.permutation(12)[:6]] for user in range(1, 9)}
    (beauty / "Beauty.txt").write_text(
        "\n".join(" ".join(map(str, [user, *(item + 1 for item in items)])) for user, items in users.items()) + "\n"
    )
    lines = [json.dumps({"id": n, "title": title, "attributes": ["Acme"]}) for n, title in enumerate(titles, 1)]
    (beauty / "items.jsonl").write_text("\n".join(lines) + "\n")
    for part, of in (("train", slice(0, 4)), ("val", slice(4, 5)), ("test", slice(5, 6))):
        (scientific / f"{part}.json").write_text(json.dumps({user: items[of] for user, items in users.items()}))
    meta = {f"B{n}": {"title": title, "brand": "Acme", "category": "Things"} for n, title in enumerate(titles)}
    (scientific / "meta_data.json").write_text(json.dumps(meta))
    (scientific / "smap.json").write_text(json.dumps({f"B{n}": n for n in range(12)}))
    return tmp_path


def test_text_throughput_compares_equal_vectors(
    script: Any, catalogues: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("text_throughput")
    module.main(["--data", str(catalogues), "--quick", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ratio_to_sentence_transformers"] > 0 and answer["wall_ratio_to_sentence_transformers"] > 0
    assert set(answer["sides"]) == {module.LIBRARY, module.AUTOCAST, module.OURS}
    assert 0.999 <= answer["least_cosine"] <= 1.0001
    module.show(answer)
    assert "least cosine" in capsys.readouterr().out


@pytest.mark.slow
def test_zero_training_measures_every_form_and_keeps_its_vectors(
    script: Any, catalogues: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = script("zero_training")
    call = ["--data", str(catalogues), "--warehouse", str(tmp_path / "kept"), "--quick", "--json"]
    module.main(call)
    captured = capsys.readouterr()
    found = json.loads(captured.out)["data"]
    assert "12 sentences encoded, 0 known" in captured.err
    for name, of in found.items():
        assert (of["users"], of["items"], of["ties"]) == (8, 12, "middle" if name == "recformer-scientific" else "code")
        assert [row["form"] for row in of["rows"]] == ["raw", "raw", "PCA", "PCA", "whitened", "whitened"]
        assert all(0 <= row["ndcg_at_10"] <= row["hr_at_10"] <= 1 and 0 < row["mrr"] <= 1 for row in of["rows"])
    module.main(call)
    captured = capsys.readouterr()
    assert "0 sentences encoded, 12 known" in captured.err and json.loads(captured.out)["data"] == found


def test_runs_that_were_kept_are_not_run_again(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = script("results")
    asked: list[str] = []

    def run(name: str, data: Path, folder: Path, overrides: list[str]) -> dict[str, Any]:
        asked.append(overrides[-1])
        metrics = {"test/hr_at_10": 0.2 + len(asked) / 10, "test/ndcg_at_10": 0.1}
        interval = {"test/ndcg_at_10": {"low": 0.0, "high": 1.0}}
        return {"served": "model", "metrics": metrics, "baselines": {}, "intervals": interval, "seconds": {"total": 60}}

    monkeypatch.setattr(results, "run", run)
    call = ["--data", str(tmp_path), "--only", "ml-1m", "--keep", str(tmp_path / "kept.jsonl"), "--json"]
    results.main([*call, "--seeds", "1"])
    with (tmp_path / "kept.jsonl").open("a") as file:
        file.write('\n{"run": "half a li')  # killed while it wrote
    results.main([*call, "--seeds", "2"])
    results.main([*call, "--seeds", "1", "--set", "train.epochs=2"])
    assert asked == ["seed=0", "seed=1", "seed=0"]
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(answer["configurations"]["ml-1m"]) for answer in answers] == [1, 2, 1]
    assert results.cells(answers[1]["configurations"]["ml-1m"])["model"] == "0.3500 ± 0.0707 / 0.1000"


def test_a_training_alone_is_timed_with_its_share_of_the_machine(
    script: Any, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("time_to_quality")
    small = ["--set", "train.epochs=3", "--set", "model.dimensions=16", "--set", "train.learning_rate=0.01"]
    call = ["--data", str(data), "--alone", "--every", "1", *small]
    module.main([*call, "--json"])
    found = json.loads(capsys.readouterr().out)["channels"]["ids only"]
    assert found["epochs"] == 3 and found["tokens_per_second"] > 0 and 0 < found["share_of_bf16"] < 1
    assert found["final"] == max(place["ndcg_at_10"] for place in found["curve"])
    with pytest.raises(SystemExit, match="which amazon-beauty is not; leave --quick or --config out"):
        module.main([*call, "--config", "amazon-beauty"])


def test_what_a_recformer_trains_on_crosses_in_one_file(script: Any, tmp_path: Path) -> None:
    packed = script("shops.packed")
    frame = pl.DataFrame({"title": ["red lamp", "blue drill", "green lamp", ""]})
    begun = start(RecformerSettings(dimensions=16, heads=2, layers=1, vocabulary=300, max_tokens=20), [frame], 0)
    tokens = tokenise(frame, ["title"], begun.tokenizer)
    items, offsets = np.array([1, 2, 4, 3, 1], dtype=np.int32), np.array([0, 3, 5])
    histories = Sequences(users=pl.Series(range(2)), items=items, offsets=offsets)
    held_out = packed.HeldOut(histories=histories, targets=np.array([3, 2], dtype=np.int32))
    before = packed.Packed(
        begun=begun,
        corpora={"a": packed.Corpus.of(tokens, items, offsets)},
        held_out=("a",),
        catalogue=tokens,
        train=histories,
        validation=held_out,
        test=held_out,
    )
    packed.write(before, tmp_path / "packed.npz")
    after = packed.read(tmp_path / "packed.npz")
    assert after.held_out == ("a",) and after.begun.tokenizer.digest == begun.tokenizer.digest
    assert after.train.items.tolist() == items.tolist() and after.test.targets.tolist() == [3, 2]
    assert after.corpora["a"].items.tolist() == [1, 2, 3, 1] and after.corpora["a"].offsets.tolist() == [0, 2, 4]
    tables = [item_table(of.begun.model, of.catalogue, dtype=torch.float32) for of in (before, after)]
    np.testing.assert_allclose(*tables, atol=0.01)  # weights cross in float16


def test_raw_vectors_are_cut_and_normalised(script: Any) -> None:
    vectors = script("zero_training").item_vectors(np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 0.0]]), "raw", 2)
    assert vectors.tolist() == [[0, 0], [0.6, 0.8], [0, 0]]


def test_a_table_without_collisions_gives_each_item_a_row(script: Any) -> None:
    module, common = script("multiplexing_retrieval"), script("common")
    settings = ModelSettings(id_lookups=1, table_rows=40, dimensions=16, temperature=None)
    model = common.id_model(40, settings)
    assert len(model.tower.id_rows[1:].unique()) < 40  # hashes collide
    module.rows_of_their_own(model)
    assert model.tower.id_rows.flatten().tolist() == [40, *range(40)]
    vectors = model.item_table()
    assert not vectors[0].any() and (vectors[1:] == model.tower.table.weight).all()


def test_cold_items_leave_the_training_part_and_nothing_else(script: Any) -> None:
    module = script("multiplexing_retrieval")
    rng = np.random.default_rng(0)
    sequences = Sequences(
        users=pl.Series(range(30)), items=rng.integers(1, 41, 240).astype(np.int32), offsets=np.arange(31) * 8
    )
    vocabulary = Vocabulary(pl.Series("item_id", range(40)))
    whole = Dataset(
        vocabulary=vocabulary,
        split=leave_one_out(sequences),
        catalogue=pl.DataFrame({"item_id": vocabulary.items}),
        report={},
        digest="",
    )
    fewer = module.without_some(whole, 0.25)
    hidden = whole.trained_items() & ~fewer.trained_items()
    assert hidden.sum() == round(0.25 * whole.trained_items().sum())
    kept = ~np.isin(whole.split.train.items, np.flatnonzero(hidden))
    assert fewer.split.train.items.tolist() == whole.split.train.items[kept].tolist()
    assert fewer.split.train.lengths.sum() == kept.sum() and len(fewer.split.train) == 30
    assert fewer.split.test is whole.split.test and fewer.split.validation is whole.split.validation
    assert module.without_some(whole, 0.25).split.train.items.tolist() == fewer.split.train.items.tolist()


def test_budgets_take_their_share_of_the_memory(script: Any) -> None:
    module = script("multiplexing_retrieval")
    rows = {row.name: dict(o.split("=") for o in row.overrides) for row in module.budgets(None, 3000)}
    assert len(rows) == 2 + len(module.SHARES) * len(module.LOOKUPS)
    whole = 3000 * 64
    assert int(rows["without collisions"]["model.table_rows"]) * 64 == whole
    for name, of in rows.items():
        if name != "without collisions":
            share, width = float(name.partition(",")[0]), 64 // int(of["model.id_lookups"])
            assert int(of["model.table_rows"]) * width == pytest.approx(share * whole)


def test_equal_scores_share_the_middle_of_their_ranks(script: Any) -> None:
    scientific = script("scientific")
    scores = np.array([[0, 5, 5, 5, 1], [0, 1, 2, 3, 4]], dtype=np.float32)
    held_out = scientific.HeldOut(
        histories=scientific.common.Sequences(
            users=pl.Series("user_id", [1, 2]), items=np.array([1, 3], dtype=np.int32), offsets=np.array([0, 1, 2])
        ),
        targets=np.array([2, 3], dtype=np.int32),
    )
    everything = np.arange(5) > 0
    found = scientific.measure(lambda a, b: scores[a:b].copy(), everything, held_out, np.array([True, False]))
    own = [1 / np.log2(1 + rank) for rank in (2, 2)]  # of three alike the second; behind one
    assert found["ndcg"] == pytest.approx(np.mean(own)) and found["cold"] == pytest.approx(own[0])
    assert found["mrr"] == pytest.approx(0.5)
    # without the history: one of two alike, and a target that was in it
    assert found["unseen"] == pytest.approx(1 / np.log2(1 + 1.5) / 2)


def test_a_row_that_starts_from_other_shops_asks_for_one(script: Any, tmp_path: Path) -> None:
    scientific = script("scientific")
    with pytest.raises(SystemExit, match="'sequence, zero-shot' starts from a pre-trained model; name it"):
        scientific.main(["--data", str(tmp_path), "--only", "sequence, zero-shot"])
    with pytest.raises(SystemExit, match="there is no row 'sequences'"):
        scientific.main(["--data", str(tmp_path), "--only", "sequences"])
    row = scientific.ROWS["sequence, 1% of users"]
    chosen = scientific.overrides_of(row, 2, "there", True)
    assert chosen.index("train.users=0.01") > chosen.index("train.users=0.05")  # the later one counts
    assert chosen[-2:] == ["train.warm_start=there", "seed=2"]
    for row in scientific.ROWS.values():
        if row.configuration is not None:
            assert (FOLDER.parent / "configs" / f"{row.configuration}.toml").is_file()


@pytest.fixture
def ordered(tmp_path: Path) -> Path:
    """amazon-beauty and its timed copy: 30 users, whose last step ascends in product code for every third."""
    beauty, timed = tmp_path / "amazon-beauty", tmp_path / "timed"
    beauty.mkdir()
    timed.mkdir()
    lines, events = [], []
    for user in range(1, 31):
        last = [7, 3] if user % 3 else [3, 7]
        items = [1 + user % 9, 10 + user % 9, 20 + user % 9, *last]
        times = [0, 1, 2, 3, 3 if user <= 6 else 4]
        lines.append(" ".join(map(str, [user, *items])))
        events += [(user, item, time) for item, time in zip(items, times, strict=True)]
    (beauty / "Beauty.txt").write_text("\n".join(lines) + "\n")
    (beauty / "items.jsonl").write_text("\n".join(json.dumps({"id": n, "asin": f"B{n:03}"}) for n in range(1, 31)))
    pl.DataFrame(events, schema=["user", "item", "time"], orient="row").write_parquet(timed / "amazon-beauty.parquet")
    return tmp_path


def test_users_part_by_the_order_of_their_last_step(
    script: Any, ordered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("order_of_beauty")
    module.main(["--data", str(ordered), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["share_ascending"] == pytest.approx(1 / 3)
    assert {row["last step"]: row["users"] for row in found["rows"]} == {
        "all": 30,
        "code ascends": 10,
        "code descends": 20,
        "same day": 6,
        "same day, code ascends": 2,
        "another day": 24,
        "another day, code ascends": 8,
        "another day, code descends": 16,
    }
    whole, rising, falling = found["rows"][:3]
    mean = (10 * rising["popularity hr@10"] + 20 * falling["popularity hr@10"]) / 30
    assert whole["popularity hr@10"] == pytest.approx(mean)
    module.show(found)
    assert "33.3% of the last steps ascend" in capsys.readouterr().out


def test_days_need_a_timed_copy_of_the_same_events(
    script: Any, ordered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, file = script("order_of_beauty"), ordered / "timed" / "amazon-beauty.parquet"
    pl.read_parquet(file).with_columns(pl.col("item") % 5 + 1).write_parquet(file)
    with pytest.raises(InputError, match=r"holds other events than Beauty\.txt"):
        module.main(["--data", str(ordered)])
    file.unlink()
    module.main(["--data", str(ordered)])
    assert "nothing is known of days" in capsys.readouterr().out


def test_by_time_measures_every_target_from_one_training(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    log = [
        (user, int(item), 1_390_000_000 + user * 86_400 + n * 500_000)
        for user in range(1, 120)
        for n, item in enumerate(rng.permutation(np.arange(1, 40))[:8])
    ]
    (tmp_path / "timed").mkdir()
    pl.DataFrame(log, schema=["user", "item", "time"], orient="row").write_parquet(
        tmp_path / "timed" / "amazon-beauty.parquet"
    )
    by_time = script("by_time")
    call = ["--data", str(tmp_path), "--only", "amazon-beauty-time", "--json", "--warehouse", str(tmp_path / "kept")]
    by_time.main([*call, "--quick", "--set", "split.test_from=2014-04-20T00:00:00Z"])
    (found,) = json.loads(capsys.readouterr().out)["configurations"].values()
    first = found["targets"]["first"]
    assert set(by_time.QUICK_BASELINES) < set(first["figures"])
    assert found["without_history"]["users"] > 0
    measure = ["--bundle", found["training"]["bundle"], "--set", "split.test_from=2014-04-20T00:00:00Z"]
    sets = [part for one in by_time.QUICK for part in ("--set", one)]
    by_time.main([*call, *measure, *sets, "--targets", "last", "successive"])
    (more,) = json.loads(capsys.readouterr().out)["configurations"].values()
    assert list(more["targets"]) == ["last", "successive"]
    asked = {target: one["protocol"] for target, one in more["targets"].items()}
    assert asked["successive"]["questions"] > asked["last"]["questions"] == asked["last"]["asked_users"]
    assert {"ease", "item-neighbours"} <= set(more["targets"]["last"]["figures"])
    by_time.show({"configurations": {"amazon-beauty-time": more}})
    assert "published: SASRec+, validation by users" in capsys.readouterr().out
