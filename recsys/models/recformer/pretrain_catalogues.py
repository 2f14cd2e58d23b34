"""One pre-training of a Recformer: the warehouses of several catalogues in, a folder with weights out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.models.recformer.catalogue_tokens import catalogue_tokens, item_attributes
from recsys.models.recformer.estimator import with_projection
from recsys.models.recformer.pretrain import Corpus, OnLook, merged, pretrain
from recsys.models.recformer.start import PRETRAINED, Start, publish, start
from recsys.models.recformer.weights import identity, save
from recsys.runs import local_folder
from recsys.settings.pretrain import PretrainSettings
from recsys.storage.warehouse import TableVersions
from recsys.training.checkpoint import checkpoints_of
from recsys.training.distributed import processes
from recsys.training.pretrain_report import PretrainReport


def pretrain_recformer(
    settings: PretrainSettings,
    versions: Mapping[str, TableVersions],
    on_look: OnLook | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> PretrainReport:
    """Pre-train on the tables at these versions and publish the result under the configuration's name.

    A training that was killed goes on from its last checkpoint when the same is asked for again.

    Parameters
    ----------
    versions
        Of each catalogue's tables.
    on_look
        Called with an entry of the history each time the held-out catalogues were looked at.
    say
        Called with a sentence on where a killed training is taken up.

    Raises
    ------
    InputError
        `recformer.init` cannot be read, or a catalogue has no text.
    """
    began = time.perf_counter()
    folder = local_folder(settings.warehouse) / PRETRAINED
    begun, corpora, counts = read_corpora(settings, versions)
    learnt = merged([c for name, c in corpora.items() if not settings.catalogues[name].held_out])
    origin = identity(begun.model, begun.tokenizer)  # before a whitening, whose last bits may differ on an accelerator
    begun = with_projection(begun, learnt.tokens, settings.recformer)
    resumed: int | None = None

    def on_resume(step: int) -> None:
        nonlocal resumed
        resumed = step
        say(f"Pre-training resumed after step {step}.")

    tables = {name: asdict(version) for name, version in versions.items()}
    parts = [settings.digest(), sorted(tables.items()), origin, processes()[1]]
    checkpoints = checkpoints_of(settings.warehouse, "pretraining", parts, settings.train.checkpoint_minutes)
    outcome = pretrain(
        begun,
        learnt,
        [c for name, c in corpora.items() if settings.catalogues[name].held_out],
        settings.train,
        temperature=settings.recformer.temperature,
        accumulate=settings.recformer.accumulate,
        seed=settings.seed,
        on_look=on_look,
        checkpoints=checkpoints,
        on_resume=on_resume,
    )
    about = {
        **begun.about,
        "seed": settings.seed,
        "catalogues": counts,
        "versions": tables,
        "attribute_tokens": settings.recformer.attribute_tokens,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
    }
    if processes()[0] == 0:
        made = save(folder, settings.name, begun.model, begun.head, begun.tokenizer, about)
        publish(folder, settings.name, made)
        if checkpoints is not None:
            checkpoints.remove()
    final = identity(begun.model, begun.tokenizer)
    return PretrainReport(
        folder=str(folder / f"{settings.name}-{final[:12]}"),
        identity=final,
        steps=outcome.steps,
        best_step=outcome.best_step,
        parameters=sum(p.numel() for p in begun.model.parameters()),
        seconds=time.perf_counter() - began,
        catalogues=counts,
        history=outcome.history,
        resumed=resumed,
    )


def read_corpora(
    settings: PretrainSettings, versions: Mapping[str, TableVersions]
) -> tuple[Start, dict[str, Corpus], dict[str, dict[str, Any]]]:
    """The model to train, and each catalogue as a corpus with its counts."""
    datasets, frames = {}, {}
    for name in settings.catalogues:
        of = settings.catalogue(name)
        datasets[name] = prepare(of, versions[name])
        frames[name] = item_attributes(of, versions[name], datasets[name].vocabulary)
    learnt = [frame for name, frame in frames.items() if not settings.catalogues[name].held_out]
    begun = start(settings.recformer, learnt, settings.seed)
    corpora, counts = {}, {}
    for name, chosen in settings.catalogues.items():
        tokens = catalogue_tokens(
            settings.catalogue(name).warehouse,
            frames[name],
            frames[name].columns,
            begun.tokenizer,
            settings.recformer.attribute_tokens,
        )
        if tokens.empty == tokens.size:
            raise InputError(f"No item of the catalogue {name!r} has any text; leave it out, or name its attributes.")
        split = datasets[name].split
        histories = split.serving if chosen.whole or chosen.held_out else split.train
        corpora[name] = Corpus.of(tokens, histories.items, histories.offsets)
        counts[name] = {
            "users": len(corpora[name].askable),
            "items": tokens.size,
            "events": len(corpora[name].items),
            "tokens": len(tokens.tokens),
            "truncated_values": tokens.truncated,
            "empty_items": tokens.empty,
            "held_out": chosen.held_out,
        }
    return begun, corpora, counts
