"""Values per user of one evaluation: the file that two runs are compared by.

Parquet with a row for each user of the test part, or for each target of a user who has several: `user_id`, `target`
(item id; null where the vocabulary does not know it), `rank` (null where the target was not ranked), `hit_at_10`,
`ndcg_at_10`, the row's slices, and `rank of NAME` for each baseline.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID, RANK, USER_ID, metric_name
from recsys.data.splits import HeldOut
from recsys.errors import InputError
from recsys.evaluation.metrics import MISS, per_user
from recsys.forgetting.sought import Sought
from recsys.runs import local_folder
from recsys.storage.files import WRITING, file_aside, writing

FILE: Final = "users.parquet"  # the artifact's name
FOLDER: Final = "evaluations"  # in the warehouse: a file for each bundle
TARGET: Final = "target"
RANK_OF: Final = "rank of "  # a baseline: the prefix of its column
STAND_INS: Final = "pseudonyms"  # of the facts: whether users are named by pseudonyms
_ABOUT: Final = "recsys"  # key of the file's own metadata


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class UserValues:
    """Values per user, and JSON-friendly facts about the run: `name`, `bundle`, `served`, `exclude_seen`."""

    frame: pl.DataFrame
    about: dict[str, Any]

    def ranks(self) -> np.ndarray:
        """int64 [U]; `MISS` where the target was not ranked."""
        return self._ranks(RANK)

    def baseline_ranks(self) -> dict[str, np.ndarray]:
        """By baseline int64 [U]; empty in a file of an earlier version."""
        columns = [name for name in self.frame.columns if name.startswith(RANK_OF)]
        return {name.removeprefix(RANK_OF): self._ranks(name) for name in columns}

    def _ranks(self, column: str) -> np.ndarray:
        return self.frame[column].fill_null(int(MISS)).to_numpy().astype(np.int64)

    def digest(self) -> str:
        """sha256 (hex) of users and targets, whatever their order: equal digests mean the same test part."""
        pairs = self.frame.select(pl.col(USER_ID).cast(pl.String), pl.col(TARGET).cast(pl.String)).sort(pl.all())
        lines = pairs.select(pl.concat_str([pl.col(USER_ID), pl.col(TARGET).fill_null("")], separator="\t")).to_series()
        digest = hashlib.sha256()
        for start in range(0, len(lines), 100_000):
            digest.update(("\n".join(lines[start : start + 100_000].to_list()) + "\n").encode())
        return digest.hexdigest()


def user_values(
    held_out: HeldOut,
    ranks: np.ndarray,
    keys: pl.DataFrame,
    catalogue: pl.DataFrame | None,
    k: int,
    others: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> pl.DataFrame:
    """Return a row for each user: id, target, rank, hit and NDCG at k, slices, the baselines' ranks.

    Parameters
    ----------
    ranks
        int64 [U].
    keys
        U rows, as `slice_keys` gives them.
    catalogue
        V rows with `item_id`; None: targets stay codes.
    others
        By baseline int64 [U].
    """
    codes = held_out.targets.astype(np.int64)
    rows = pl.DataFrame({"code": codes}).select(pl.when(pl.col("code") > 0).then(pl.col("code") - 1)).to_series()
    ids = rows + 1 if catalogue is None else catalogue[ITEM_ID].gather(rows)
    own = pl.DataFrame(
        {
            USER_ID: held_out.histories.users,
            TARGET: ids,
            RANK: _known(ranks),
            metric_name("hit", k): (ranks <= k).astype(np.int8),
            metric_name("ndcg", k): per_user(ranks, "ndcg", k),
        }
    )
    baselines = [_known(theirs).alias(f"{RANK_OF}{name}") for name, theirs in others.items()]
    return own.hstack([*keys.get_columns(), *baselines])


def _known(ranks: np.ndarray) -> pl.Series:
    """Return ranks, null where there is none."""
    return pl.DataFrame({RANK: ranks}).select(pl.when(pl.col(RANK) < int(MISS)).then(pl.col(RANK))).to_series()


def with_stand_ins(values: UserValues, stand_in: Callable[[Any], str]) -> UserValues:
    """Return the same values with pseudonyms in the users' places; what has them stays as it is."""
    if values.about.get(STAND_INS):
        return values
    named = pl.Series(USER_ID, [stand_in(user) for user in values.frame[USER_ID]], dtype=pl.String)
    return UserValues(frame=values.frame.with_columns(named), about={**values.about, STAND_INS: True})


def to_parquet(values: UserValues) -> bytes:
    """Return the content of a file."""
    content = io.BytesIO()
    values.frame.write_parquet(content, metadata={_ABOUT: json.dumps(values.about)})
    return content.getvalue()


def from_parquet(content: bytes, where: str) -> UserValues:
    """Read the content of a file; `where` names it in errors.

    Raises
    ------
    InputError
        The file holds something else, or is damaged.
    """
    try:
        about = json.loads(pl.read_parquet_metadata(io.BytesIO(content))[_ABOUT])
        return UserValues(frame=pl.read_parquet(io.BytesIO(content)), about=about)
    except (pl.exceptions.PolarsError, OSError, KeyError, ValueError):
        raise InputError(f"{where} holds no values per user of an evaluation; evaluate again.") from None


def local_path(warehouse: str | Path, bundle: str | Path) -> Path:
    """Return the file of a bundle's newest evaluation: in its warehouse, or for a URL on this machine."""
    return local_folder(warehouse) / FOLDER / f"{Path(bundle).name}.parquet"


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    with writing(f"The file {path} of values per user"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            aside.write_bytes(content)


def forget(warehouse: str | Path, sought: Sought, *, dry_run: bool = False) -> int:
    """Remove users, and targets that are forgotten, from the values per user in a warehouse.

    A file that cannot be read, or that a kill left unfinished, is deleted: an evaluation writes it again. So is one
    that is older than the moment before which events are forgotten.

    Returns
    -------
    int
        Number of changed files.
    """
    changed = 0
    folder = local_folder(warehouse) / FOLDER
    for unfinished in folder.glob(f".*{WRITING}*"):
        if not dry_run:
            unfinished.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.parquet")):
        old = sought.before is not None and path.stat().st_mtime < sought.before.timestamp()
        try:
            values = from_parquet(path.read_bytes(), str(path))
            goes = sought.columns(values.frame.schema, USER_ID, TARGET)
            kept = values.frame.filter(~goes)
        except InputError:
            old = True
        if old or len(kept) < len(values.frame):
            changed += 1
        if old and not dry_run:
            path.unlink()
        elif not old and len(kept) < len(values.frame) and not dry_run:
            write_file(path, to_parquet(UserValues(frame=kept, about=values.about)))
    return changed
