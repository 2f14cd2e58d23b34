"""A search for better settings: trials one after the other, kept in a database, so that the same search goes on.

What a trial draws depends on the seed and on the trials that are finished, and on nothing else. So a search that was
killed draws for the trial that it was in what that one had drawn, and ends as one that was never stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from recsys import runs
from recsys.data.prepare import Dataset
from recsys.errors import InputError, RecsysError, first_line
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import checkpoints_of
from recsys.training.validation import PRIMARY
from recsys.tuning.space import TRIAL, Space, rounded, shown, with_values
from recsys.tuning.trial import Measured, measure

optuna.logging.set_verbosity(optuna.logging.WARNING)

FOLDER: Final = "tuning"
AT_RANDOM: Final = 10  # trials before the sampler learns from them
WHOLE: Final = 5  # trials that are trained to their end before one is pruned
_REASON, _MEASURED, _RUN = "reason", "measured", "mlflow_run"
_FINISHED: Final = (TrialState.COMPLETE, TrialState.PRUNED)


class _Stopped(Exception):
    """The time is up in the midst of a trial."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial; JSON-friendly.

    Attributes
    ----------
    number
        Of the finished trials, from 0; a trial that is repeated has the number of the one that was stopped.
    values
        Of the settings that it changes, by their full names.
    state
        "pruned": it was ended early, as `reason` says; "stopped": it will be repeated.
    measured
        None where it was not trained to its end.
    """

    number: int
    values: Mapping[str, Any]
    state: Literal["running", "finished", "pruned", "stopped"] = "running"
    value: float | None = None
    measured: Mapping[str, Any] | None = None
    reason: str | None = None

    def text(self) -> str:
        """Return the values as one line of TOML settings."""
        return ", ".join(f"{key} = {shown(value)}" for key, value in self.values.items())


class Observer:
    """Hears of a search's trials; the base class keeps it to itself."""

    def began(self, trial: Trial) -> None:
        """A trial begins."""

    def epoch(self, trial: Trial, entry: Mapping[str, Any]) -> None:
        """An epoch of it is over."""

    def ended(self, trial: Trial) -> None:
        """It is over, in whatever state."""


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """Report of a search; JSON-friendly.

    Attributes
    ----------
    trials
        Finished ones, pruned ones included, of this call and of earlier ones.
    stopped
        Why there are fewer than asked for.
    own
        Validation NDCG@10 of the configuration as it is; None where its values lie outside of the space.
    best
        None: no trial was trained to its end.
    importance
        Share of each setting in what divides good trials from others; empty where there are too few.
    """

    study: str
    storage: str
    trials: int
    pruned: int
    earlier: int  # trials that were there before this call
    seconds: float
    metric: str = PRIMARY
    stopped: Literal["interrupted", "timeout"] | None = None
    own: float | None = None
    best: Trial | None = None
    importance: Mapping[str, float] = field(default_factory=dict)
    all: list[Trial] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """A search over a space, in a study of its own: another space, seed, configuration or data begin another one."""

    settings: Settings
    versions: TableVersions
    space: Space
    dataset: Dataset  # without test; see `trial.without_test`
    study: optuna.Study
    path: Path

    @property
    def finished(self) -> list[FrozenTrial]:
        """The finished trials, in their order."""
        return self.study.get_trials(deepcopy=False, states=_FINISHED)

    @property
    def mlflow_run(self) -> str | None:
        """The run that an earlier call has begun."""
        return self.study.user_attrs.get(_RUN)

    def note_run(self, run_id: str) -> None:
        """Keep the id of the MLflow run for the next call."""
        self.study.set_user_attr(_RUN, run_id)

    def go_on(self, trials: int, *, seconds: float = math.inf, observer: Observer | None = None) -> SearchReport:
        """Run trials until so many are finished, the time is up or Ctrl-C comes.

        Raises
        ------
        InputError
            The configuration as it is cannot be trained, or no trial could be.
        """
        began, listening = time.monotonic(), observer or Observer()
        self._mark_killed()
        earlier = len(self.finished)
        stopped: Literal["interrupted", "timeout"] | None = None
        try:
            while len(self.finished) < trials:
                if time.monotonic() - began >= seconds:
                    raise _Stopped
                self._trial(began + seconds, listening)
        except _Stopped:
            stopped = "timeout"
        except KeyboardInterrupt:
            stopped = "interrupted"
        return self._report(earlier, time.monotonic() - began, stopped)

    def _mark_killed(self) -> None:
        for left in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(left.number, state=TrialState.FAIL)

    def _trial(self, until: float, observer: Observer) -> None:
        number = len(self.finished)
        asked = self._ask(number)
        values = {key: rounded(value) for key, value in asked.params.items()}
        trial = Trial(number=number, values=values)
        own = self.space.own is not None and values == {key: rounded(one) for key, one in self.space.own.items()}
        observer.began(trial)

        def on_epoch(entry: dict[str, float]) -> None:
            observer.epoch(trial, entry)
            if PRIMARY in entry:
                asked.report(float(entry[PRIMARY]), int(entry["epoch"]))
                if asked.should_prune():
                    raise optuna.TrialPruned(
                        f"Its validation after epoch {int(entry['epoch'])} was below the median of the earlier trials."
                    )
            if time.monotonic() >= until:
                raise _Stopped

        try:
            settings = with_values(self.settings, values)
            parts = [self.study.study_name, number, values]
            checkpoints = checkpoints_of(settings.warehouse, "trials", parts, settings.train.checkpoint_minutes)
            try:
                measured = measure(settings, self.versions, self.dataset, checkpoints=checkpoints, on_epoch=on_epoch)
            except (optuna.TrialPruned, FloatingPointError, InputError):
                if checkpoints is not None:
                    checkpoints.remove()
                raise
            if checkpoints is not None:
                checkpoints.remove()
        except (optuna.TrialPruned, FloatingPointError, InputError) as error:
            if own and isinstance(error, InputError):
                self._end(asked, trial, "stopped", observer, reason=str(error))
                raise
            self._end(asked, trial, "pruned", observer, reason=str(error).removeprefix(f"{TRIAL}: "))
        except BaseException as error:
            said = {_Stopped: "the time was up", KeyboardInterrupt: "interrupted"}
            self._end(asked, trial, "stopped", observer, reason=said.get(type(error), first_line(error)))
            raise
        else:
            self._end(asked, trial, "finished", observer, measured=measured)

    def _ask(self, number: int) -> optuna.Trial:
        """Draw a trial; the first one is the configuration as it is."""
        seed = int(np.random.default_rng((self.settings.seed, number)).integers(2**31))
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=AT_RANDOM)
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if number == 0 and self.space.own is not None and not waiting:
            self.study.enqueue_trial(dict(self.space.own))
        return self.study.ask(dict(self.space.distributions))

    def _end(
        self,
        asked: optuna.Trial,
        trial: Trial,
        state: Literal["finished", "pruned", "stopped"],
        observer: Observer,
        *,
        reason: str | None = None,
        measured: Measured | None = None,
    ) -> None:
        if reason is not None:
            asked.set_user_attr(_REASON, reason)
        if measured is not None:
            asked.set_user_attr(_MEASURED, asdict(measured))
        value = None if measured is None else measured.value
        states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "stopped": TrialState.FAIL}
        self.study.tell(asked, value, state=states[state])
        observer.ended(
            Trial(
                number=trial.number,
                values=trial.values,
                state=state,
                value=value,
                measured=None if measured is None else asdict(measured),
                reason=reason,
            )
        )

    def _report(self, earlier: int, seconds: float, stopped: Literal["interrupted", "timeout"] | None) -> SearchReport:
        found = [_of(number, one) for number, one in enumerate(self.finished)]
        whole = [trial for trial in found if trial.state == "finished"]
        if found and not whole and stopped is None:
            reasons = [trial.reason for trial in found if trial.reason]
            raise InputError(f"None of {len(found)} trials could be trained; the first one: {reasons[0]}")
        own = None if self.space.own is None else {key: rounded(value) for key, value in self.space.own.items()}
        return SearchReport(
            study=self.study.study_name,
            storage=str(self.path),
            trials=len(found),
            pruned=len(found) - len(whole),
            earlier=earlier,
            seconds=seconds,
            stopped=stopped,
            own=next((trial.value for trial in whole if trial.values == own), None),
            best=max(whole, key=lambda trial: (trial.value or 0.0, -trial.number), default=None),
            importance=self._importance(len(whole)),
            all=found,
        )

    def _importance(self, whole: int) -> dict[str, float]:
        if whole < AT_RANDOM:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = get_param_importances(self.study, evaluator=PedAnovaImportanceEvaluator())
            except (ValueError, RuntimeError):  # all values are the same
                return {}
        return {key: float(value) for key, value in found.items() if math.isfinite(value)}


