"""Check of a configuration before a command writes anything: no folder and no database of a night that cannot begin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from recsys.bundles.store import find_bundle
from recsys.columns import INTERACTIONS
from recsys.errors import InputError
from recsys.features.model_source import EncoderError, find_model
from recsys.ingestion.declared_sources import check_lists, check_sources
from recsys.ingestion.provenance import check_filled
from recsys.pipelines.export import check_targets
from recsys.pipelines.steps import chosen_bundle, newest_candidates, newest_versions
from recsys.settings import RunSettings, Settings
from recsys.settings.pretrain import PretrainSettings
from recsys.settings.train import PREVIOUS
from recsys.storage.remote import is_url
from recsys.storage.warehouse import latest_version
from recsys.tracking.store import check_uri

_CHECKED: ContextVar[bool] = ContextVar("checked", default=False)
_ON_A_BUNDLE: Final = ("evaluate", "refit", "retrieve")  # steps
_TABLE: Final = ("backtest", "refresh", "retrieve")  # steps
_TRAIN: Final = ("backtest", "refit", "train", "tune")  # steps


@contextlib.contextmanager
def sound(check: Callable[..., None], *arguments: Any, **options: Any) -> Iterator[None]:
    """Check before the block; an inner block of the same work checks nothing again.

    Raises
    ------
    InputError
        As the check says.
    """
    if not _CHECKED.get():
        check(*arguments, **options)
    token = _CHECKED.set(True)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def check_whole(settings: Settings) -> None:
    """Check what a night needs, from the sources and models to the export's targets and MLflow's address.

    Raises
    ------
    InputError
        Something is missing or wrong.
    """
    from recsys.night.index import check_index  # torch, which a step that neither trains nor ranks is spared
    from recsys.night.together import check_divisible
    from recsys.table.everyone import check_fallback

    check_uri(settings)
    check_index(settings)
    check_divisible(settings)
    check_fallback(settings)
    check_sources(settings)
    check_lists(settings)
    _check_models(settings)
    if settings.export.wanted:
        check_targets(settings)


def check_step(step: str, settings: RunSettings, **options: Any) -> None:
    """Check what a step alone needs: sources to read, or the tables and the bundle that it works on.

    Raises
    ------
    InputError
        Something is missing or wrong.
    """
    check_uri(settings)
    if isinstance(settings, PretrainSettings):
        for name in settings.catalogues:
            check_sources(settings.catalogue(name))
        return
    assert isinstance(settings, Settings)
    if step in _TRAIN and settings.compute.training_processes > 1:
        from recsys.night.together import check_divisible

        check_divisible(settings)
    if step in _TABLE:
        from recsys.table.everyone import check_fallback

        check_fallback(settings)
    if step == "ingest" or (step == "backtest" and latest_version(settings.warehouse, INTERACTIONS) is None):
        check_sources(settings)
    elif step == "backtest":
        check_filled(settings)
    elif step == "export":
        if not options.get("rollback"):
            newest_candidates(settings)
    else:
        newest_versions(settings)
        if step in _ON_A_BUNDLE:
            chosen_bundle(settings, options.get("bundle"))
        else:
            _check_models(settings)


def _check_models(settings: Settings) -> None:
    model, start = settings.text.model, settings.train.warm_start
    if _is_path(model):
        try:
            find_model(model)
        except EncoderError as error:
            raise InputError(str(error)) from None
    if start not in (None, PREVIOUS) and not is_url(str(start)):
        find_bundle(str(start))
    init = settings.recformer.init
    if init and _is_path(init) and not is_url(init):
        folder = Path(init).expanduser()
        if not folder.is_dir() and not folder.with_name(f"{folder.name}.latest.json").is_file():
            raise InputError(f"There is no folder {init} for recformer.init; check its name.")


def _is_path(model: str) -> bool:
    """Return whether a model's name cannot be a hub's."""
    return model.startswith((".", "/", "~")) or model.count("/") > 1
