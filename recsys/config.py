"""One frozen settings tree; recsys/config_file.py reads it from TOML.

Every path in a configuration is relative to the working directory; data sources are relative to `data_root`.
Each key carries a comment in the form `(unit or range) meaning`. What a comment calls None is written "none".
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from recsys.features.declaration import Feature, check_features

Format = Literal["csv", "jsonl", "json", "parquet", "delta", "sequences"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
Context = Literal["event", "hour", "weekday", "gap", "weight"]
RESERVED = ("item_id", "user_id", "title", "sentence")  # columns of prepared tables, which no attribute can be


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), str_strip_whitespace=False)

    @model_validator(mode="before")
    @classmethod
    def _none_takes_away(cls, given: Any) -> Any:
        """TOML has no word for nothing: "none" is it, for what may be None."""
        if not isinstance(given, dict):
            return given
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {name: None if name in optional and value == "none" else value for name, value in given.items()}


class Condition(_Section):
    """A condition on a row of a source: one column and one test. A missing value passes no other test."""

    column: str  # of the source, by the source's own name
    starts_with: str | None = None  # the value as text begins with this
    matches: str | None = None  # a regular expression is found in the value as text; Rust's: no look-around
    one_of: tuple[bool | str | int | float, ...] | None = None  # the value as text is one of these
    below: float | None = None  # the value as a number; text that is no number passes none of the four
    at_most: float | None = None
    above: float | None = None
    at_least: float | None = None
    missing: bool | None = None  # true: there is no value, or a blank one; false: there is one

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        given = [test for test in CONDITION_TESTS if getattr(self, test) is not None]
        if len(given) != 1:
            has = " and ".join(given) or "none"
            raise ValueError(f"a condition on {self.column!r} needs one test, not {has}: {', '.join(CONDITION_TESTS)}")
        if self.matches is not None:
            problem = pattern_problem(self.matches)
            if problem is not None:
                raise ValueError(f"matches = {self.matches!r} is no regular expression that can be run: {problem}")
        return self

    @property
    def test(self) -> str:
        """The name of its test."""
        return next(test for test in CONDITION_TESTS if getattr(self, test) is not None)

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"column": self.column, self.test: getattr(self, self.test)}

    def __str__(self) -> str:
        test, value = self.test, getattr(self, self.test)
        value = list(value) if isinstance(value, tuple) else value
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        return f"{self.column} {test} {json.dumps(value, ensure_ascii=False)}"


CONDITION_TESTS = tuple(name for name in Condition.model_fields if name != "column")


def pattern_problem(pattern: str) -> str | None:
    """Return what the engine that runs regular expressions (Rust's, by polars) has against one, in a line; or None."""
    import polars as pl  # here, because most commands that read settings run no expression

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        lines = str(error).splitlines()
        told = next((line for line in lines if line.startswith("error: ")), lines[0])
        return told.removeprefix("regex ").removeprefix("error: ").rstrip(".")
    return None


def group_count(pattern: str) -> int:
    """Count the groups of a regular expression that the engine can run."""
    import polars as pl

    return len(pl.Series([""]).str.extract_groups(pattern).struct.fields)


class SourceSettings(_Section):
    """Where a table's rows come from and how to read them."""

    source: str | tuple[str, ...]  # a path, a glob or a list of them; local, s3://, gs://, abfss://
    format: Format | None = None  # None: by the file's extension
    separator: str = ","  # csv only: any string, "::" too
    # csv only: what stands before the fraction of weights, numeric attributes and the numbers that conditions look at
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"  # csv, jsonl, sequences: "utf-8", "latin-1", ... any codec that Python knows
    # csv only: the fields' names, for a file without a header line
    fields: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    max_rejected_share: Share = 0.01  # (0 to 1) more rejected rows than this stop the run
    drop: tuple[Condition, ...] = ()  # rows that meet one of these are left out before they are judged, and counted

    @model_validator(mode="after")
    def _source_is_named(self) -> Self:
        if not self.sources or "" in self.sources:
            raise ValueError(f"source = {self.source!r} names no file; give a path, a glob or a list of them")
        return self

    @model_validator(mode="after")
    def _decimals_are_not_separators(self) -> Self:
        tabs = self.format is None and all(".tsv" in source.lower() for source in self.sources)
        if self.decimal == self.separator == "," and self.format in (None, "csv") and not tabs:
            raise ValueError('decimal = "," is the separator, too; set one of the two to what it is')
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The declared sources, always as a tuple."""
        return (self.source,) if isinstance(self.source, str) else self.source


class InteractionSettings(SourceSettings):
    """The interaction log."""

    columns: dict[Literal["user_id", "item_id", "timestamp", "event", "weight"], str] = {}  # ours = theirs
    time_unit: Literal["auto", "s", "ms", "us"] = "auto"  # of numeric times; "auto" decides by magnitude
    # strftime pattern of written times ("%d.%m.%Y %H:%M"), or a list: the first that fits counts; None: ISO 8601
    time_format: str | tuple[str, ...] | None = None
    timezone: str | None = None  # of times written without a zone; without it such a time is rejected
    # a row that meets one of these is no event: it takes back its user's newest earlier event with its item (where the
    # log has weights, once as much is taken back as the event weighs), as a cancelled invoice does; the rows of a file
    # with one user, item, time and event are lines of one order then: their weights are added, equal ones once
    withdraw: tuple[Condition, ...] = ()

    @property
    def time_formats(self) -> tuple[str, ...]:
        """The declared patterns, always as a tuple."""
        given = self.time_format
        return () if given is None else (given,) if isinstance(given, str) else given


class AttributeSettings(_Section):
    """One attribute of an item or of a user."""

    column: str | None = None  # of the source; None: the one of the attribute's own name
    pattern: str | None = None  # a regular expression whose first group is the value; None: all of the text
    look_ups: int | None = Field(default=None, ge=1, le=8)  # rows of the table a value; None: model.attribute_lookups

    @model_validator(mode="after")
    def _pattern_has_a_group(self) -> Self:
        if self.pattern is None:
            return self
        problem = pattern_problem(self.pattern)
        if problem is not None:
            raise ValueError(f"pattern = {self.pattern!r} is no regular expression that can be run: {problem}")
        if not group_count(self.pattern):
            raise ValueError(f"pattern = {self.pattern!r} has no group; put what is the value into brackets")
        return self


class CategoricalSettings(AttributeSettings):
    """One categorical attribute: a value, or several."""

    kind: Literal["multi", "single"] = "multi"  # single: at most one value, as crosses need it
    separator: str | None = None  # multi: splits one string into several values ("a|b")
    pooling: Literal["mean", "sum", "attention"] = "mean"  # multi: how the vectors of several values become one

    @model_validator(mode="after")
    def _single_is_not_split(self) -> Self:
        if self.kind == "single" and self.separator is not None:
            raise ValueError(f'separator = {self.separator!r} splits what kind = "single" says is one value; drop one')
        return self


class NumericSettings(AttributeSettings):
    """One numeric attribute: its bucket is looked up, with about equally many training values in each."""

    buckets: int = Field(default=32, ge=2, le=10_000)


class CrossSettings(_Section):
    """The combination of several attributes as one more."""

    of: Annotated[tuple[str, ...], Field(min_length=2)]  # numeric ones, and categorical ones of kind "single"
    look_ups: int | None = Field(default=None, ge=1, le=8)  # None: model.attribute_lookups


class IdMapSettings(_Section):
    """A file that translates the ids of items or users into the log's."""

    source: str  # each line: the log's id, the other id
    separator: str = " "
    format: Literal["csv", "json"] = "csv"  # json: one object, the other ids = the log's


class AttributedSettings(SourceSettings):
    """A table of items or of users, and which of its columns become features of the multiplexed table."""

    categorical: dict[str, CategoricalSettings] = {}
    numeric: dict[str, NumericSettings] = {}
    crosses: dict[str, CrossSettings] = {}
    id_map: IdMapSettings | None = None
    # of the rows of one reading that share an id: the last, or of each attribute the value that most of them have (of
    # equals the last), as a log needs that is its own catalogue; another reading's rows replace them in either case
    several: Literal["last", "most-frequent"] = "last"

    @model_validator(mode="after")
    def _features_fit_together(self) -> Self:
        for kind in ("categorical", "numeric", "crosses"):
            for name in getattr(self, kind):
                if name in RESERVED:
                    raise ValueError(
                        f"{kind} cannot hold {name!r}, which is a name of ours; call the attribute something else and "
                        f"name its column: {{ column = {name!r} }}"
                    )
        if self.categorical or self.numeric or self.crosses:
            self.features(1)
        return self

    def features(self, lookups: int, prefix: str = "") -> tuple[Feature, ...]:
        """The declared features: categorical ones, numeric ones, crosses.

        Parameters
        ----------
        lookups
            Of those that do not say how many.
        prefix
            Before each name, which salts the look-ups: a user's country and an item's are two features.

        Raises
        ------
        ValueError
            They do not make sense together; names one.
        """
        found = [
            Feature(name=prefix + name, lookups=of.look_ups or lookups, kind=of.kind, pooling=of.pooling)
            for name, of in self.categorical.items()
        ]
        found += [
            Feature(name=prefix + name, lookups=of.look_ups or lookups, kind="numeric", buckets=of.buckets)
            for name, of in self.numeric.items()
        ]
        found += [
            Feature(
                name=prefix + name,
                lookups=of.look_ups or lookups,
                kind="crossed",
                of=tuple(prefix + part for part in of.of),
            )
            for name, of in self.crosses.items()
        ]
        return check_features(found) if found else ()


class ItemSettings(AttributedSettings):
    """The item catalogue."""

    columns: dict[Literal["item_id"], str] = {}
    text: tuple[str, ...] = ()  # attributes of the item's sentence, in order; the first one is the title


class UserSettings(AttributedSettings):
    """User attributes; kept in the `users` table."""

    columns: dict[Literal["user_id"], str] = {}


class FilterSettings(_Section):
    """Which interactions count."""

    min_user_interactions: int = Field(default=1, ge=1)  # iterative k-core together with the next
    min_item_interactions: int = Field(default=1, ge=1)
    min_weight: float | None = None  # interactions with a lower weight are dropped
    events: tuple[str, ...] | None = None  # None: every event counts
    repeats: Literal["keep", "first", "last"] = "keep"  # a user's repeated item: all, the first, the last


class SplitSettings(_Section):
    """What is held out for validation and test."""

    strategy: Literal["leave-one-out", "time"] = "leave-one-out"
    # a user's events at one time: events in the log's order, or one step without an order, as a shop's basket is; it is
    # held out whole, and training by next items asks for one of the next basket
    same_time: Literal["order", "basket"] = "order"
    test_from: datetime | None = None  # time: the cut-off; None: the fractions below decide
    validation_from: datetime | None = None
    test_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)  # time: share of interactions after the cut
    validation_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)

    @model_validator(mode="after")
    def _cut_offs_have_a_zone(self) -> Self:
        for name in ("test_from", "validation_from"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                raise ValueError(f"{name} = {value.isoformat()} has no time zone; write {value.isoformat()}Z")
        if self.test_from and self.validation_from and self.validation_from >= self.test_from:
            raise ValueError(
                f"validation_from = {self.validation_from.isoformat()} must lie before "
                f"test_from = {self.test_from.isoformat()}"
            )
        return self


class TextSettings(_Section):
    """The frozen text encoder."""

    model: str = "all-MiniLM-L6-v2"  # a hub id or a local folder; this one comes with the extra `offline`
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


class ModelSettings(_Section):
    """The item tower and the sequence encoder."""

    kind: Literal["bert4rec", "text", "recformer"] = "bert4rec"
    dimensions: int = Field(default=128, ge=8)  # width of item vectors and of the encoder
    blocks: int = Field(default=2, ge=0)  # of attention; 0, with recency_mean: the history's mean and maps of it alone
    heads: int = Field(default=1, ge=1)
    max_length: int = Field(default=200, ge=2)  # events of a history that the encoder reads, the newest
    dropout: Dropout = 0.1
    # what the encoder is trained to do, which fixes how it reads: fill hidden items in, or tell what comes next
    objective: Literal["cloze", "next-item"] = "cloze"
    norm_first: bool = True  # normalise before each branch (pre-norm), as the published recipe does not
    rotary: bool = True  # attention also knows how far apart two events are; the published recipe does not
    distance_bias: bool = False  # attention adds a learned score for each distance between two events
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    feed_forward_multiple: int = Field(default=4, ge=1)  # its width, in widths of the encoder
    gated: bool = False  # a sigmoid gate on each branch (LiGR)
    head: bool = False  # dense + GELU + norm between the encoder and the item table, as BERT4Rec has it
    temperature: float | None = Field(default=0.07, gt=0)  # scores are cosines over this; None: dot products
    ids: bool = True  # channel: the item's id
    attributes: bool = True  # channel: the attributes that [items] declares
    text: bool = True  # channel: the text vector, where the catalogue has text
    # how a text vector becomes part of the item's: a linear map from nothing, or, beginning as the identity, a linear
    # map, one with a perceptron beside it, or one with a gated mixture of linear maps
    text_adapter: Literal["linear", "identity", "mlp", "experts"] = "linear"
    experts: int = Field(default=4, ge=1)  # linear maps of the mixture
    # next-item: a query begins as the mean of the history's items, a step back weighing .7, and the encoder learns
    # what to add; with a text adapter that begins as the identity, training starts from the text recommender
    recency_mean: bool = False
    # next-item, Recformer: a number, by the steps since, is added to the score of what was had; it is learned with the
    # full loss, as the negatives of the others are never what was had
    repeats: bool = False
    item_bias: bool = True  # a learned number an item, added to its score; False where nothing may belong to one item
    id_lookups: int = Field(default=2, ge=1, le=8)  # rows of the multiplexed table that one id concatenates
    attribute_lookups: int = Field(default=2, ge=1, le=8)  # of an attribute that does not say how many
    user_attributes: bool = True  # the attributes that [users] declares, beside every event of the history
    context: tuple[Context, ...] = ()  # what is known of each event of the history besides its item; hours are UTC's
    table_rows: int | None = Field(default=None, ge=16)  # None: sized by the catalogue
    id_dropout: Dropout = 0.1  # share of items whose id is hidden in a step, so that new items get a vector

    @model_validator(mode="after")
    def _context_is_read(self) -> Self:
        if self.context and self.kind != "bert4rec":
            raise ValueError(f'context = {list(self.context)} needs kind = "bert4rec"; "{self.kind}" reads items alone')
        if len(set(self.context)) < len(self.context):
            raise ValueError(f"context = {list(self.context)} names something twice")
        return self

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        for name in ("heads", "id_lookups", "attribute_lookups"):
            value = getattr(self, name)
            if self.dimensions % value:
                raise ValueError(f"dimensions = {self.dimensions} must be divisible by {name} = {value}")
        if self.dimensions // self.heads % 2:
            raise ValueError(f"heads need an even width; {self.dimensions} / {self.heads} is odd")
        if self.kind == "bert4rec" and not (self.ids or self.attributes or self.text):
            raise ValueError("ids, attributes and text are all false; the item tower needs at least one channel")
        if self.recency_mean and (self.objective != "next-item" or self.temperature is None):
            raise ValueError('recency_mean = true needs objective = "next-item" and a temperature (0.05, for instance)')
        if self.blocks == 0 and self.kind == "bert4rec" and not self.recency_mean:
            raise ValueError("blocks = 0 leaves nothing that reads the history; set recency_mean = true or blocks = 1")
        if self.repeats and self.kind == "bert4rec" and self.objective != "next-item":
            raise ValueError('repeats = true needs objective = "next-item"; cloze reads what comes after, too')
        return self


class TrainSettings(_Section):
    """Training of the sequence encoder."""

    epochs: int = Field(default=40, ge=0)  # 0: the model as it starts, for example zero-shot from train.warm_start
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
    patience: int = Field(default=6, ge=1)  # (validations) without a gain before training stops
    loss: Literal["full", "sampled", "gbce"] = "full"  # softmax over the catalogue, or over negatives; binary over them
    negatives: int = Field(default=256, ge=1)  # sampled, gbce: items drawn for each history
    # items without training interactions compete, too, and so learn to rank low; False: content alone places them
    cold_negatives: bool = True
    calibration: Share = 0.75  # gbce: 0 is plain binary cross-entropy, 1 gives calibrated probabilities
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the processor multiplies it natively
    checkpoint_minutes: float = Field(default=1.0, ge=0)  # (minutes) between checkpoints, at least; 0: none
    # where weights come from: a bundle's folder (or without its hash the newest), or "previous", the newest bundle of
    # this name; None: from nothing
    warm_start: str | None = None
    warm_epochs: int | None = Field(default=None, ge=1)  # after a warm start; None: a third of epochs


class RecformerSettings(_Section):
    """Recformer: what it starts from and how it reads. [train] says how it is fine-tuned.

    A Recformer that it starts from brings its tokenizer, network, pooling and window along; `max_items` and
    `max_tokens` may differ.
    """

    # a folder that `recsys pretrain` wrote (or its name without the hash: the newest), a bundle, or a checkpoint of a
    # BERT, RoBERTa or Longformer (a folder or a hub id); None: from nothing, with a tokenizer of its own
    init: str | None = None
    max_items: int = Field(default=16, ge=1)  # of a history, the newest
    max_tokens: int = Field(default=256, ge=8)  # of a history; what does not fit is the oldest
    attribute_tokens: int = Field(default=32, ge=2)  # of one attribute of an item, its name's included
    layers: int | None = Field(default=None, ge=1)  # a checkpoint's first so many, None: all; from nothing: 2
    window: int | None = Field(default=None, ge=2)  # (tokens) that attention sees around each; None: all
    # The next four at their defaults are as published. For a sentence encoder such as MiniLM they are better set to
    # "item", 4.0, "items" and 256: it then begins where the untrained text recommender is.
    places: Literal["history", "item"] = "history"  # what token positions count
    apart: float | None = Field(default=None, ge=0)  # attention between items begins lower by this; learned
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
    follows: bool = False
    # epochs that fit all but the language model to its item vectors as they are, a minute's work, before it moves
    probe_epochs: int = Field(default=0, ge=0)
    train_words: bool = False  # the token embedding learns too
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
        if self.apart is not None and self.window is not None:
            raise ValueError(f"apart = {self.apart} needs attention over the whole history; leave window out")
        if self.follows and self.pooling != "items":
            raise ValueError(f'follows = true needs pooling = "items", not {self.pooling!r}')
        if self.aligned and self.whitened is None:
            raise ValueError("aligned = true needs whitened, the width of the projection; set it, or leave aligned out")
        if self.probe_epochs and self.pooling != "items":
            raise ValueError(f'probe_epochs = {self.probe_epochs} needs pooling = "items", not {self.pooling!r}')
        return self


class EvaluateSettings(_Section):
    """The offline report."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = (5, 10, 20, 100)
    exclude_seen: bool = True  # the history's own items cannot be ranked
    baselines: tuple[Literal["popularity", "transitions", "text+transitions"], ...] = (
        "popularity",
        "transitions",
        "text+transitions",
    )


class BlendSettings(_Section):
    """The sources beside the model's vectors, and the blend that scores what all of them propose."""

    kind: Literal["auto", "always", "never"] = "auto"  # auto: where it beats the model alone on validation users
    candidates: int = Field(default=200, ge=10)  # that each source proposes for a user
    text: bool = True  # the catalogue's text is a source, where it has any, also if the model reads none
    # who followed whom, who came along and what sells are sources; False: text alone, and what the history holds
    counts: bool = True


class RetrieveSettings(_Section):
    """The candidate table."""

    k: int = Field(default=100, ge=1)  # candidates a user
    # what may be recommended: what the newest reading of the catalogue lists, or all that the bundle knows; without a
    # catalogue all; a catalogue that brings new items alone needs "all"
    items: Literal["catalogue", "all"] = "catalogue"
    exclude_seen: bool = True
    batch_size: int = Field(default=1024, ge=1)  # users a search


class ExportSettings(_Section):
    """The copy of the candidate table for downstream services."""

    path: str | None = None  # None: nothing is exported
    format: Literal["parquet", "csv"] = "parquet"
    layout: Literal["long", "wide"] = "long"  # a row a candidate, or a row a user with a list of items
    columns: dict[str, str] = {}  # ours = theirs: which columns, in this order; empty: all


class TrackingSettings(_Section):
    """MLflow."""

    uri: str = "sqlite:///mlruns/mlflow.db"  # any MLflow server; its artifacts lie beside a local store
    experiment: str | None = Field(default=None, min_length=1, max_length=256)  # None: the configuration's name
    register_model: bool = True  # the bundle becomes a version of a registered model


class RunSettings(_Section):
    """What every run has."""

    # of bundles, the registered model and the experiment; longer ones would make file names that no system takes
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    seed: int = Field(default=0, ge=0)
    data_root: str = "."  # folder (or URL) that the sources are relative to
    warehouse: str = "warehouse"  # root of the Delta tables, bundles and run states
    tracking: TrackingSettings = TrackingSettings()

    def digest(self) -> str:
        """sha256 (hex) of the settings in canonical form: equal settings, equal digest."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class Settings(RunSettings):
    """Everything that one run depends on besides the tables."""

    interactions: InteractionSettings
    items: ItemSettings | None = None
    users: UserSettings | None = None
    filter: FilterSettings = FilterSettings()
    split: SplitSettings = SplitSettings()
    text: TextSettings = TextSettings()
    model: ModelSettings = ModelSettings()
    recformer: RecformerSettings = RecformerSettings()
    train: TrainSettings = TrainSettings()
    blend: BlendSettings = BlendSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    retrieve: RetrieveSettings = RetrieveSettings()
    export: ExportSettings = ExportSettings()

    @model_validator(mode="after")
    def _text_needs_text(self) -> Self:
        if self.model.kind in ("text", "recformer") and not (self.items and self.items.text):
            raise ValueError(
                f'model.kind = "{self.model.kind}" needs items.text, the attributes that make an item\'s sentence'
            )
        return self
