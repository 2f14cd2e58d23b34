"""[model]: what is trained. Each kind of model has its own keys (recsys/settings/kinds.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from recsys.settings import kinds
from recsys.settings.section import Dropout, Section

Context = Literal["event", "hour", "weekday", "gap", "weight"]
DEFAULT_KIND = "bert4rec"
_CLOZE = ("train.mask_probability", "train.mask_last_share", "train.last_weight", "train.next_item_share")


class KindSettings(Section):
    """Keys of `[model]` that every kind has; a kind with keys of its own inherits from it and adds them.

    Attributes
    ----------
    needs_text
        The kind can do nothing without `items.text`.
    unsaid
        Keys that an older bundle may lack and whose default is no longer what it was trained with, with what it was.
        Any other key that it lacks has today's default, so a new key's default must change nothing.
    """

    renamed: ClassVar[Mapping[str, str]] = {"repeats": "repeat_bias"}

    kind: str
    needs_text: ClassVar[bool] = False
    unsaid: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def variant(cls, given: Any) -> type[Section]:
        """The settings of the kind that these plain values name."""
        return settings_of(kind_of(given))

    def unread(self, tree: Mapping[str, Any]) -> tuple[str, ...]:
        """Dotted names of what the kind does not read of a configuration, given as plain values; none, unless it says.

        They are left out where a run is described.
        """
        return ()

    @property
    def event_context(self) -> tuple[Context, ...]:
        """Names of the context that the model reads beside each item; none, unless a kind says so."""
        return ()

    @property
    def tuned(self) -> Mapping[str, Any]:
        """Settings that `recsys tune` changes without a section [tune], written as that section is; none."""
        return {}


class ModelSettings(KindSettings):
    """Keys of `kind = "bert4rec"`: the item tower and the sequence encoder."""

    unsaid: ClassVar[Mapping[str, Any]] = {"rotary": False, "head": True, "temperature": None}

    kind: Literal["bert4rec"] = "bert4rec"
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
    # next-item: a number, by the steps since, is added to the score of what was had; gBCE does not learn it, as its
    # negatives are never what was had
    repeat_bias: bool = False
    item_bias: bool = True  # a learned number an item, added to its score; False where nothing may belong to one item
    id_lookups: int = Field(default=2, ge=1, le=8)  # rows of the multiplexed table that one id concatenates
    attribute_lookups: int = Field(default=2, ge=1, le=8)  # of an attribute that does not say how many
    user_attributes: bool = True  # the attributes that [users] declares, beside every event of the history
    context: tuple[Context, ...] = ()  # what is known of each event of the history besides its item; hours are UTC's
    table_rows: int | None = Field(default=None, ge=16)  # None: sized by the catalogue
    id_dropout: Dropout = 0.1  # share of items whose id is hidden in a step, so that new items get a vector

    def unread(self, tree: Mapping[str, Any]) -> tuple[str, ...]:
        """[recformer], and the keys of another objective, loss, start or text adapter than the one chosen."""
        train, unread = tree["train"], ["recformer"]
        if self.objective != "cloze":
            unread += _CLOZE
        if train["loss"] == "full" or (train["loss"] == "auto" and train["negatives"] is None):
            unread.append("train.negatives")
        if train["loss"] != "gbce":
            unread.append("train.calibration")
        if train["warm_start"] is None:
            unread += ["train.warm_epochs", "train.warm_share"]
        if self.text_adapter != "experts":
            unread.append("model.experts")
        return tuple(unread)

    @property
    def event_context(self) -> tuple[Context, ...]:
        """As `context`."""
        return self.context

    @property
    def tuned(self) -> Mapping[str, Any]:
        """The rate and the size of steps, the size of the network, and what keeps it from learning by heart."""
        space: dict[str, Any] = {
            "train.learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
            "train.batch_size": [16, 32, 64, 128],
            "model.dimensions": [64, 128, 256],
            "model.blocks": {"low": 1, "high": 3},
            "model.dropout": {"low": 0.0, "high": 0.4},
        }
        if self.temperature is not None:
            space["model.temperature"] = {"low": 0.03, "high": 0.2, "log": True}
        if self.objective == "cloze":
            space["train.mask_probability"] = {"low": 0.15, "high": 0.6}
        return space

    @model_validator(mode="after")
    def _context_is_named_once(self) -> Self:
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
        if not (self.ids or self.attributes or self.text):
            raise ValueError("ids, attributes and text are all false; the item tower needs at least one channel")
        if self.recency_mean and (self.objective != "next-item" or self.temperature is None):
            raise ValueError('recency_mean = true needs objective = "next-item" and a temperature (0.05, for instance)')
        if self.blocks == 0 and not self.recency_mean:
            raise ValueError("blocks = 0 leaves nothing that reads the history; set recency_mean = true or blocks = 1")
        if self.repeat_bias and self.objective != "next-item":
            raise ValueError('repeat_bias = true needs objective = "next-item"; cloze reads what comes after, too')
        return self


class ItemsAlone(KindSettings):
    """Keys of a kind that reads items alone; keys of the sequence model are passed over.

    A configuration can so be run with another `model.kind`, and bundles that carry all keys stay readable. Only what
    events are to be known by, `context`, is refused: the log would be read for it in vain.
    """

    @model_validator(mode="before")
    @classmethod
    def _others_keys_are_passed_over(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("context"):
            kind = given.get("kind", cls.model_fields["kind"].default)
            context = given["context"]
            raise ValueError(f'context = {context!r} needs kind = "{DEFAULT_KIND}"; "{kind}" reads items alone')
        ours = [key for key in given if cls.renamed.get(key, key) in cls.model_fields]
        return {key: value for key, value in given.items() if key in ours or key not in _SEQUENCE_KEYS}


_SEQUENCE_KEYS = frozenset(ModelSettings.model_fields) | frozenset(ModelSettings.renamed)


class TextModelSettings(ItemsAlone):
    """Keys of `kind = "text"`, which trains nothing: a history is the mean of its newest items' text vectors."""

    kind: Literal["text"] = "text"
    needs_text: ClassVar[bool] = True

    def unread(self, tree: Mapping[str, Any]) -> tuple[str, ...]:
        """Settings for training, but for the share of users."""
        return ("recformer", *(f"train.{name}" for name in tree["train"] if name != "users"))


