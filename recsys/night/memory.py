"""Predict the peak memory of a night by step, before its steps begin.

The tables say how large the log and the catalogue are, and the settings whom the night learns from and how many it
asks; what a step makes of them is counted, and the constants are calibrated: `benchmarks/memory.py` prints announced
beside measured. The constants were fitted to four nights, on shops of 2,000 to 200,000 items and up to 10^7 events, of
which all, 4% or 2% of the users were learnt from: there the predicted peak is .95 to 1.08 times the largest that was
seen. A night of 10^6 items was compared with an earlier form of this alone: 10.2 GiB predicted, 9.2 seen. What a step
keeps is carried to the next; what it frees is mostly taken again.

How many users get rows does not matter: rows are made in batches, and whoever gets them is chosen among all histories.

Shapes: U users, V items.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import polars as pl

from recsys.candidates.base import LogSizes
from recsys.candidates.registry import SOURCES
from recsys.candidates.stage import block_bytes
from recsys.columns import ITEM_ID, ITEMS
from recsys.data.asked import most_asked, most_validated
from recsys.data.log import read_log
from recsys.data.prepare import drawn_share
from recsys.data.sequences import AT_ONCE, Sequences, Slices
from recsys.errors import InputError
from recsys.machine import GIB, free_on_processor, held_by_process
from recsys.models.demand import TEXT_WIDTH, NightSizes
from recsys.models.registry import estimator_for
from recsys.night.index import check_index
from recsys.retrieval.products import searched_bytes
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan
from recsys.text.mapped import LEAST

MIB: Final = 2**20
TEXT_PROGRAM: Final = 420 * MIB  # transformers, and a small encoder twice: as the library and as we have it
TEXT_BATCH: Final = 100 * MIB
# bytes of an event, by 10^7 and 10^8 of them: while a data set is made, in the first step that reads it; and then, as
# what is mapped of it: codes and times of all and of training, histories of questions
OF_PREPARED: Final = 40
OF_EVENT: Final = 16
OF_MADE: Final = 45  # bytes that the process keeps of an event of the block in which data are prepared
OF_ITEM: Final = 300  # bytes of an item: its row of the catalogue, its id, its sentence
MEASURED: Final = 10_000  # validation users on whom the blend is measured; so many test questions suffice, too
# bytes of a candidate: features, context, scores, and their copies in the fit; by 8 million at 200,000 items
OF_CANDIDATE: Final = 65
# bytes of a test question: its history and its line in the table of users; and of a rank that a ranker gives it: three
# of them, and what is made of them by cut-off. By 2,000 and 100,000 questions, and two and five rankers
OF_QUESTION: Final = 600
OF_RANK: Final = 140
SHARE_OTHERS: Final = 4 / 7  # of the sources: their candidates are mostly others
RANKED: Final = 4  # [b, V] float32 alive while a block of users is ranked, and
BLOCK_FLOATS: Final = 4_000_000  # numbers of one of them, as recsys/evaluation/ranking.py has them
# bytes of an event: in a refit's codes, which are no file's; and where those who get rows are chosen. By 10^7 events
OF_WHOLE: Final = 12
OF_SERVED: Final = 20
HALF: Final = 2  # bytes of a number of a large catalogue's text vectors; those of the blend have 4
VECTORS: Final = 3  # copies of the item vectors: the model's, the bundle's and the index's
# of a block of users that were ranked, what a refit finds no use for: none in a large night, all of it in a small one
SHARE_BLOCK: Final = 0.6
SHARE_KEPT: Final = 0.2  # of what a training took that the process keeps


def night_sizes(settings: Settings, versions: TableVersions) -> NightSizes:
    """Sizes of what is prepared of the tables at these versions; the log is read, unless it is there already.

    Raises
    ------
    InputError
        As `read_log` does.
    """
    log = read_log(settings, versions)
    lengths, touched = log.histories.lengths, len(log.ids)
    learnt = lengths
    if settings.train.users < 1:
        drawn = drawn_share(len(lengths), settings.train.users, settings.seed)
        learnt, touched = lengths[drawn], _touched(log.histories, drawn, touched)
    items, rare, values, declared = len(log.ids), 0, 0, settings.items
    if declared is not None and log.items is not None and versions.items is not None:
        items += len(log.items.join(log.ids.to_frame(), on=ITEM_ID, how="anti"))
        rare = 0 if log.rare is None or settings.filter.rare_items == "leave-out" else len(log.rare)
        catalogue = scan(settings.warehouse, ITEMS, versions.items)
        schema = catalogue.collect_schema()
        for name in declared.categorical:
            if name in schema:
                column = pl.col(name).explode() if isinstance(schema[name], pl.List) else pl.col(name)
                values += int(catalogue.select(column.n_unique()).collect(engine="streaming").item())
    return NightSizes(
        lengths=lengths,
        learnt=learnt,
        items=items,
        rare=rare,
        touched=touched,
        values=values,
        attributes=0 if declared is None else len(declared.categorical) + len(declared.numeric),
        text=TEXT_WIDTH if declared is not None and declared.text and versions.items is not None else 0,
    )


def _touched(histories: Sequences, users: np.ndarray, items: int) -> int:
    """Return how many of so many items some users' histories hold."""
    seen = np.zeros(items + 1, dtype=bool)
    for _, block in Slices.of(histories, users, histories.offsets[users], histories.offsets[users + 1]).blocks():
        seen[block.items] = True
    return int(np.count_nonzero(seen))


