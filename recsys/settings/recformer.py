"""[recformer]: what a Recformer starts from and how it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from recsys.settings.places import MODEL
from recsys.settings.section import Dropout, Section


class RecformerSettings(Section):
    """Recformer: what it starts from and how it reads. [train] says how it is fine-tuned.

    A Recformer that it starts from brings its tokenizer, network, pooling and window along; `max_items` and
    `max_tokens` may differ.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "places": "positions",
        "apart": "cross_item_bias",
        "follows": "transition_maps",
        "train_words": "train_token_embeddings",
    }

    # a folder that `recsys pretrain` wrote (or its name without the hash: the newest), a bundle, or a checkpoint of a
    # BERT, RoBERTa or Longformer (a folder or a hub id); None: from nothing, with a tokenizer of its own
    init: Annotated[str | None, MODEL] = None
    max_items: int = Field(default=16, ge=1)  # of a history, the newest
    max_tokens: int = Field(default=256, ge=8)  # of a history; what does not fit is the oldest
    attribute_tokens: int = Field(default=32, ge=2)  # of one attribute of an item, its name's included
    layers: int | None = Field(default=None, ge=1)  # a checkpoint's first so many, None: all; from nothing: 2
    window: int | None = Field(default=None, ge=2)  # (tokens) that attention sees around each; None: all
    # The next four at their defaults are as published. For a sentence encoder such as MiniLM they are better set to
    # "item", 4.0, "items" and 256: it then begins where the untrained text recommender is.
    positions: Literal["history", "item"] = "history"  # token positions begin anew with each history, or with each item
    # attention between tokens of different items starts lower by this; learned
    cross_item_bias: float | None = Field(default=None, ge=0)
    pooling: Literal["first", "items"] = "first"  # the vector: the first token's state, or a weighted sum of the items'
    whitened: int | None = Field(default=None, ge=8)  # dimensions of a projection that begins as whitening; None: none
    # a projection that the model brings along is whitened anew by what this catalogue holds, in the axes it has learnt;
    # needs `whitened`
    aligned: bool = False
    embeddings: bool = True  # of item positions and token types; False to see what they are worth
    dropout: Dropout = 0.1
    vocabulary: int = Field(default=8192, ge=300)  # from nothing: tokens of its tokenizer
    dimensions: int = Field(default=128, ge=8)  # from nothing: width; the feed-forward's is four times that
    heads: int = Field(default=4, ge=1)  # from nothing
    temperature: float = Field(default=0.05, gt=0)  # cosines are divided by it
    # in stage one the items that a batch asks for learn with the histories, by pre-training's contrast among them;
    # published: items are what the last epoch's end made of them, and learn from nothing
    live_items: bool = False
    # a history's vector gets two learned linear maps, zero at first, of itself and of its newest item's: what follows
    # is not what is alike; needs pooling = "items"
    transition_maps: bool = False
    # epochs that fit all but the language model to its item vectors as they are, a minute's work, before it moves
    probe_epochs: int = Field(default=0, ge=0)
    train_token_embeddings: bool = False  # the token embedding learns too
    accumulate: int = Field(default=1, ge=1)  # batches to one step of the optimizer
    recompute: bool = False  # activations in the backward pass instead of keeping them: slower, less memory
    fine_tune: bool = True  # False: zero-shot, with the weights that it starts from
    # epochs with the item table of the best first-stage epoch kept as it is; 0: no second stage
    second_stage_epochs: int = Field(default=8, ge=0)
    second_stage_patience: int = Field(default=3, ge=1)  # (validations)
    validation_users: int | None = Field(default=2000, ge=1)  # drawn once for all validations; None: all users

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.dimensions % self.heads:
            raise ValueError(f"dimensions = {self.dimensions} must be divisible by heads = {self.heads}")
        if self.cross_item_bias is not None and self.window is not None:
            raise ValueError(
                f"cross_item_bias = {self.cross_item_bias} needs attention over the whole history; leave window out"
            )
        if self.transition_maps and self.pooling != "items":
            raise ValueError(f'transition_maps = true needs pooling = "items", not {self.pooling!r}')
        if self.aligned and self.whitened is None:
            raise ValueError("aligned = true needs whitened, the width of the projection; set it, or leave aligned out")
        if self.probe_epochs and self.pooling != "items":
            raise ValueError(f'probe_epochs = {self.probe_epochs} needs pooling = "items", not {self.pooling!r}')
        return self
