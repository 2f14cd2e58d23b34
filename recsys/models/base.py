"""The contract of a kind of model: an `Estimator` learns, a `Recommender` answers.

A new kind is a folder `recsys/models/<kind>/` with one class of each, and one line in `recsys/settings/kinds.py` (or a
call of `recsys.models.registry.register` before the configuration is read):

    class Shop(Estimator):
        kind = "shop"
        recommender = HistoryMean  # recsys/models/history_mean.py, or a class of your own

        def fit(self, job: Job) -> Fitted:
            train = job.dataset.split.train
            vectors = ...  # float32 [V + 1, D] out of train.items and train.offsets; row 0 (padding) is zero
            parts = Parts(vectors=vectors, allowed=vectors.any(axis=1))
            return Fitted(parts=parts, outcome=Counted(trained=Consumed.of(train.items, train.offsets)))

    register("shop", "my_shop:Shop")

Its keys of `[model]` are a class of their own, which inherits from `recsys.settings.KindSettings` and is named in the
same line: `register("shop", "my_shop:Shop", "my_shop:ShopSettings")`; `self.settings.model` is one of these.

Everything else follows: `recsys train` writes what `fit` returns into a bundle, `recsys.serving` makes the recommender
of it again, and evaluation, the candidate table, the blend and the command ask the recommender. No code outside the
kind's folder asks which kind it is: what differs is a method or an attribute here, and each has a default.

Item codes: a vocabulary of V items has codes 1 to V; 0 is padding. Arrays by code have V + 1 rows.
Shapes: U users, N events of all their histories, D width of the vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.models.demand import TEXT_WIDTH, Demand, NightSizes
from recsys.settings import Settings
from recsys.training.outcome import OnEpoch
from recsys.training.trainer import OnResume

if TYPE_CHECKING:  # a recommender answers without tables
    from torch import Tensor

    from recsys.bundles.bundle import Bundle
    from recsys.data.consumed import Consumed
    from recsys.data.prepare import Dataset
    from recsys.storage.warehouse import TableVersions
    from recsys.training.checkpoint import Checkpoints

Say = Callable[[str], None]
Together = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Everything that a recommender is made of, as a bundle keeps it.

    Attributes
    ----------
    vectors
        float32 [V + 1, D] vectors of items; row 0 is zero. An item's score is the inner product of its vector with the
        history's.
    allowed
        bool [V + 1]: items that may be recommended; row 0 may not.
    weights
        More tensors by name; read from a bundle, each is loaded when it is asked for. Names that begin with
        "catalogue." are data and do not count as parameters.
    declared
        JSON-friendly: what else the recommender must know, for the bundle's features.json.
    """

    vectors: np.ndarray
    allowed: np.ndarray
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)


class Recommender(ABC):
    """A model that answers: histories become vectors in the space of the items' vectors.

    It is made of its parts alone, without tables or log, and equal parts give equal answers. Making one of parts that
    do not fit may raise ValueError, KeyError or RuntimeError; serving turns these into one sentence that names the
    bundle.

    Attributes
    ----------
    settings
        Those that it was trained with.
    parts
        What it was made of.
    bias_dims
        How many of the last columns of `vectors` are output biases, no part of an item's meaning: `similar` leaves
        them out. Vectors of histories hold 1 there.
    """

    bias_dims: ClassVar[int] = 0

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self.settings = settings
        self.parts = parts

    @property
    def vectors(self) -> np.ndarray:
        """float32 [V + 1, D] vectors of items."""
        return self.parts.vectors

    @property
    def allowed(self) -> np.ndarray:
        """bool [V + 1] items that may be recommended."""
        return self.parts.allowed

    @property
    def repeats(self) -> np.ndarray | None:
        """float32 [L], added to the scores of the history's own items by steps back; None: nothing is."""
        return None

    @abstractmethod
    def encode(self, histories: Sequences) -> np.ndarray:
        """Vectors of histories.

        Parameters
        ----------
        histories
            Of U users, in the bundle's codes; also empty ones. Attributes and context may be None although the model
            reads them: they are then unknown.

        Returns
        -------
        ndarray
            float32 [U, D]; zeros (but for the biases) where the model can say nothing. A user's vector does not depend
            on the other users, beyond rounding.
        """

    def check_features(self, settings: Settings) -> None:
        """Refuse tables whose features are not declared as those that the model was trained with.

        Raises
        ------
        InputError
            Names the feature and what to do. A recommender that reads item codes alone has nothing to refuse.
        """
        return None

    def unseen_values(self, dataset: Dataset) -> dict[str, int]:
        """Look-ups, by feature, of values that the training part does not have; for the report of an evaluation."""
        return {}


