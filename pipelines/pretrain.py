"""Pre-train: several logs and catalogues become a Recformer, or a text-only sequence model, that reads others.

A Recformer over several devices: `torchrun --nproc-per-node=N -m recsys pretrain CONFIG`; each process
learns from batches of its own and contrasts them with everybody's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from recsys import runs
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.pipelines.steps import Run, as_function, compute_task, plain, step_run, tracked
from recsys.pipelines.watch import watch
from recsys.settings.pretrain import PretrainSettings
from recsys.storage.warehouse import TableVersions, current_versions
from recsys.text.represent import represent
from recsys.tracking import log as tracking


def pretrain(settings: PretrainSettings, versions: dict[str, Any]) -> dict[str, Any]:
    """Pre-train on the tables; losses and the held-out catalogues' accuracy go to MLflow as they come."""
    from recsys.models.recformer.pretrain_catalogues import pretrain_recformer
    from recsys.models.sequential.pretrain import pretrain_sequence

    display = watch()
    known = {name: TableVersions(**version) for name, version in versions.items()}
    if rank() > 0:
        return plain(pretrain_recformer(settings, known))
    with step_run(settings, "pretrain") as at:

        def on_look(entry: dict[str, Any]) -> None:
            counted = "step" if "step" in entry else "epoch"
            step = int(entry[counted])
            metrics = {
                name if "/" in name else f"pretrain/{name}": value for name, value in entry.items() if name != counted
            }
            tracking.log_metrics(at.store, at.run_id, metrics, step=step)
            shown = [f"{name.rpartition('/')[2]} {value:.4f}" for name, value in metrics.items() if "loss" in name]
            shown += [f"accuracy {value:.4f}" for name, value in metrics.items() if "accuracy" in name]
            shown += [f"{name} {value:.4f}" for name, value in metrics.items() if name == "val/ndcg_at_10"]
            display.advance(step, steps, ", ".join(shown))

        steps = settings.train.steps if settings.model is None else settings.sequence.epochs
        learn = pretrain_recformer if settings.model is None else pretrain_sequence
        report = at.done(learn(settings, known, on_look, display.say))
        counts = {f"pretrain/{name}": report[name] for name in ("steps", "best_step", "parameters", "seconds")}
        tracking.log_metrics(at.store, at.run_id, counts)
    return report


pretrain_task = compute_task(pretrain)


def pretrain_alone(settings: PretrainSettings, run: Run = as_function) -> dict[str, Any]:
    """Read every catalogue into its warehouse, and pre-train on them.

    Raises
    ------
    InputError
        Several processes are to pre-train a sequence model, which one does alone.
    """
    if settings.model is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("A sequence model over texts is pre-trained by one process; start it without torchrun.")
    with together():
        if rank() == 0:
            with tracked(settings), runs.locked(settings.warehouse):
                for number, name in enumerate(settings.catalogues):
                    watch().advance(number, len(settings.catalogues), f"reading {name}")
                    of = settings.catalogue(name)
                    read = ingest(of)
                    if settings.model is not None:
                        represent(of, read.versions)
                everybody()
                return run(pretrain_task, settings, _versions(settings))
        everybody()
        return run(pretrain_task, settings, _versions(settings))


def rank() -> int:
    """Rank of this process among those that `torchrun` started; 0 alone."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Connected with the other processes that `torchrun` started; alone there is nothing to do."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def everybody() -> None:
    """Wait until every process is here."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def _versions(settings: PretrainSettings) -> dict[str, Any]:
    return {name: plain(current_versions(settings.catalogue(name).warehouse)) for name in settings.catalogues}
