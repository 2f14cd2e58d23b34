"""Files beside the tables: caches, which are deleted whole, and whatever else may name an id.

A cache is a folder of the run states, or of prepared data, that nothing here knows to be free of users. It is made
again when it is needed.
"""

from __future__ import annotations

import codecs
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from recsys.backtest.tables import FOLDER as REPLAYS
from recsys.bundles.mirror import BUNDLES
from recsys.columns import ITEM_ID, USER_ID
from recsys.data.log import FOLDER as PREPARED
from recsys.data.log import home_of
from recsys.evaluation.users import FOLDER as EVALUATIONS
from recsys.forgetting.sought import Sought, stand_alone
from recsys.releases.record import FOLDER as RELEASES
from recsys.report.files import FOLDER as REPORTS
from recsys.runs import local_folder, state_folder
from recsys.storage import artefacts
from recsys.storage.files import WRITING
from recsys.storage.purge import half_written

PROOFS: Final = "proofs"  # in the folder of run states: what `forget` has done, without an id
TOKENS: Final = "tokens"  # a cache by item, which holds no user
# folders that hold no user, or that are cleaned by themselves
_KNOWN: Final = frozenset(
    {BUNDLES, EVALUATIONS, RELEASES, REPLAYS, REPORTS, PROOFS, TOKENS}
    | {"encoders", "pretrained", "processes", "refresh", "runs", "tuning", "unsent"}
)
_FRAMES: Final[dict[str, Callable[[Path], pl.LazyFrame]]] = {
    ".parquet": pl.scan_parquet,
    ".arrow": pl.scan_ipc,
    ".feather": pl.scan_ipc,
    ".ipc": pl.scan_ipc,
}
_LOG: Final = "_delta_log"
_BLOCK: Final = 16 << 20  # bytes of a file that are searched at once
_SIGNS: Final = "".join(map(chr, [*range(128), *range(0xE080, 0xE100)]))  # each byte's; the second half is nobody's


def caches(warehouse: str, *, of_items: bool) -> list[Path]:
    """Folders of prepared data and of caches that may hold users, and with `of_items` those that hold items."""
    states, local = state_folder(warehouse), local_folder(warehouse)
    found = [path for path in home_of(warehouse).glob("*") if path.is_dir()]
    found += [path for path in states.glob("*") if path.is_dir() and path.name not in _KNOWN | {PREPARED}]
    for pattern in ("*cache*", TOKENS) if of_items else ("*cache*",):
        found += [path for path in local.glob(pattern) if path.is_dir()]
    return sorted({path for path in found if not (path / _LOG).is_dir()})


def remove_caches(warehouse: str, *, of_items: bool) -> int:
    """Delete them; returns their number."""
    removed = artefacts.remove_all(home_of(warehouse))
    for path in (found := caches(warehouse, of_items=of_items)):
        shutil.rmtree(path)
    return removed + len(found)


def unfinished(warehouse: str) -> list[Path]:
    """Files and folders that killed processes were writing beside the tables, and in them."""
    local, states = local_folder(warehouse), state_folder(warehouse)
    places = {local, states, *(local / name for name in _KNOWN), *(states / name for name in _KNOWN)}
    places |= set((local / REPORTS).glob("*"))
    beside = [path for place in places if place.is_dir() for path in place.glob(f".*{WRITING}*")]
    return sorted([*beside, *half_written(warehouse)])


def remove_unfinished(warehouse: str) -> int:
    """Delete them, inside of the warehouse's lock; returns their number."""
    found = unfinished(warehouse)
    for path in found:
        remove(path)
    return len(found)


def remove(path: Path) -> None:
    """Delete a file, or a folder with what is in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def naming(warehouse: str, sought: Sought) -> list[Path]:
    """Files on this machine, besides the tables' and bundles' items, that name what is sought."""
    return [path for path in _files(warehouse) if _names(path, sought)]


def _files(warehouse: str) -> Iterator[Path]:
    local, states = local_folder(warehouse), state_folder(warehouse)
    tables = {path.parent for path in local.glob(f"*/{_LOG}")}
    for path in sorted({*local.rglob("*"), *states.rglob("*")}):
        if path.is_file() and not any(table in path.parents for table in tables):
            yield path


def _names(path: Path, sought: Sought) -> bool:
    in_bundle = BUNDLES in path.parts
    wanted = Sought(users=sought.users) if in_bundle else sought  # a bundle's items are told apart
    scan = _FRAMES.get(path.suffix)
    if scan is not None:
        try:
            rows = scan(path)
            goes = wanted.columns(rows.collect_schema(), USER_ID, ITEM_ID)
            return int(rows.filter(goes).select(pl.len()).collect(engine="streaming").item()) > 0
        except (pl.exceptions.PolarsError, OSError):
            pass  # cut off: its bytes are searched
    return _bytes_name(path, wanted)


def _bytes_name(path: Path, sought: Sought) -> bool:
    if not sought.spelled:
        return False
    wanted = [_as_text(one.encode()) for one in sought.spelled]
    overlap, rest, first, last = max(map(len, wanted)) + 1, b"", "", False
    with path.open("rb") as file:
        while not last:
            block = file.read(_BLOCK)
            last = len(block) < _BLOCK
            # at a cut, nobody knows what stands beside: what ends there is in the next block whole
            content = rest + block
            if stand_alone(first + _as_text(content) + ("" if last else "x"), wanted):
                return True
            rest, first = content[-overlap:], "x" if len(content) > overlap else first
    return False


def _as_text(content: bytes) -> str:
    """Bytes as a text of as many signs, none of them a letter or digit but those of ASCII."""
    return codecs.charmap_decode(content, "strict", _SIGNS)[0]