@contextlib.contextmanager
def open_search(settings: Settings, versions: TableVersions, space: Space, dataset: Dataset) -> Iterator[Search]:
    """Open the study of a search in the warehouse's database, or begin it.

    Parameters
    ----------
    dataset
        As `trial.without_test` gives it.

    Raises
    ------
    RecsysError
        The database cannot be written.
    """
    parts = [runs.step_key(settings, "train"), space.digest(), dataset.digest]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    path = folder_of(settings.warehouse) / f"{settings.name}.db"
    pruner = MedianPruner(n_startup_trials=WHOLE, n_warmup_steps=settings.train.epochs // 4)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        study = optuna.create_study(
            storage=storage,
            study_name=f"{settings.name} {key}",
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except (OSError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise RecsysError(
            f"The database of trials {path} cannot be used ({first_line(error)}); mend it or move it away."
        ) from error
    try:
        yield Search(settings=settings, versions=versions, space=space, dataset=dataset, study=study, path=path)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def folder_of(warehouse: str) -> Path:
    """Return the folder of a warehouse's searches: in it, or beside its run states where it is no local folder."""
    return runs.local_folder(warehouse) / FOLDER


def _of(number: int, trial: FrozenTrial) -> Trial:
    return Trial(
        number=number,
        values={key: rounded(value) for key, value in trial.params.items()},
        state="finished" if trial.state == TrialState.COMPLETE else "pruned",
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        measured=trial.user_attrs.get(_MEASURED),
        reason=trial.user_attrs.get(_REASON),
    )
