"""A training that several processes of the engine's machines take the steps of; this process takes up their end.

Each of them opens what it needs from the warehouse and works on its part of every batch. The first one validates,
writes checkpoints, and leaves the end as the last checkpoint. So weights go through files, and a night that is stopped
goes on with any number of processes: seed and batches alone decide the result, up to the rounding of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.compute.base import Tell
from recsys.compute.choice import check_compute, engine_of
from recsys.data.prepare import Dataset, few_users, prepare
from recsys.data.whole import whole_dataset
from recsys.errors import InputError
from recsys.features.device import best_device, is_accelerator
from recsys.models.base import Job, OnEpoch, Say, Together
from recsys.models.registry import estimator_for
from recsys.settings import Settings
from recsys.storage.remote import is_url
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import Checkpoints
from recsys.training.trainer import OnResume

DatasetOf = Callable[[Settings, TableVersions], Dataset]


def check_divisible(settings: Settings) -> None:
    """Refuse settings of a training in several processes that could not be; no cluster is asked.

    Raises
    ------
    InputError
        Says why, and what to do.
    """
    count = settings.compute.training_processes
    if count == 1:
        return
    asked = f"compute.training_processes = {count}"
    if not estimator_for(settings).divides:
        raise InputError(f'{asked}: model.kind = "{settings.model.kind}" trains in one process; set it to 1.')
    if settings.train.batch_size < count:
        raise InputError(
            f"{asked} would divide a batch of train.batch_size = {settings.train.batch_size} histories; lower it, or "
            "make batches larger."
        )
    if is_url(settings.warehouse):
        raise InputError(
            f"{asked} needs a warehouse on a file system that all machines mount, as prepared data and checkpoints are "
            f"files, and {settings.warehouse} is an object store; set it to 1."
        )
    if is_accelerator(best_device()):
        raise InputError(f"{asked} computes on processors, and this machine has an accelerator; set it to 1.")


def check_together(settings: Settings) -> None:
    """Refuse a training in several processes that could not be, before anything is computed: settings, then machines.

    Raises
    ------
    InputError
        Says why, and what to do.
    """
    check_divisible(settings)
    if settings.compute.training_processes > 1:
        check_compute(settings)


def checkpoint_minutes(settings: Settings) -> float:
    """Minutes between two checkpoints; processes that train together leave one at the end in any case."""
    minutes = settings.train.checkpoint_minutes
    return minutes or (math.inf if settings.compute.training_processes > 1 else 0)


def training_dataset(settings: Settings, versions: TableVersions) -> Dataset:
    """Data that the measured bundle learns from."""
    return few_users(prepare(settings, versions), settings.train.users, settings.seed)


def served_dataset(settings: Settings, versions: TableVersions, measured: str) -> Dataset:
    """Data that the served bundle learns from; `measured` is the path of the bundle whose codes stay."""
    return whole_dataset(settings, versions, read_bundle(measured, verify=False).vocabulary)


@dataclass(frozen=True, kw_only=True)
class Share:
    """Work of one of the processes; it is sent to them, and holds nothing large.

    Attributes
    ----------
    dataset
        Opens the prepared data.
    start
        Path of the bundle that training begins with.
    epochs
        As of `Job`.
    folder, seconds
        Of the checkpoints.
    """

    settings: Settings
    versions: TableVersions
    dataset: DatasetOf
    start: str | None
    epochs: int | None
    folder: str
    seconds: float

    def __call__(self, tell: Tell) -> None:
        """Train, in a process of a group; tell of epochs as they come, and of a checkpoint that was taken up."""
        job = Job(
            dataset=self.dataset(self.settings, self.versions),
            versions=self.versions,
            start=None if self.start is None else read_bundle(self.start, verify=False),
            epochs=self.epochs,
            checkpoints=Checkpoints(Path(self.folder), seconds=self.seconds),
            on_epoch=tell,
            on_resume=lambda epoch, step: tell((epoch, step)),
        )
        estimator_for(self.settings).fit(job)


def together_of(
    settings: Settings,
    versions: TableVersions,
    dataset: DatasetOf,
    checkpoints: Checkpoints | None,
    *,
    start: Bundle | None = None,
    epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
    on_resume: OnResume | None = None,
    say: Say = lambda _: None,
) -> Together | None:
    """Return `Job.together`; None where this process trains by itself.

    Parameters
    ----------
    dataset
        Opens the prepared data in another process; picklable.
    checkpoints
        Where the end is left.
    """
    count, done = settings.compute.training_processes, 0
    if count == 1 or checkpoints is None:
        return None

    def together(precision: str) -> None:
        asked = settings.train.model_copy(update={"precision": precision})
        root = str(Path(settings.warehouse).absolute())
        share = Share(
            settings=settings.model_copy(update={"train": asked, "warehouse": root}),
            versions=versions,
            dataset=dataset,
            start=None if start is None else str(Path(start.path).absolute()),
            epochs=epochs,
            folder=str(checkpoints.folder.absolute()),
            seconds=checkpoints.seconds,
        )
        heard, begun = 0, 1  # entries of this beginning, and beginnings

        def told(news: object) -> None:
            nonlocal heard, done
            if isinstance(news, dict):
                heard += 1
                if heard > done:  # not told before a loss
                    done = heard
                    if on_epoch:
                        on_epoch(news)
            elif isinstance(news, tuple) and on_resume and begun == 1:
                on_resume(*news)

        def lost(sentence: str) -> None:
            nonlocal heard, begun
            heard, begun = 0, begun + 1
            say(sentence)

        say(f"Training in {count} processes of the Ray cluster, each of compute.cores = {settings.compute.cores}.")
        engine_of(settings).together(share, count, told, lost)

    return together
