"""The `recsys` command, a module a group of commands; `recsys.pipelines.cli` puts them together."""

from __future__ import annotations
