"""Text encoding as work for any process: it takes a chunk of sentences and returns their vectors."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.columns import SENTENCE
from recsys.errors import RecsysError
from recsys.settings import TextSettings
from recsys.text.known import load

if TYPE_CHECKING:
    from recsys.features.text import Encoded, Encoder


def encode(encoder: Encoder, sentences: list[str], **options: Any) -> Encoded:
    """As `recsys.features.text.encode`."""
    from recsys.features import text  # torch and more, which who encodes nothing is spared

    return text.encode(encoder, sentences, **options)


@dataclass(frozen=True, eq=False)
class Encoding:
    """Work on a chunk: a frame with the column `sentence` in, `Encoded` out.

    Another process loads the encoder itself, at its first chunk, and refuses where it is not the same one.

    Attributes
    ----------
    loaded
        Gives the encoder, the same one each time.
    progress
        Called with (sentences done, all) of the chunk, in this process alone.
    """

    text: TextSettings
    loaded: Callable[[], Encoder]
    progress: Callable[[int, int], None] | None = None

    def __call__(self, chunk: pl.DataFrame) -> Encoded:
        """Encode a chunk."""
        sentences = chunk[SENTENCE].to_list()
        return encode(self.loaded(), sentences, batch_size=self.text.batch_size, progress=self.progress)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send to another process the settings, and the encoder's identity."""
        model = Path(self.text.model)
        text = self.text.model_copy(update={"model": str(model.absolute())}) if model.is_dir() else self.text
        return _elsewhere, (text, self.loaded().id)


def _elsewhere(text: TextSettings, expected: str) -> Encoding:
    return Encoding(text, cache(partial(_same, text, expected)))


def _same(text: TextSettings, expected: str) -> Encoder:
    encoder = load(text)
    if encoder.id != expected:
        raise RecsysError(
            f"The text encoder {text.model} is another one on the machine {platform.node()} ({encoder.id}, "
            f"{encoder.precision}) than where the run began ({expected}): its files or the kind of processor differ; "
            "use machines of one kind, with the same files."
        )
    return encoder
