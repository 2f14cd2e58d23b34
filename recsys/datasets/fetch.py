"""Public data sets: download the original, check size and checksum, unpack, put into place.

What is in place is complete: files are written aside, checked, and renamed. A file that is already there
and right is not downloaded again, so a file brought by hand on a machine without a network works the same.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from recsys.datasets.online_retail import to_parquet
from recsys.errors import InputError, RecsysError

CHUNK: Final = 1 << 20  # bytes
TIMEOUT: Final = 30  # seconds without a byte

Opener = Callable[[str], IO[bytes]]  # address -> an open, readable answer
Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all (None: not known)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a data set, or one that an archive holds.

    `checksum` is "algorithm:hex"; None where no checksum of the original is known.
    """

    name: str  # in the target folder
    size: int | None = None  # bytes
    checksum: str | None = None
    url: str = ""
    members: Mapping[str, RemoteFile] | None = None  # a zip archive: path inside it -> what it becomes
    convert: Callable[[Path, Path], None] | None = None  # of a member: writes the file from what the archive holds


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A public data set: its files, and what a user has to know."""

    files: tuple[RemoteFile, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FetchedFile:
    """A file that is in place."""

    path: str
    size: int  # bytes
    sha256: str
    downloaded: bool  # False: it was there already


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """Report of `fetch`."""

    name: str
    folder: str
    files: tuple[FetchedFile, ...]
    notes: tuple[str, ...]

    @property
    def downloaded(self) -> bool:
        """True when at least one file came over the network."""
        return any(file.downloaded for file in self.files)


_MOVIELENS: Final = (
    "MovieLens data may not be redistributed, nor used commercially, without GroupLens' permission; "
    "see the README in the folder."
)

DATA_SETS: Final[Mapping[str, DataSet]] = {
    "movielens-1m": DataSet(
        files=(
            RemoteFile(
                name="ml-1m.zip",
                url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                checksum="md5:c4d9eecfca2ab87c1945afe126590906",
                members={
                    "ml-1m/README": RemoteFile(name="README"),
                    "ml-1m/ratings.dat": RemoteFile(name="ratings.dat", size=24_594_131),
                    "ml-1m/movies.dat": RemoteFile(
                        name="movies.dat",
                        size=171_308,
                        checksum="sha256:5d2aada2756c775dc2cdf7f2017dbbc0041b55ba1fc3c1bf8d0c0018a20a6393",
                    ),
                    "ml-1m/users.dat": RemoteFile(
                        name="users.dat",
                        size=134_368,
                        checksum="sha256:1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3",
                    ),
                },
            ),
            # the log that SASRec, BERT4Rec and their successors measure on, users and items renumbered
            RemoteFile(
                name="ml-1m.txt",
                url="https://raw.githubusercontent.com/kang205/SASRec/master/data/ml-1m.txt",
                size=9_053_831,
                checksum="sha256:b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
            ),
            # its item numbers beside MovieLens' own, recovered by github.com/asash/ml1m-sas-mapping
            RemoteFile(
                name="item_ids.txt",
                url="https://raw.githubusercontent.com/asash/ml1m-sas-mapping/"
                "d27e2bf2021e12764e7bf7b985091edd7c8d2f79/sas_to_original_items.txt",
                size=32_109,
                checksum="sha256:9ae42c23af0b0fe2f189b9d5acc6cf3936bffe1a9568390cf5d100c0c1b1fca1",
            ),
            # the same for its users, whom MovieLens' users.dat describes
            RemoteFile(
                name="user_ids.txt",
                url="https://raw.githubusercontent.com/asash/ml1m-sas-mapping/"
                "d27e2bf2021e12764e7bf7b985091edd7c8d2f79/sas_to_original_users.txt",
                size=58_186,
                checksum="sha256:121893a66ab13fad83a67e12e3b3e6ddc56bcd01f0bcedf2ccb10bd8405e6239",
            ),
        ),
        notes=(_MOVIELENS,),
    ),
    "movielens-small": DataSet(
        files=(
            RemoteFile(
                name="ml-latest-small.zip",
                url="https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
                # no checksum is published for the archive, which has been packed anew: its files carry theirs
                members={
                    "ml-latest-small/ratings.csv": RemoteFile(
                        name="ratings.csv",
                        size=2_483_723,
                        checksum="sha256:aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
                    ),
                    "ml-latest-small/movies.csv": RemoteFile(
                        name="movies.csv",
                        size=494_431,
                        checksum="sha256:5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
                    ),
                    "ml-latest-small/tags.csv": RemoteFile(
                        name="tags.csv",
                        size=118_660,
                        checksum="sha256:92a9f8bb7916dceef6151209845788c3643f794dfa79d1feaec7121b5960399d",
                    ),
                    "ml-latest-small/links.csv": RemoteFile(
                        name="links.csv",
                        size=197_979,
                        checksum="sha256:97ad18e4e56a09363c65676b6cb3482ce3e2cea2372a24620c1599c843325f31",
                    ),
                    "ml-latest-small/README.txt": RemoteFile(
                        name="README.txt",
                        size=8_342,
                        checksum="sha256:63d22ac138e80fae37021797ed8e1b9424b5239dc576a137422adf783ae3f404",
                    ),
                },
            ),
        ),
        notes=(_MOVIELENS,),
    ),
    "online-retail": DataSet(
        files=(
            RemoteFile(
                name="online_retail_II.zip",
                url="https://archive.ics.uci.edu/static/public/502/online+retail+ii.zip",
                # UCI publishes neither size nor checksum, and what we measured on came another way: neither is checked
                members={"online_retail_II.xlsx": RemoteFile(name="transactions.parquet", convert=to_parquet)},
            ),
        ),
        notes=(
            "Online Retail II by Daqing Chen, UCI Machine Learning Repository, CC BY 4.0: name the source where you "
            "show results.",
            "No size or checksum of the original is published, so it was not checked; it should give 1,067,371 rows.",
        ),
    ),
    "amazon-beauty": DataSet(
        files=(
            RemoteFile(
                name="Beauty.txt",
                url="https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/master/data/Beauty.txt",
                size=1_090_094,
                checksum="sha256:226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
            ),
        ),
        notes=(
            "This is the log alone: the items' texts have no public original under these item numbers. Put a "
            "catalogue of your own beside it as items.jsonl, a line an item: "
            '{"id": 1, "title": "...", "attributes": ["...", "..."]}, '
            "or run the configuration without items: --set items=none.",
            "The Amazon data carry no licence statement.",
        ),
    ),
}


def fetch(
    name: str,
    folder: str | Path | None = None,
    *,
    opener: Opener | None = None,
    progress: Progress | None = None,
    data_sets: Mapping[str, DataSet] = DATA_SETS,
) -> FetchReport:
    """Bring a public data set into a folder, checked.

    Parameters
    ----------
    name
        A key of `data_sets`.
    folder
        Created when missing; `data/<name>` when not given.
    opener
        Opens an address for reading; by default over the network.
    progress
        Called with (file name, bytes so far, bytes in all or None).

    Raises
    ------
    InputError
        There is no data set of this name.
    RecsysError
        No network, a wrong size or checksum, a broken archive, no room. Nothing wrong is left in the folder.
    """
    if name not in data_sets:
        raise InputError(f"There is no data set {name!r}; there are {', '.join(sorted(data_sets))}.")
    folder = Path(folder) if folder is not None else Path("data") / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetched = []
        missing = [file for file in data_sets[name].files if _is_missing(file, folder)]
        by_hand = (
            f"without a network, bring another way and put into {folder}: {'; '.join(map(_told, missing))}; "
            "then run the command again, which checks them"
        )
        for file in data_sets[name].files:
            wanted = file in missing
            if wanted:
                _bring(file, folder, opener or _open, progress, by_hand)
            fetched += [
                FetchedFile(
                    path=(folder / part.name).as_posix(),
                    size=(folder / part.name).stat().st_size,
                    sha256=_digest(folder / part.name, "sha256"),
                    downloaded=wanted,
                )
                for part in _parts(file)
            ]
    except OSError as error:
        reason = error.strerror or error
        raise RecsysError(f"{folder} cannot be written: {reason}; name another folder.") from None
    return FetchReport(name=name, folder=folder.as_posix(), files=tuple(fetched), notes=data_sets[name].notes)


def _parts(file: RemoteFile) -> list[RemoteFile]:
    """The file itself, or what it becomes unpacked."""
    return [file] if file.members is None else list(file.members.values())


def _is_missing(file: RemoteFile, folder: Path) -> bool:
    return any(_problem(folder / part.name, part) for part in _parts(file))


def _bring(file: RemoteFile, folder: Path, opener: Opener, progress: Progress | None, by_hand: str) -> None:
    """Put one file, or what one archive holds, into place; `by_hand` says what to do where that fails."""
    target = folder / file.name
    if file.members is not None and target.is_file() and not _problem(target, file):
        _unpack(target, file, folder)  # brought by hand; it stays
        return
    aside = _aside(target)
    try:
        _download(file, aside, opener, progress, by_hand)
        if file.members is None:
            aside.replace(target)
        else:
            _unpack(aside, file, folder)
    finally:
        aside.unlink(missing_ok=True)


def _download(file: RemoteFile, aside: Path, opener: Opener, progress: Progress | None, by_hand: str) -> None:
    """Write the answer to `aside` and check it."""
    with aside.open("wb") as out:
        try:
            with opener(file.url) as answer:
                length = getattr(answer, "headers", {}).get("Content-Length")
                total = file.size or (int(length) if length and length.isdigit() else None)
                done = 0
                while chunk := answer.read(CHUNK):
                    done += len(chunk)
                    if file.size is not None and done > file.size:
                        break  # the check below says so
                    out.write(chunk)
                    if progress is not None:
                        progress(file.name, done, total)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise RecsysError(f"{file.url} cannot be downloaded ({_plain(reason)}); {by_hand}.") from None
    problem = _problem(aside, file)
    if problem:
        raise RecsysError(f"{file.url} is not the expected file: {problem}; nothing was kept; {by_hand}.")


def _unpack(archive: Path, file: RemoteFile, folder: Path) -> None:
    """Extract the table's members to the table's names; the archive's own paths are not used."""
    assert file.members is not None
    done: list[tuple[Path, Path]] = []
    try:
        with zipfile.ZipFile(archive) as opened:
            for path, part in file.members.items():
                aside = _aside(folder / part.name)
                done.append((aside, folder / part.name))
                size = opened.getinfo(path).file_size
                if part.size is not None and size != part.size:
                    raise RecsysError(_refused(path, file, f"got {size} bytes, expected {part.size}"))
                with opened.open(path) as source, aside.open("wb") as out:
                    shutil.copyfileobj(source, out, CHUNK)
                # an archive with the right checksum needs no other proof
                problem = None if file.checksum else _problem(aside, part)
                if problem:
                    raise RecsysError(_refused(path, file, problem))
                if part.convert is not None:
                    converted = _aside(folder / f"{part.name}.converted")
                    done.append((converted, folder / part.name))
                    part.convert(aside, converted)
                    aside.unlink()
                    done.remove((aside, folder / part.name))
        for aside, target in done:
            aside.replace(target)
    except KeyError as error:
        raise RecsysError(f"{file.url} lacks a file: {error.args[0]}; nothing was kept.") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise RecsysError(f"{file.url} is not a readable zip archive: {error}; nothing was kept.") from None
    finally:
        for aside, _ in done:
            aside.unlink(missing_ok=True)