@dataclass(frozen=True, kw_only=True)
class NightMemory:
    """Bytes that the process holds at the peak of each step; 0: the step does not take place."""

    represent: int
    train: int
    blend: int
    evaluate: int
    refit: int
    retrieve: int

    @property
    def peak(self) -> tuple[str, int]:
        """The step that takes most, and its bytes."""
        steps = {field.name: int(getattr(self, field.name)) for field in fields(self)}
        step = max(steps, key=lambda name: steps[name])
        return step, steps[step]

    def __str__(self) -> str:
        step, peak = self.peak
        return f"The night takes about {peak / GIB:.1f} GiB of memory at its peak ({step})."


def predict_night(settings: Settings, sizes: NightSizes, held: int) -> NightMemory:
    """The peak of each step in bytes, of a process that holds `held` now."""
    events, estimator = int(sizes.lengths.sum()), estimator_for(settings)
    made = OF_MADE * min(events, AT_ONCE) + OF_ITEM * sizes.items
    represent = held + (TEXT_PROGRAM + TEXT_BATCH + OF_ITEM * sizes.items if sizes.text else 0)
    held = represent - TEXT_BATCH if sizes.text else held
    prepared = held + OF_PREPARED * events + made
    begun = held + OF_EVENT * events + made + _text_bytes(settings, sizes, model=estimator.reads_text)
    width = 4 * estimator.width(sizes)
    train, training = prepared, estimator.demand(sizes)
    if training is not None:
        validated = min(len(sizes.lengths), most_validated(settings, sizes.items))
        train = max(train, begun + training.peak + validated * (width + OF_RANK))
        begun += training.program + round(SHARE_KEPT * (training.peak - training.program))
    vectors = VECTORS * sizes.items * width
    tables, blend, counting = 0, 0, 0
    block = RANKED * 4 * max(BLOCK_FLOATS, sizes.items) + block_bytes(sizes.items)
    if settings.blend.kind != "never":
        log = LogSizes(lengths=sizes.learnt, items=sizes.items, touched=sizes.touched)
        kept, fitting = zip(*(source.memory(log) for source in SOURCES.values()), strict=True)
        tables = sum(kept)
        users = min(MEASURED, len(sizes.lengths))
        others = round(SHARE_OTHERS * len(SOURCES) * settings.blend.candidates)
        candidates = OF_CANDIDATE * users * min(others, sizes.items)
        counting = tables + max(fitting)
        blend = begun + tables + vectors + max(*fitting, candidates + block)
    else:
        block = RANKED * 4 * max(BLOCK_FLOATS, sizes.items) + searched_bytes(sizes.items)
    served = begun + tables + vectors
    refit, more = 0, 0
    if settings.train.refit != "none":  # beside the measured bundle
        again = 0 if training is None or settings.train.refit == "counts" else training.peak - training.program
        whole = OF_WHOLE * events + OF_ITEM * sizes.items
        if settings.train.refit == "all" and sizes.rare:
            grown = replace(sizes, items=sizes.items + sizes.rare, rare=0)
            texts = [_text_bytes(settings, of, model=estimator.reads_text) for of in (grown, sizes)]
            more = sizes.rare * (VECTORS * width + OF_ITEM) + texts[0] - texts[1]
            demand = estimator.demand(grown)
            again = 0 if demand is None else demand.peak - demand.program
        refit = served + round(SHARE_BLOCK * block) + whole + vectors + more + max(counting, again)
    asked = _asked(settings, sizes)
    rankers = 2 + len(settings.evaluate.baselines)
    return NightMemory(
        represent=represent,
        train=train,
        blend=blend,
        evaluate=served + block + asked * (OF_QUESTION + width + rankers * OF_RANK),
        refit=refit,
        retrieve=served + more + block + OF_SERVED * events,
    )


def _asked(settings: Settings, sizes: NightSizes) -> int:
    """Test questions that are ranked, about one a user."""
    return min(len(sizes.lengths), most_asked(settings, sizes.items))


def _text_bytes(settings: Settings, sizes: NightSizes, *, model: bool) -> int:
    """Bytes of text vectors, as the encoder gives them and as model and blend read them."""
    blend = settings.blend.text and settings.blend.kind != "never"
    if not sizes.text or not (model or blend):
        return 0
    raw, width = sizes.text, sizes.text_width(settings)
    if sizes.items < LEAST:
        return 4 * sizes.items * (raw + width)
    return sizes.items * (HALF * raw + HALF * width * model + 4 * width * blend)


def check_night(settings: Settings, versions: TableVersions) -> NightMemory:
    """The prediction, if it fits.

    Raises
    ------
    InputError
        It is more than there is; says which settings to change. Or `retrieve.index` does not fit these tables.
    """
    sizes, held, free = night_sizes(settings, versions), held_by_process(), free_on_processor()
    check_index(settings, sizes)
    memory = predict_night(settings, sizes, held)
    step, peak = memory.peak
    if free is not None and peak - held > free:
        demand = estimator_for(settings).demand(sizes) if step == "train" else None
        changed = () if demand is None else demand.advice
        if step == "blend":
            changed = ('set blend.kind = "never"',)
        if step == "evaluate" and _asked(settings, sizes) > MEASURED:
            changed = (f"set evaluate.users = {MEASURED}",)
        if step == "refit":
            less = "counts" if settings.train.refit == "all" else "none"
            changed = (f'set train.refit = "{less}"',)
            if less == "counts" and sizes.rare:
                changed = ('set filter.rare_items = "leave-out"', *changed)
        raise InputError(
            f"This night would take about {peak / GIB:.1f} GiB of memory at its peak ({step}), and the process can "
            f"have {(held + free) / GIB:.1f} GiB; {' or '.join(changed) or 'use a machine with more memory'}."
        )
    return memory
