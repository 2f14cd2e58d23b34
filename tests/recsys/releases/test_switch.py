"""Promote and rollback on real tables, bundles and exports: one switch through any kill, and what cannot come back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, example, given, settings, strategies

from recsys import runs
from recsys.bundles.store import latest_bundle
from recsys.errors import InputError, RecsysError
from recsys.exports import several
from recsys.exports.base import Candidates
from recsys.exports.due import due
from recsys.exports.files import FileSink
from recsys.exports.registry import sinks_of
from recsys.pipelines import promote as promoting
from recsys.releases import commands, switch
from recsys.releases.choice import Built, matching, way
from recsys.releases.commands import promote, rollback
from recsys.releases.record import Release, champion, read, releases
from recsys.releases.switch import BY_RETRIEVE, described, serve, settle
from recsys.settings import Settings
from recsys.storage import stream
from recsys.storage.warehouse import commit_metadata, latest_version, scan
from recsys.table import build
from recsys.table.build import BuiltCandidates
from tests.recsys.audit.forgetting import forget
from tests.recsys.releases.shop import Shop


class Killed(BaseException):
    """Raised as a signal is: no `except Exception` catches it."""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Three nights: a, b and c."""
    return three_nights(tmp_path)


def three_nights(root: Path) -> Shop:
    shop = Shop(root / "w", export={"path": str(root / "export")})
    for run in ("a", "b", "c"):
        shop.night(run)
    return shop


def rolled(shop: Shop, **more: Any) -> str:
    return rollback(shop.settings, None, "why not", **more).release.run


def test_a_rollback_takes_table_pointer_export_and_list_back(shop: Shop) -> None:
    before = DeltaTable(shop.path("candidates")).version()
    done = rollback(shop.settings, None, " cold items ")
    assert shop.served() == {"b"}
    assert (done.release.run, done.release.of, done.release.by) == ("b", "b", "rollback")
    assert (done.release.why, done.instead and done.instead.run, done.finished) == ("cold items", "c", False)
    assert done.release.who and done.release.version == before + 1
    assert done.release.metrics == {"test/ndcg_at_10": 0.25} and done.release.verdict == "Published: b."
    said = commit_metadata(str(shop.root), "candidates")
    assert (said["run"], said["bundle"], said["name"]) == ("b", latest_bundle(shop.root, "shop").name, "shop")
    assert [one.run for one in releases(shop.settings)] == ["a", "b", "c", "b"]
    old = scan(shop.root, "candidates", before)  # the way forward stays
    assert old.collect()["run"].unique().to_list() == ["c"]


def test_twice_goes_back_two_and_then_there_is_nothing_left(shop: Shop) -> None:
    assert [rolled(shop), rolled(shop)] == ["b", "a"]
    with pytest.raises(InputError, match="Nothing is known that was served before the run a"):
        rolled(shop)
    assert shop.served() == {"a"}