class RecformerModelSettings(ItemsAlone):
    """Keys of `kind = "recformer"`; the rest is in [recformer]."""

    kind: Literal["recformer"] = "recformer"
    needs_text: ClassVar[bool] = True
    # a number, by the steps since, is added to the score of what was had; it is learned with the full loss
    repeat_bias: bool = False

    @property
    def tuned(self) -> Mapping[str, Any]:
        """The rate of steps, near those that a language model bears, and how sharply what came next is told apart."""
        return {
            "train.learning_rate": {"low": 1e-5, "high": 3e-4, "log": True},
            "train.batch_size": [16, 32, 64],
            "train.weight_decay": {"low": 1e-3, "high": 0.1, "log": True},
            "recformer.temperature": {"low": 0.02, "high": 0.1, "log": True},
            "recformer.dropout": {"low": 0.0, "high": 0.3},
        }

    def unread(self, tree: Mapping[str, Any]) -> tuple[str, ...]:
        """Settings for the sequence model, and the negatives where the loss has none."""
        others = ("average_decay", "cold_negatives", "calibration", "warm_start", "warm_epochs", "warm_share")
        unread = [*_CLOZE, *(f"train.{name}" for name in others)]
        if tree["train"]["loss"] != "sampled":
            unread.append("train.negatives")
        return tuple(unread)


def settings_of(kind: str) -> type[KindSettings]:
    """The class of a kind's `[model]`.

    Raises
    ------
    InputError
        There is no such kind.
    """
    found: type[KindSettings] = kinds.imported(kinds.named(kind).settings)
    return found


def kind_of(section: Any) -> str:
    """The kind that a `[model]` of plain values asks for."""
    return str(section.get("kind", DEFAULT_KIND)) if isinstance(section, Mapping) else DEFAULT_KIND


def as_trained(section: Mapping[str, Any]) -> dict[str, Any]:
    """The `[model]` of a bundle, with what an older one does not say and today's defaults would say wrong."""
    kind = kind_of(section)
    unsaid = settings_of(kind).unsaid if kind in kinds.KINDS else {}
    return {**unsaid, **section}


def _as_its_kind(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    kind = kind_of(given)
    if kind not in kinds.KINDS:
        said = PydanticCustomError("kind", "there is no such kind of model; {known}", {"known": kinds.known()})
        problem = InitErrorDetails(type=said, loc=("kind",), input=kind)
        raise ValidationError.from_exception_data("model", [problem])
    return settings_of(kind).model_validate({"kind": kind, **given})


AnyModelSettings = Annotated[SerializeAsAny[KindSettings], BeforeValidator(_as_its_kind)]
