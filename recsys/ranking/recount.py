"""The blend of the served bundle: its sources fitted again on all events, its ranker as validation chose it."""

from __future__ import annotations

from dataclasses import replace

from recsys.candidates.base import Source
from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset
from recsys.errors import RecsysError
from recsys.ranking.blend import Blended
from recsys.ranking.fit import training_sources
from recsys.settings import Settings


def recounted(
    blended: Blended, settings: Settings, dataset: Dataset, *, new_items: bool, former: Source | None = None
) -> tuple[Blended, Consumed]:
    """Fit the sources of a blend again on the training part of a data set.

    Parameters
    ----------
    new_items
        The data set has items that the blend does not know, behind those that it knows. Otherwise sources that read the
        catalogue stay as they are, for which no text vectors are needed.
    former
        A source that was fitted before and serves on.

    Returns
    -------
    Blended, Consumed
        The blend, and the histories that were counted.

    Raises
    ------
    InputError
        There are new items, and the vectors of their texts are lacking.
    RecsysError
        A source of the blend finds nothing in the data set.
    """
    wanted = (
        settings
        if new_items
        else settings.model_copy(update={"blend": settings.blend.model_copy(update={"text": False})})
    )
    fitted, counted, lacking = training_sources(wanted, dataset, former)
    if lacking:
        raise RecsysError(lacking.strip())
    by_name = {source.name: source for source in fitted}

    def again(source: Source) -> Source:
        if source.READS_CATALOGUE and not new_items:
            return source
        if source.name not in by_name:
            raise RecsysError(
                f"The blend's source {source.name!r} finds nothing in all events, so it cannot be fitted again; train "
                'again, or set train.refit = "none".'
            )
        return by_name[source.name]

    return replace(blended, sources=tuple(again(source) for source in blended.sources)), counted