class Outcome(Protocol):
    """Outcome of a training, for the report and the bundle's lineage."""

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept."""

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""

    @property
    def history(self) -> list[dict[str, float]]:
        """One entry an epoch: epoch, loss, metrics of validation."""

    @property
    def trained(self) -> Consumed:
        """The histories that it learnt from; evaluation refuses a bundle that had others than the split allows."""

    @property
    def validated(self) -> Consumed | None:
        """The questions that decided which epoch is best; None: nobody said."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """The outcome of a learner without epochs, such as one that counts: which histories it counted."""

    trained: Consumed
    validated: Consumed | None = None
    epochs: int = 0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """Result of `Estimator.fit`.

    Attributes
    ----------
    parts
        What the recommender is made of.
    outcome
        What was learnt from; None: from no event. Evaluation compares it with what the split allows, and takes a
        bundle without it for one that may be measured on any day's events.
    warm_start
        What was copied from which bundle, JSON-friendly; None: nothing was.
    predicted_bytes
        Peak of memory that training was to take; 0 where nobody predicts it.
    chosen
        By name of the setting, what the configuration left to the program, such as the precision.
    stages
        Epochs of each stage that the weights went through; empty: the kind trains in one.
    """

    parts: Parts
    outcome: Outcome | None = None
    warm_start: dict[str, Any] | None = None
    predicted_bytes: int = 0
    chosen: dict[str, str] = field(default_factory=dict)
    stages: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """Starting point of a training.

    Attributes
    ----------
    bundle
        The bundle whose weights training begins with; None: none.
    reason
        A sentence on why a bundle that was asked for is not used; None: none was asked for, or it is used.
    """

    bundle: Bundle | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """Input of `Estimator.fit`.

    Attributes
    ----------
    versions
        Of the tables that the data set was prepared from, for who reads more of them.
    dataset
        The prepared data: vocabulary, catalogue, and the split, of which a model may learn from `train` alone and
        choose its best epoch by `validation`.
    start
        The bundle that `Estimator.origin` found; None: from nothing.
    epochs
        To train for; there is no validation, and the last weights are kept. From nothing they are the first of those
        that the settings plan, and from a bundle a whole plan of their own. None: as the settings ask, and validation
        decides. Given only to a kind that keeps `fixed_epochs`.
    stages
        Where `epochs` are given: the `Fitted.stages` of the measured training; empty: it did not say.
    checkpoints
        Where a training that was killed goes on from; None: nowhere.
    say
        Called with a sentence for the user.
    on_epoch
        Called after every epoch with its entry of the history; after a resume first with those before.
    on_resume
        Called with the epoch and the steps done in it when training goes on from a checkpoint.
    together
        Called with the precision before the first step: other processes take all steps, tell of them, and leave the
        end in `checkpoints`, from where `fit` takes it up. None: `fit` takes the steps. Given only to a kind that
        `divides`.
    """

    dataset: Dataset
    versions: TableVersions
    start: Bundle | None = None
    epochs: int | None = None
    stages: Sequence[int] = ()
    checkpoints: Checkpoints | None = None
    say: Say = lambda _: None
    on_epoch: OnEpoch | None = None
    on_resume: OnResume | None = None
    together: Together | None = None


class Estimator(ABC):
    """A kind of model that learns. One is made for each training, of the settings of that run.

    A kind must say `kind`, `recommender` and `fit`; all else has a default that suits a simple one. Importing its
    module may import torch; reading a configuration does not import it.

    Attributes
    ----------
    kind
        Its name, the value of `model.kind`.
    recommender
        The class that answers with what `fit` returns.
    learns
        Whether it learns from events. A kind that does not has no checkpoints, and its bundle is good for every day's
        events as long as the items are the same.
    fixed_epochs
        Whether `fit` trains for `Job.epochs` where they are given, without asking validation, whose part is then empty.
        A kind whose outcome tells of epochs and that cannot do so is not trained again on all events.
    divides
        Whether `fit` calls `Job.together`, and takes its part of every batch in one of several processes.
    """

    kind: ClassVar[str]
    recommender: ClassVar[type[Recommender]]
    learns: ClassVar[bool] = True
    fixed_epochs: ClassVar[bool] = False
    divides: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def fit(self, job: Job) -> Fitted:
        """Learn from the training part.

        The settings' seed fixes the result: equal settings and tables give equal parts, bit for bit, on one machine.

        Raises
        ------
        InputError
            The data do not allow the training that the settings ask for; one sentence that says what to do.
        """

    def again(self, measured: Bundle, best_epoch: int) -> tuple[Bundle | None, int]:
        """Choose how to train on all events what was measured: the bundle to begin with, and for how many epochs.

        Parameters
        ----------
        measured
            The bundle that validation chose and test measured.
        best_epoch
            The epoch whose weights it has.

        Returns
        -------
        Bundle or None, int
            By default from nothing (None), for as many epochs as were best.
        """
        return None, best_epoch

    def origin(self) -> Origin:
        """Find the bundle that training begins with, before anything is computed.

        Raises
        ------
        InputError
            A bundle that was named cannot be read or is of no use.
        """
        return Origin()

    @property
    def planned_epochs(self) -> int | None:
        """Return the largest number of epochs, for a progress bar; None: unknown, or there are none."""
        return None

    @property
    def reads_text(self) -> bool:
        """Return whether the text encoder's vectors are held while it trains."""
        return self.settings.model.needs_text

    def width(self, sizes: NightSizes) -> int:
        """D, the width of the item vectors, for a prediction of the night's memory."""
        return sizes.text_width(self.settings) or TEXT_WIDTH

    def demand(self, sizes: NightSizes) -> Demand | None:
        """Predict the training's memory; None where nobody does."""
        return None

    def feature_report(self, versions: TableVersions, memory: float | None = None) -> dict[str, Any]:
        """Say what each feature takes of the multiplexed table, for `recsys features`.

        Parameters
        ----------
        memory
            (MB) for which look-ups and rows are suggested; None: what tables without collisions would take.

        Raises
        ------
        InputError
            The kind has no such table.
        """
        raise InputError(f'model.kind = "{self.kind}" has no multiplexed table to report on.')
