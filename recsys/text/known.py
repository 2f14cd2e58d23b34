"""Identity and width of the configured text encoder, without its libraries where nothing changed.

To import sentence-transformers and to hash a model's weights takes five CPU seconds, which every step that reads text
vectors would pay to learn an id. A warehouse remembers the id under a fingerprint of all that it follows from: the
settings, the model's files, the libraries, this program and the processor. A model that is no folder has no
fingerprint, and is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recsys import runs
from recsys.errors import InputError
from recsys.features.model_source import EncoderError, find_model
from recsys.settings import Settings, TextSettings
from recsys.storage.files import file_aside, write_json
from recsys.storage.once import once

if TYPE_CHECKING:
    from recsys.features.text import Encoder

_FOLDER: Final = "encoders"  # beside the run states
_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "sentence-transformers", "numpy")
# variables that decide which products a processor is asked for; others of oneDNN's are set by importing torch here
_KNOBS: Final = (
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KnownEncoder:
    """Names and width of a text encoder, without its weights; see `recsys.features.text.Encoder`."""

    id: str
    model: str
    dimensions: int
    precision: str

    @classmethod
    def of(cls, encoder: Encoder) -> KnownEncoder:
        """The identity of an encoder that is loaded."""
        return cls(id=encoder.id, model=encoder.model, dimensions=encoder.dimensions, precision=str(encoder.precision))


def load(text: TextSettings) -> Encoder:
    """The configured text encoder.

    Raises
    ------
    InputError
        It cannot be loaded.
    """
    from recsys.features import text as encoders  # torch and more, which who encodes nothing is spared

    try:
        return encoders.load_encoder(text.model, max_tokens=text.max_tokens, prompt=text.prompt, truncate=text.truncate)
    except EncoderError as error:
        raise InputError(str(error)) from error


def known(settings: Settings, loaded: Callable[[], Encoder] | None = None) -> KnownEncoder:
    """Return what is known of the configured encoder; it is loaded where the warehouse does not remember it.

    Parameters
    ----------
    loaded
        Gives the encoder, for a caller who may need it as well.

    Raises
    ------
    InputError
        It cannot be loaded.
    """

    def read() -> KnownEncoder:
        path = _place(settings)
        if path is not None and (remembered := _remembered(path)) is not None:
            return remembered
        return remember(settings, (loaded or partial(load, settings.text))())

    return once("text encoder", settings.text.model_dump_json(), read)


def remembered(settings: Settings) -> KnownEncoder | None:
    """Return what is known of the configured encoder where it need not be loaded for that; None: nothing."""

    def refuse() -> Encoder:
        raise InputError(f"The text encoder {settings.text.model} would have to be loaded.")

    try:
        return known(settings, refuse)
    except InputError:  # or there is no such encoder
        return None


def remember(settings: Settings, encoder: Encoder) -> KnownEncoder:
    """Keep what is known of a loaded encoder for the next process; where the disk refuses, it is loaded again then."""
    told = KnownEncoder.of(encoder)
    path = _place(settings)
    with contextlib.suppress(OSError):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with file_aside(path) as aside:
                write_json(aside, asdict(told))
    return told


def _remembered(path: Path) -> KnownEncoder | None:
    try:
        told = KnownEncoder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none yet, or damaged
        return None
    sound = isinstance(told.id, str) and isinstance(told.dimensions, int)
    return told if sound else None


def _place(settings: Settings) -> Path | None:
    """Return where an encoder is remembered; None for one that has no fingerprint."""
    try:
        folder = Path(find_model(settings.text.model))
    except EncoderError as error:
        raise InputError(str(error)) from error
    if not folder.is_dir():
        return None
    parts: list[Any] = [
        settings.text.model_dump(mode="json"),
        sorted(_facts(path, folder) for path in folder.rglob("*") if path.is_file()),
        [_installed(name) for name in _LIBRARIES],
        runs.code_version(),
        _processor(),
    ]
    name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return runs.state_folder(settings.warehouse) / _FOLDER / f"{name}.json"


def _facts(path: Path, folder: Path) -> tuple[str, int, int, int]:
    """Return what changes with a file's content."""
    found = path.stat()
    return path.relative_to(folder).as_posix(), found.st_size, found.st_mtime_ns, found.st_ino


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> list[Any]:
    """Return what decides in which precision this machine computes."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        knobs = [os.environ.get(name) for name in _KNOBS]
        devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
        return [platform.machine(), flags, knobs, devices]
    return [platform.machine(), platform.processor(), platform.node()]
