"""Settings of `recsys pretrain`: several catalogues with their logs, and one Recformer or text-only sequence model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings import (
    FilterSettings,
    InteractionSettings,
    ItemSettings,
    ModelSettings,
    RecformerSettings,
    RunSettings,
    Section,
    Settings,
    Share,
    TextSettings,
    TrainSettings,
)
from recsys.settings.read import load_tree


class CatalogueSettings(Section):
    """One catalogue and its log; they get a warehouse of their own inside the configuration's."""

    interactions: InteractionSettings
    items: ItemSettings
    filter: FilterSettings = FilterSettings(min_user_interactions=3)
    # learn from whole histories: only where nobody is going to measure on their last two events
    whole: bool = False
    # never learnt from: how well its next items are told from others decides which weights are kept
    held_out: bool = False

    @model_validator(mode="after")
    def _items_have_text(self) -> Self:
        if not self.items.text:
            raise ValueError("items.text is empty; name the attributes that are read, in order")
        return self


class PretrainTrainSettings(Section):
    """Training of the weights."""

    steps: int = Field(default=4000, ge=1)  # of the optimizer; zero-shot quality peaks early
    batch_size: int = Field(default=64, ge=2)  # pairs of a history and its next item, in each process
    one_catalogue: bool = False  # a batch is of one catalogue: other shops' items are negatives that teach little
    learning_rate: float = Field(default=5e-5, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: Share = 0.05  # of all steps; then linear decay to zero
    clip_norm: float = Field(default=1.0, gt=0)  # of the global gradient
    mask_weight: float = Field(default=0.1, ge=0)  # of masked language modelling beside the contrastive loss
    mask_probability: float = Field(default=0.15, gt=0, lt=1)  # share of words hidden
    mask_share: float = Field(default=1.0, gt=0, le=1)  # of a batch that is masked; a quarter costs a quarter
    evaluate_every: int = Field(default=200, ge=1)  # (steps) between looks at the held-out catalogues
    evaluate_pairs: int = Field(default=1024, ge=2)  # of each held-out catalogue, drawn once
    patience: int = Field(default=6, ge=1)  # (looks) without a gain before training stops
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the processor multiplies it natively
    checkpoint_minutes: float = Field(default=2.0, ge=0)  # (minutes) between checkpoints, at least; 0: none


class PretrainSettings(RunSettings):
    """Everything that a pre-training depends on besides the tables."""

    catalogues: dict[str, CatalogueSettings] = Field(min_length=1)
    recformer: RecformerSettings = RecformerSettings()
    train: PretrainTrainSettings = PretrainTrainSettings()  # of a Recformer
    # a sequence model over text vectors instead of a Recformer; the next two sections are for it
    model: ModelSettings | None = None
    text: TextSettings = TextSettings()
    sequence: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _something_is_learnt_from(self) -> Self:
        if all(catalogue.held_out for catalogue in self.catalogues.values()):
            raise ValueError("every catalogue is held_out; leave at least one to learn from")
        return self

    @model_validator(mode="after")
    def _nothing_belongs_to_an_item(self) -> Self:
        model = self.model
        if model is not None and (
            model.ids or model.attributes or model.item_bias or model.text_adapter == "linear" or not model.recency_mean
        ):
            raise ValueError(
                'what passes from shop to shop needs model.kind = "bert4rec" with recency_mean = true, ids, attributes '
                'and item_bias = false, and a text_adapter of "identity", "mlp" or "experts"'
            )
        return self

    def catalogue(self, name: str) -> Settings:
        """The settings of one catalogue, as if it were a run of its own; whole histories are kept apart from these."""
        chosen = self.catalogues[name]
        return Settings(
            name=name,
            seed=self.seed,
            data_root=self.data_root,
            warehouse=f"{self.warehouse.rstrip('/')}/catalogues/{name}",
            interactions=chosen.interactions,
            items=chosen.items,
            filter=chosen.filter,
            recformer=self.recformer,
            text=self.text,
            tracking=self.tracking,
        )


def load_pretrain_settings(path: str | Path, overrides: Sequence[str] = ()) -> PretrainSettings:
    """Read a TOML file, apply `key.path=value` overrides and validate; errors as of `load_settings`."""
    return load_tree(PretrainSettings, path, overrides)
