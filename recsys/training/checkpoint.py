"""Checkpoints of a training on disk, so that a killed one goes on from there.

A checkpoint is two files in a folder: `<n>.safetensors` holds the tensors, `<n>.json` everything else, the sha256 of
the tensors' file and its own. Each is written aside, synchronised to disk and renamed, the JSON last: it makes the
checkpoint. The one before stays until the next is there, so a whole one can be read whenever the process dies. No
pickle: optimizer states and random generators are tensors, numbers and text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from recsys import runs
from recsys.errors import first_line
from recsys.storage.files import file_aside, refusal, sha256, write_json

_log = logging.getLogger("recsys")
KEPT: Final = 2  # checkpoints in a folder
SHARE: Final = 0.02  # of the training's time that writing checkpoints may take
FORGOTTEN_AFTER: Final = 7 * 86_400  # seconds; older ones belong to trainings that nobody took up again


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    folder
        Of this training alone: its name must stand for everything that decides the result.
    seconds
        Between two checkpoints, at least.
    share
        Of the time that writing may take: after a checkpoint that took `t` seconds the next one comes `t / share`
        seconds later or more.
    """

    def __init__(self, folder: Path, *, seconds: float, share: float = SHARE) -> None:
        self.folder, self.seconds, self.share = folder, seconds, share
        self._next = time.monotonic() + seconds
        self._told = False  # that the disk takes none

    def due(self) -> bool:
        """Return whether it is time for the next one."""
        return time.monotonic() >= self._next

    def save(self, state: Mapping[str, Any]) -> bool:
        """Write a state: a tree of dicts, lists and tuples with tensors, numbers, text and None.

        Returns
        -------
        bool
            False where the disk did not take it: training is worth more than its checkpoint.
        """
        began = time.monotonic()
        try:
            self._write(state)
        except (OSError, SafetensorError) as error:
            for left in self.folder.glob(".*.writing"):  # of no use, and the disk may be full
                left.unlink(missing_ok=True)
            if not self._told:
                self._told = True
                reason = refusal(error) or first_line(error)
                _log.warning("No checkpoint can be written in %s: %s; training goes on.", self.folder, reason)
            return False
        finally:
            now = time.monotonic()
            self._next = now + max(self.seconds, (now - began) / self.share)
        return True

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, its tensors on the CPU; None where there is none."""
        for number in reversed(self._numbers()):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, SafetensorError):
                return self._read(number)
        return None

    def remove(self) -> None:
        """Delete all of them; the training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, state: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        older = self._numbers()
        number = max(older, default=0) + 1
        tensors: dict[str, Tensor] = {}
        tree = _pack(state, "", tensors, {})
        storages = set()
        for name, tensor in tensors.items():  # safetensors takes none that share memory, as tied weights do
            storage = tensor.untyped_storage().data_ptr()
            tensors[name] = tensor.clone() if storage in storages else tensor
            storages.add(storage)
        with file_aside(self.folder / f"{number}.safetensors") as aside:
            safetensors.torch.save_file(tensors, aside)
            content = {"tensors": sha256(aside), "state": tree}
        with file_aside(self.folder / f"{number}.json") as aside:
            write_json(aside, {"sha256": _digest(content), **content})
        kept = {*older[len(older) - KEPT + 1 :], number}
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in map(str, kept):
                path.unlink(missing_ok=True)

    def _read(self, number: int) -> dict[str, Any]:
        content = json.loads((self.folder / f"{number}.json").read_bytes())
        expected = content.pop("sha256")
        path = self.folder / f"{number}.safetensors"
        if _digest(content) != expected or sha256(path) != content["tensors"]:
            raise ValueError(f"checkpoint {number} is damaged")
        # cloned: out of the mapped file, and aligned as torch aligns
        tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
        state: dict[str, Any] = _unpack(content["state"], tensors)
        return state

    def _numbers(self) -> list[int]:
        """Return the checkpoints that were written to the end, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdecimal())


def checkpoints_of(warehouse: str, kind: str, parts: Sequence[Any], minutes: float) -> Checkpoints | None:
    """The checkpoints of one training, in a folder whose name stands for everything that decides its result.

    Folders of trainings of this kind that nobody took up again are deleted.

    Parameters
    ----------
    kind
        The folder beside the warehouse's run states, such as "training".
    parts
        What decides the result besides the program's own code, JSON-friendly.
    minutes
        Between two checkpoints, at least; 0: None is returned.
    """
    if not minutes:
        return None
    key = hashlib.sha256(json.dumps([*parts, runs.code_version()]).encode()).hexdigest()
    parent = runs.state_folder(warehouse) / kind
    forget_old(parent)
    return Checkpoints(parent / key[:32], seconds=60 * minutes)


def forget_old(parent: Path) -> None:
    """Delete the folders in `parent` that no checkpoint was written to for a week."""
    for folder in parent.glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > FORGOTTEN_AFTER:
                shutil.rmtree(folder)


def _pack(tree: Any, path: str, tensors: dict[str, Tensor], known: dict[tuple[Any, ...], str]) -> Any:
    """The tree as JSON; its tensors go to `tensors` under their paths. Dicts keep keys that are no text.

    A tensor that is in several places of the tree goes once; `known` has its path by its place in memory.
    """
    if isinstance(tree, Tensor):
        first = known.setdefault((tree.device, tree.data_ptr(), tree.dtype, tree.shape, tree.stride()), path)
        if first == path:
            tensors[path] = tree.detach().cpu().contiguous()
        return {"tensor": first}
    if isinstance(tree, Mapping):
        return {"dict": [[key, _pack(value, f"{path}/{key}", tensors, known)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_pack(value, f"{path}/{place}", tensors, known) for place, value in enumerate(tree)]}
    if isinstance(tree, float):
        return {"float": tree.hex()}  # every bit, and also what JSON has no number for
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    raise TypeError(f"a checkpoint cannot hold {path}, which is of type {type(tree).__name__}")


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "float":
        return float.fromhex(value)
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value}
    items = [_unpack(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