def _problem(path: Path, expected: RemoteFile) -> str | None:
    """Return what is wrong with a file, in words; None when it is as expected."""
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    if expected.size is not None and size != expected.size:
        return f"got {size} bytes, expected {expected.size}"
    if expected.checksum is not None:
        algorithm, wanted = expected.checksum.split(":")
        got = _digest(path, algorithm)
        if got != wanted:
            return f"got {algorithm} {got}, expected {wanted}"
    return None


def _refused(path: str, archive: RemoteFile, problem: str) -> str:
    return (
        f"{path} in {archive.name} of {archive.url} is not the expected file: {problem}; nothing was kept, "
        "and the original may have been published anew."
    )


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _told(file: RemoteFile) -> str:
    """Name, and in brackets address, size and checksum as far as they are known, and what an archive holds."""
    known = [file.url] if file.url else []
    known += [f"{file.size} bytes"] if file.size is not None else []
    known += [file.checksum.replace(":", " ")] if file.checksum else []
    unpacked = f" or, unpacked, its {', '.join(map(_told, _parts(file)))}" if file.members else ""
    return file.name + (f" ({', '.join(known)})" if known else "") + unpacked


def _plain(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _open(url: str) -> IO[bytes]:
    request = urllib.request.Request(url, headers={"User-Agent": "recsys-fetch"})
    answer: IO[bytes] = urllib.request.urlopen(request, timeout=TIMEOUT)
    return answer