def test_nothing_to_go_back_to(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(InputError, match="Nothing of 'shop' is served yet"):
        rolled(shop)
    shop.night("a")
    with pytest.raises(InputError, match="there is nothing to go back to"):
        rolled(shop)


def test_a_night_after_a_rollback_goes_back_to_what_was_rolled_back_to(shop: Shop) -> None:
    assert rolled(shop) == "b"
    shop.night("d")
    assert [rolled(shop), rolled(shop)] == ["b", "a"]


def test_any_release_can_come_back_by_the_beginning_of_its_run(shop: Shop) -> None:
    shop.night("c0ffee")
    assert rolled(shop, to="a") == "a"
    assert rolled(shop, to="c0f") == "c0ffee"  # what a rollback took away comes on top
    assert rolled(shop) == "a"
    with pytest.raises(InputError, match="The run a is served already, since 2026"):
        rolled(shop, to="a")


@pytest.mark.parametrize("why", ["", "  \n"])
def test_a_reason_is_needed(shop: Shop, why: str) -> None:
    for command in (lambda: rollback(shop.settings, None, why), lambda: promote(shop.settings, None, "a", why)):
        with pytest.raises(InputError, match="--why is empty"):
            command()
    assert shop.served() == {"c"}


def test_a_password_in_a_reason_is_masked(shop: Shop) -> None:
    done = rollback(shop.settings, None, "see postgresql://me:secret@db/x")
    assert done.release.why and "secret" not in done.release.why


def test_a_run_that_was_kept_back_is_promoted_on_top_of_later_nights(shop: Shop) -> None:
    bundle = shop.kept_back("kept")
    shop.night("d")
    prepared = []
    done = promote(shop.settings, None, "kep", "the drift is the sale", prepared.append)
    assert shop.served() == {"kept"} and latest_bundle(shop.root, "shop").name == bundle.name
    assert (done.release.run, done.release.of, done.release.verdict) == ("kept", None, "Kept back: kept.")
    assert done.release.metrics == {"test/ndcg_at_10": 0.125}
    assert [one.run for one in prepared] == ["kept"]
    assert rolled(shop) == "d"
    assert promote(shop.settings, None, "kept", "again").release.of == "kept"  # now it is a former release
    assert rolled(shop) == "d"


def test_what_was_promoted_is_no_rubbish_of_its_night(shop: Shop) -> None:
    shop.kept_back("kept")
    shop.night("d")
    promote(shop.settings, None, "kept", "x")
    rolled(shop)
    (built,) = [one for one in commands.built_runs(shop.settings) if one.run == "kept"]
    stream.discard(built.candidates.staged)  # as the night does that is started again
    assert rolled(shop, to="kept") == "kept" and shop.served() == {"kept"}


def test_promote_brings_a_former_release_back_and_a_rollback_undoes_it(shop: Shop) -> None:
    assert promote(shop.settings, None, "a", "better").release.by == "promote"
    assert shop.served() == {"a"}
    assert rolled(shop) == "c"
    with pytest.raises(InputError, match="The run c is served already"):
        promote(shop.settings, None, "c", "better")


def test_a_wrong_run_gets_near_names(shop: Shop) -> None:
    shop.kept_back("kept")
    with pytest.raises(InputError, match=r"No run 'kepd' was served or built candidates; did you mean kept\?"):
        promote(shop.settings, None, "kepd", "x")
    with pytest.raises(InputError, match="No run 'zzzzz' was served; did you mean c, b, a"):
        rolled(shop, to="zzzzz")
    with pytest.raises(InputError, match="ab is the beginning of 2 runs: abc, abd; give more"):
        matching("ab", ["abc", "abd", "x"], "was served")
    assert matching("ab", ["ab", "abd"], "was served") == "ab"
    assert matching("abc", ["abc", "abc"], "was served") == "abc"


def test_built_candidates_that_are_gone_are_told_and_what_makes_them_anew(shop: Shop) -> None:
    bundle = shop.kept_back("kept")
    (built,) = [one for one in commands.built_runs(shop.settings) if one.run == "kept"]
    for path in stream.paths(built.candidates.staged):
        Path(path).unlink()
    with pytest.raises(InputError, match=rf"are gone .*`recsys retrieve CONFIG --bundle .*{bundle.name}`"):
        promote(shop.settings, None, "kept", "x")
    assert shop.served() == {"c"} and read(shop.settings).switching is None


def test_built_candidates_that_are_gone_are_built_anew_from_the_bundle(shop: Shop) -> None:
    bundle = shop.kept_back("kept")
    (built,) = [one for one in commands.built_runs(shop.settings) if one.run == "kept"]
    stream.discard(built.candidates.staged)  # as the next night does
    shop.night("d")
    asked = []

    def rebuild(built: Built) -> BuiltCandidates:
        asked.append((built.run, built.bundle))
        staged = shop.stage("kept", bundle)
        return replace(built.candidates, staged=staged, rows=staged.rows)

    promote(shop.settings, None, "kept", "x", rebuild=rebuild)
    assert asked == [("kept", bundle)] and shop.served() == {"kept"}
    shutil.rmtree(bundle)
    shop.night("e")
    with pytest.raises(InputError, match=r"its bundle cannot be served .*; choose another run"):
        promote(shop.settings, None, "kept", "x", rebuild=rebuild)


def test_an_empty_table_is_not_promoted(shop: Shop) -> None:
    shop.kept_back("kept", users=())
    with pytest.raises(InputError, match="has a candidate, and version"):
        promote(shop.settings, None, "kept", "x")
    assert shop.served() == {"c"}


def test_nothing_comes_back_of_a_user_who_was_forgotten(shop: Shop) -> None:
    shop.kept_back("kept")
    with runs.locked(str(shop.root)):
        forget(shop.settings, ["ann"])
    with pytest.raises(InputError, match=r"The run b cannot be served: version 1 .* is gone \(`recsys forget`"):
        rolled(shop)
    with pytest.raises(InputError, match="the candidates that it built are gone"):
        promote(shop.settings, None, "kept", "x")
    shop.night("d", users=("bob",))
    assert rolled(shop) == "c"  # what was served when they were forgotten, without them
    assert set(scan(shop.root, "candidates").collect()["user_id"]) == {"bob"}


def test_a_forgetting_that_was_stopped_brings_nobody_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    shop.kept_back("kept")
    monkeypatch.setattr("recsys.forgetting.forget._rewrite", killed)  # the list of the forgotten is written before
    with runs.locked(str(shop.root)), pytest.raises(Killed):
        forget(shop.settings, ["ann"])
    for command in (lambda: rolled(shop), lambda: promote(shop.settings, None, "kept", "x")):
        with pytest.raises(InputError, match="its rows name users or items that were forgotten"):
            command()
    assert shop.served() == {"c"}


def test_a_bundle_that_is_gone_or_damaged_does_not_come_back(shop: Shop) -> None:
    folder = Path(releases(shop.settings)[1].bundle)
    (folder / "items.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="its bundle cannot be served"):
        rolled(shop)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="choose another run"):
        rolled(shop)
    assert shop.served() == {"c"}
    assert rolled(shop, to="a") == "a"


def test_a_warehouse_that_was_moved_keeps_its_way_back(tmp_path: Path) -> None:
    shop = three_nights(tmp_path)
    shop.root.rename(tmp_path / "elsewhere")
    moved = Shop(tmp_path / "elsewhere", export={"path": str(tmp_path / "export")})
    assert rolled(moved) == "b" and moved.served() == {"b"}


def test_what_an_earlier_version_has_published_is_the_way_back(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    bundle = shop.bundle("old")
    shop.table("old", bundle)
    shop.point(bundle)
    shop.night("new")
    assert [(one.run, one.by) for one in releases(shop.settings)] == [("old", "an earlier version"), ("new", "night")]
    assert rolled(shop) == "old" and shop.served() == {"old"}


def test_what_is_published_past_the_list_is_listed_by_the_next_command(shop: Shop) -> None:
    bundle = shop.bundle("foreign")
    shop.table("foreign", bundle)
    shop.point(bundle)
    assert rolled(shop) == "c"
    assert [one.run for one in releases(shop.settings)] == ["a", "b", "c", "foreign", "c"]


# --- kills ----------------------------------------------------------------------------------------

BOUNDARIES: dict[Any, tuple[str, ...]] = {
    switch: ("write", "publish_bundle", "export"),
    commands: ("restore", "tell"),
    build: ("publish",),
}


@contextmanager
def killing(number: int, after: bool) -> Iterator[list[str]]:
    """Raise at the number-th of the acts that change something, before or after it; yields the acts that began."""
    began: list[str] = []
    places = {
        "write": switch,
        "publish_bundle": switch,
        "export": switch,
        "restore": commands,
        "publish": build,
        "tell": commands,
    }
    originals = {name: getattr(module, name) for name, module in places.items()}

    def guarded(name: str) -> Callable[..., Any]:
        def act(*arguments: Any, **more: Any) -> Any:
            began.append(name)
            fatal = len(began) == number
            if fatal and not after:
                raise Killed
            result = originals[name](*arguments, **more)
            if fatal:
                raise Killed
            return result

        return act

    for name, module in places.items():
        setattr(module, name, guarded(name))
    try:
        yield began
    finally:
        for name, module in places.items():
            setattr(module, name, originals[name])


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A folder of the same name each time, as it is now; what the block does to it is undone."""
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept, symlinks=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        kept.rename(folder)


COMMANDS: dict[str, tuple[Callable[[Shop], Any], str]] = {
    "rollback": (lambda shop: rollback(shop.settings, None, "x"), "b"),
    "rollback --to": (lambda shop: rollback(shop.settings, None, "x", to="a"), "a"),
    "promote former": (lambda shop: promote(shop.settings, None, "a", "x"), "a"),
    "promote kept back": (lambda shop: promote(shop.settings, None, "kept", "x"), "kept"),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_anywhere_is_finished_by_the_same_command(tmp_path: Path, name: str, after: bool) -> None:
    command, target = COMMANDS[name]
    shop = three_nights(tmp_path / "shop")
    shop.kept_back("kept")
    acts = ["tell", "write", "publish" if target == "kept" else "restore", "publish_bundle", "write", "tell", "export"]
    for number, act in enumerate(acts, 1):
        with copied(tmp_path / "shop"):
            with killing(number, after) as began, pytest.raises(Killed):
                command(shop)
            assert began == acts[:number]
            assert shop.whole()  # no reader sees half of a table or of an export
            if after and number == len(acts):  # it was the last act: nothing is left to finish
                assert shop.served() == {target}
                continue
            command(shop)
            assert shop.served() == {target}, act
            assert [one.run for one in releases(shop.settings)] == ["a", "b", "c", target]
            assert read(shop.settings).switching is None


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_anywhere_is_finished_by_the_next_night(tmp_path: Path, after: bool) -> None:
    shop = three_nights(tmp_path / "shop")
    for number in range(1, 8):
        with copied(tmp_path / "shop"):
            with killing(number, after) as began, pytest.raises(Killed):
                rolled(shop)
            shop.night("d")
            assert shop.served() == {"d"}
            begun = number > 3 or (after and began[-1] == "restore")
            assert [one.run for one in releases(shop.settings)] == ["a", "b", "c", *(["b"] if begun else []), "d"]
            assert rolled(shop) == ("b" if begun else "c")


def test_an_export_that_fails_is_made_up_for_by_the_same_command(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileSink, "write", full)
        with pytest.raises(RecsysError, match=r"The run b is served and not yet in \[export\]: .*No space left"):
            rolled(shop)
    done = rollback(shop.settings, None, "x")
    assert done.finished and done.release.run == "b" and done.instead and done.instead.run == "c"
    assert shop.served() == {"b"}
    assert rolled(shop) == "a"


AWAY = {"kind": "redis", "address": "redis://127.0.0.1:1/0"}


def with_cache(shop: Shop, tmp_path: Path, cache: dict[str, Any], database: Path) -> Settings:
    """The shop's configuration with a second target."""
    export = {"files": {"path": str(tmp_path / "export")}, "cache": cache}
    shutil.copy(database, tmp_path / "mlflow.db")
    return Shop(shop.root, export=export, tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"}).settings


def test_a_target_that_is_away_holds_up_no_switch_and_is_written_when_it_is_back(
    shop: Shop, tmp_path: Path, database: Path
) -> None:
    away = with_cache(shop, tmp_path, AWAY, database)
    lacks = r"The run b is served and not yet in \[export\.cache\]: .*cannot be reached.*tries again"
    with pytest.raises(RecsysError, match=lacks) as caught:
        promoting.rollback(away, "odd lists")
    assert not isinstance(caught.value, InputError)
    assert shop.served() == {"b"}  # table, pointer, list, and the target that answers
    record = read(away)
    assert record.switching is None and due(away) == {"cache"}
    assert record.untold == 0  # MLflow knows what is served
    said: list[str] = []
    assert settle(away, lacking=said.append) is None and len(said) == 1  # as the next night does
    for _ in range(2):  # the same command goes back no further, and says again what is lacking
        with pytest.raises(RecsysError, match=lacks):
            promoting.rollback(away, "odd lists")
    assert champion(away).run == "b"  # type: ignore[union-attr]
    back = with_cache(shop, tmp_path, {"kind": "sqlite", "path": str(tmp_path / "cache.db")}, database)
    settle(back)
    held = sinks_of(back, "cache")[0].held()
    assert held is not None and held.run == "b" and due(back) == frozenset()


def test_a_wrong_target_is_refused_before_anything_is_switched(shop: Shop, tmp_path: Path, database: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    wrong = with_cache(shop, tmp_path, {"path": str(tmp_path / "taken")}, database)
    with pytest.raises(InputError, match="that no export has written"):
        promoting.rollback(wrong, "odd lists")
    assert shop.served() == {"c"}


def night_without_export(shop: Shop, monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    """Publish a night whose export fails, as its disk is full."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(FileSink, "write", full)
        shop.night(run)


def test_an_export_of_a_night_that_failed_is_made_up_for_unless_the_target_was_taken_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sink,) = sinks_of(shop.settings)
    night_without_export(shop, monkeypatch, "d")
    settle(shop.settings)
    assert shop.served() == {"d"}
    night_without_export(shop, monkeypatch, "e")
    several.rollback(shop.settings)
    settle(shop.settings)
    held = sink.held()
    assert held is not None and held.run == "c" and champion(shop.settings).run == "e"  # type: ignore[union-attr]


def by_hand(shop: Shop, run: str) -> Candidates:
    """Serve a table as `recsys retrieve` does."""
    bundle = shop.bundle(run)
    staged = shop.stage(run, bundle)

    def commit(said: Mapping[str, Any]) -> None:
        stream.publish(replace(staged, metadata={**staged.metadata, **said}))

    served = serve(shop.settings, described(shop.settings, run, bundle, BY_RETRIEVE), commit, exporting=False)
    return Candidates(path=shop.path("candidates"), version=served.version, run=run)


def test_a_table_made_by_hand_is_exported_by_hand(shop: Shop) -> None:
    by_hand(shop, "d")
    settle(shop.settings)
    held = sinks_of(shop.settings)[0].held()
    assert held is not None and held.run == "c"


def test_an_export_that_is_due_brings_no_table_made_by_hand_to_its_target(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sink,) = sinks_of(shop.settings)
    night_without_export(shop, monkeypatch, "d")
    made = by_hand(shop, "e")
    settle(shop.settings)
    report = several.update(shop.settings, made, None, made)["targets"]["export"]  # as a refresh does
    held = sink.held()
    assert held is not None and held.run == "c" and report["left"]
    assert rolled(shop) == "d" and shop.served() == {"d"} and due(shop.settings) == frozenset()
    made = by_hand(shop, "f")
    several.export(shop.settings, made)
    assert shop.served() == {"f"}


def test_a_table_that_cannot_be_written_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RecsysError("The disk is full.")

    before = releases(shop.settings)
    with monkeypatch.context() as patch:
        patch.setattr(commands, "restore", full)
        with pytest.raises(RecsysError, match="The disk is full"):
            rolled(shop)
    assert shop.served() == {"c"} and read(shop.settings).switching is None and releases(shop.settings) == before
    assert settle(shop.settings) is None


# --- any sequence ---------------------------------------------------------------------------------

ACTS = strategies.sampled_from(["night", "kept", "rollback", "to first", "promote kept", "promote first", "clean up"])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=strategies.lists(ACTS, min_size=1, max_size=7))
@example(acts=["night", "promote first", "night", "to first"])
def test_after_any_sequence_all_name_the_run_that_is_expected(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("acts")
    shop = Shop(root / "w", export={"path": str(root / "export")})
    shop.night("n0")
    going_back, kept = ["n0"], None  # the way back, worked out beside
    for number, act in enumerate(acts, 1):
        run = f"n{number}"
        try:
            if act == "night":
                shop.night(run)
                going_back.append(run)
            elif act == "kept":
                shop.kept_back(run)
                kept = run
            elif act == "clean up":
                DeltaTable(shop.path("candidates")).vacuum(dry_run=False)  # keeps what is younger than a week
            elif act == "rollback":
                rollback(shop.settings, None, "x")
                going_back.pop()
            elif act == "to first":
                rollback(shop.settings, None, "x", to="n0")
                last_place = max(place for place, one in enumerate(going_back) if one == "n0")  # of several, the newest
                del going_back[last_place + 1 :]
            else:
                wanted = "n0" if act == "promote first" else kept
                promote(shop.settings, None, wanted or "none", "x")
                going_back.append(str(wanted))
        except InputError as error:
            refused = ("nothing to go back to", "served already", "No run 'none'")
            assert any(words in str(error) for words in refused), error
        assert shop.served() == {going_back[-1]}
        last = champion(shop.settings)
        assert last is not None and last.version == latest_version(shop.root, "candidates")
        assert [one.run for one in way(releases(shop.settings))] == going_back


def test_the_way_back() -> None:
    def release(run: str, by: str = "night") -> Release:
        return Release(run=run, at="", table="", version=0, bundle="", measured="", metrics={}, by=by)

    back = "rollback"
    listed = [release("a"), release("b"), release("a", "promote"), release("b", back), release("a", back)]
    ways = ["a", "ab", "aba", "ab", "a"]
    assert ["".join(one.run for one in way(listed[: number + 1])) for number in range(5)] == ways
