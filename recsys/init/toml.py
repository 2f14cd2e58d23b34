"""Settings as TOML in which every key says its type or range and its meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import tomlkit
from tomlkit.items import Table

from recsys.settings.read import parse_settings

_TITLES: Final = {
    "interactions": "The interaction log.",
    "items": "The item catalogue.",
    "users": "The user table.",
    "filter": "Which interactions count.",
    "split": "What is held out for validation and test.",
    "model": "The item tower and the sequence encoder.",
    "train": "Training: first to tell what comes next, then to fill in what is hidden (cloze).",
    "evaluate": "The offline report.",
    "retrieve": "The candidate table.",
    "gate": "What keeps a night's work from being published.",
    "export": "The copy of the candidate table for downstream services.",
    "tracking": "MLflow.",
}

_COMMENTS: Final = {
    "name": "(letters, digits, _ . -) names the experiment and the registered model",
    "seed": "(0 or more) equal seeds and data give equal tables",
    "data_root": "(folder or URL) what the sources are relative to; itself to this file, as every path is",
    "warehouse": "(folder or URL) root of the Delta tables, bundles and run states",
    "source": "(path, glob or a list of them) local, s3://, gs://, abfss://",
    "format": "(csv, jsonl, parquet, delta, sequences) sequences: a user and the items in order, a line",
    "separator": "(text) between two fields, '::' too",
    "decimal": "(. or ,) before the fraction of weights, numeric attributes and numbers of conditions",
    "encoding": "(codec) utf-8, latin-1, ... any that Python knows",
    "fields": "(names) of the fields, as the file has no header line",
    "columns": "(ours = theirs) what the file's columns mean",
    "time_unit": "(auto, s, ms, us) of numeric times; auto decides by magnitude",
    "time_format": "(pattern or a list) of written times: %d day, %m month, %Y year, %H:%M:%S clock, %I %p am or pm",
    "max_rejected_share": "(0 to 1) more rejected rows than this stop the run",
    "timezone": "(zone) of times written without one; this one is a GUESS, set the log's own",
    "text": "(attributes) of the item's sentence, in this order; the first one is the title",
    "categorical": "(attributes) that become features; separator splits one string into several values",
    "numeric": "(attributes) that become features by buckets of their size",
    "min_user_interactions": "(1 or more) users with fewer are left out; iterative k-core with the next",
    "min_item_interactions": '(1 or more) items with fewer are left out; rare_items = "by-content" serves them by text',
    "drop": "rows that meet one of these are left out before they are judged, and counted",
    "withdraw": "rows that meet one of these take their user's newest earlier event with their item back",
    "several": "(last, most-frequent) of rows that share an id: the last, or what most of them say",
    "same_time": "(order, basket) a user's events at one time: in the log's order, or one step",
    "objective": "(cloze, next-item) what training asks",
    "repeat_bias": "(true, false) a learned bias for items already in the history, by how long ago they occurred",
    "events": "(names) the events that count; found",
    "repeats": "(keep, first, last) a user's repeated item: all, the first, the last",
    "strategy": "(leave-one-out, time) time holds out everything after a moment",
    "kind": "(bert4rec, text, recformer) text trains nothing and averages the history's texts; recformer reads them",
    "dimensions": "(8 or more) width of item vectors and of the encoder",
    "max_length": "(2 or more) events of a history that the encoder reads, the newest",
    "epochs": "(0 or more) training stops earlier when validation no longer gains; 0 trains nothing",
    "batch_size": "(1 or more) histories a step",
    "learning_rate": "(above 0) at its highest, after the warm-up",
    "k": "(1 or more) candidates a user",
    "exclude_seen": "(true, false) never recommend what the history holds",
    "path": "(folder or file) where the copy goes",
    "uri": "(address) of an MLflow server, or a local store",
    "export.format": "(parquet, csv, jsonl)",
}

_RULE: Final = (
    "rules shape the lists before they are cut at k, see docs/how-to/set-rules.md, such as:",
    "[rules.few-of-a-brand]",
    'kind = "at_most"',
    'column = "brand"',
    "n = 5",
)


def configuration(
    tree: Mapping[str, Any],
    unsure: Sequence[str] = (),
    offers: Mapping[str, Mapping[str, tuple[Any, str]]] = MappingProxyType({}),
) -> str:
    """A tree of settings as commented TOML.

    Parameters
    ----------
    tree
        Values by key; a mapping under a key of `_TITLES` is a section.
    unsure
        Sentences for the head: what to look at before the first run.
    offers
        By section and key a value that is written as a comment, and what is said about it.

    Raises
    ------
    InputError
        The tree is no valid configuration.
    """
    parse_settings(dict(tree))
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `recsys init`; run it with `recsys run`, override with --set key=value."))
    if unsure:
        document.add(tomlkit.comment("Look at these before the first run:"))
        for sentence in unsure:
            document.add(tomlkit.comment(f"- {_one_line(sentence)}"))
    document.add(tomlkit.nl())
    for key, value in tree.items():
        if key in _TITLES:
            section = tomlkit.table()
            section.comment(_TITLES[key])
            for inner, inner_value in value.items():
                _add(section, inner, inner_value, _COMMENTS.get(f"{key}.{inner}") or _COMMENTS[inner])
            for offered, (offered_value, why) in offers.get(key, {}).items():
                written = f"{offered} = {tomlkit.item(offered_value).as_string()}"
                section.add(tomlkit.comment(_one_line(f"{written}  # {_COMMENTS[offered]} {why}")))
            for line in _RULE if key == "retrieve" and "items" in tree else ():
                section.add(tomlkit.comment(line))
            document.add(tomlkit.nl())
            document.add(key, section)
        else:
            _add(document, key, value, _COMMENTS[key])
    return tomlkit.dumps(document)


def _add(target: Table | tomlkit.TOMLDocument, key: str, value: Any, comment: str) -> None:
    item = _inline(value) if isinstance(value, Mapping | list) else tomlkit.item(value)
    item.comment(comment)
    target.add(key, item)


def _inline(value: Mapping[str, Any] | list[Any]) -> Any:
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_inline(inner) if isinstance(inner, Mapping) else inner)
        return array.multiline(any(isinstance(inner, Mapping) for inner in value))
    table = tomlkit.inline_table()
    for key, inner in value.items():
        table.append(key, _inline(inner) if isinstance(inner, Mapping) else inner)
    return table


def _one_line(sentence: str) -> str:
    """A file's name or value in a comment must not end it."""
    return "".join(character if character.isprintable() else " " for character in sentence)
