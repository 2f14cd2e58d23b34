"""[text]: the frozen text encoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.settings.places import MODEL
from recsys.settings.section import Section


class TextSettings(Section):
    """The frozen text encoder."""

    model: Annotated[str, MODEL] = (
        "all-MiniLM-L6-v2"  # a hub id or a local folder; this one comes with the extra `offline`
    )
    # before each sentence: a prompt's name in the model's own settings, or the words; None: as the model says
    prompt: str | None = None
    truncate: int | None = Field(
        default=None, ge=1
    )  # the first so many dimensions (Matryoshka); None: as the model says
    batch_size: int = Field(default=256, ge=1)  # (sentences) the tokens of a batch are limited too
    max_tokens: int = Field(default=128, ge=8, le=512)  # longer sentences are cut, and counted
    # of one attribute, so that a long description leaves room for what follows; a Chinese or Thai character and a sign
    # are words too; cut ones are counted; None: all
    attribute_words: int | None = Field(default=None, ge=1)
    dimensions: int | None = Field(default=256, ge=8)  # after whitening; None: the encoder's own, not whitened
    # in the encoder's own axes, so that weights learnt over one catalogue's whitening fit another's; as wide as the
    # encoder's vectors
    aligned: bool = False
    whiten: bool = True  # all directions weigh the same; False: as much as they vary (PCA)
