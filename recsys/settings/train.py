"""[train]: training of the sequence encoder."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from recsys.settings.places import MODEL
from recsys.settings.section import Section, Share

PREVIOUS: Final = "previous"  # as `train.warm_start`: the newest bundle of the configuration's name


class TrainSettings(Section):
    """Training of the sequence encoder."""

    epochs: int = Field(default=40, ge=0)  # (0 or more) 0: the model as it starts, zero-shot after train.warm_start
    users: float = Field(
        default=1.0, gt=0, le=1
    )  # share of the training users, drawn by the seed, that model and blend know
    batch_size: int = Field(default=64, ge=1)  # (histories) small logs need many small steps: 16 for hundreds of users
    learning_rate: float = Field(default=1.5e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: Share = 0.05  # of all steps; then cosine decay to a tenth of the rate
    clip_norm: float = Field(default=1.0, gt=0)  # of the global gradient
    mask_probability: float = Field(default=0.3, gt=0, lt=1)  # cloze: share of positions hidden
    mask_last_share: Share = 0.1  # cloze: share of histories cut after a random event, which alone is hidden
    last_weight: float = Field(default=1.0, gt=0)  # cloze: how much the label of such a history counts
    next_item_share: Share = 0.5  # cloze: share of the epochs, the first, that ask for the next item; warm: half of it
    average_decay: float = Field(default=0.99, ge=0, lt=1)  # of the weights' moving average; 0: none
    evaluate_every: int = Field(default=5, ge=1)  # (epochs) between validations
    # validation users that are ranked, drawn once by the seed; None: all, or as many as 2 * 10^9 scores of users and
    # items allow (a million items: 2,000)
    validation_users: int | None = Field(default=None, ge=1)
    patience: int = Field(default=6, ge=1)  # (validations) without a gain before training stops
    # softmax over the catalogue, or over a sample of it; binary over negatives; auto: full below 50,000 items, sampled
    # from there on (a Recformer: full)
    loss: Literal["auto", "full", "sampled", "gbce"] = "auto"
    # gbce: items drawn for each history, None: 256; sampled: for the whole batch, beside the items that it asks for,
    # None: 2,048
    negatives: int | None = Field(default=None, ge=1)
    # items without training interactions compete, too, and so learn to rank low; False: content alone places them
    cold_negatives: bool = True
    calibration: Share = 0.75  # gbce: 0 is plain binary cross-entropy, 1 gives calibrated probabilities
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the processor multiplies it natively
    # what is served knows the held-out events, too. "counts": the blend's sources are fitted again on all events;
    # "all": so is the model, for as long as was best on validation; "none": the bundle that was measured is served
    refit: Literal["all", "counts", "none"] = "all"
    checkpoint_minutes: float = Field(default=1.0, ge=0)  # (minutes) between checkpoints, at least; 0: none
    # where weights come from: a bundle's folder (or without its hash the newest), or "previous", the newest bundle of
    # this name; None: from nothing
    warm_start: Annotated[str | None, MODEL] = None
    warm_epochs: int | None = Field(default=None, ge=1)  # after a warm start; None: a third of epochs
    # (0 to 1) of the training events, those that came since the "previous" bundle: above it training starts from
    # nothing. A log that grew by half (.33) trains better warm, one that doubled (.5) better from nothing
    warm_share: Share = 0.4

    @field_validator("refit", mode="before")
    @classmethod
    def _none_is_a_name(cls, value: Any) -> Any:
        return "none" if value is None else value  # `--set train.refit=none` says null elsewhere
