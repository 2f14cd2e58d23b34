"""What differs between kinds of model is a method of the contract: only a kind's own folder knows the kind."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recsys
from recsys.errors import InputError
from recsys.models.base import Estimator, Recommender
from recsys.models.registry import estimator_of
from recsys.settings import kinds

PACKAGE = Path(recsys.__file__).parent
FOLDERS = [PACKAGE / "models" / name for name in ("text", "sequential", "recformer")]
MODELS = {"bert4rec", "recformer"}
SECTIONS = PACKAGE / "settings" / "model.py"  # a class a kind: `Literal` names it


def branches(source: str) -> Iterator[int]:
    """Lines that compare a model's kind with something, match it, or look something up by it."""
    for node in ast.walk(ast.parse(source)):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            asked = [node.slice]
        elif isinstance(node, ast.Match):
            asked = [node.subject]
        names = {ast.unparse(one) for one in asked}
        words = {leaf.value for one in asked for leaf in ast.walk(one) if isinstance(leaf, ast.Constant)}
        if any(name.endswith("model.kind") or (name.endswith("kind") and words & MODELS) for name in names):
            yield node.lineno  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        'if settings.model.kind == "text": pass',
        'x = kind in ("bert4rec", "recformer")',
        "y = SIZES[settings.model.kind]",
        "z = 1 if bundle.settings.model.kind != other else 2",
    ],
)
def test_the_search_finds_a_branch(line: str) -> None:
    assert list(branches(line)) == [1]


def test_nothing_outside_a_kinds_folder_asks_for_the_kind() -> None:
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{line}"
        for root in (PACKAGE, PACKAGE / "features", PACKAGE / "pipelines")
        for path in root.rglob("*.py")
        if path != SECTIONS and not any(path.is_relative_to(folder) for folder in FOLDERS)
        for line in branches(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("kind", ["bert4rec", "recformer", "text"])
def test_every_kind_keeps_the_contract(kind: str) -> None:
    found = estimator_of(kind)
    assert issubclass(found, Estimator) and found.kind == kind
    assert issubclass(found.recommender, Recommender) and not found.recommender.__abstractmethods__
    assert not found.__abstractmethods__


def test_an_unknown_kind_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"model.kind = 'gru' is no kind of model; the kinds are bert4rec, recformer"):
        estimator_of("gru")


def test_reading_a_configuration_imports_no_model() -> None:
    code = (
        "import sys; from recsys.settings.read import parse_settings; import recsys.settings.kinds;"
        "parse_settings({'name': 'a', 'interactions': {'source': 'a.csv'}, 'model': {'kind': 'bert4rec'}});"
        "print([name for name in sys.modules if name == 'torch' or name.startswith('recsys.models')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_kinds_section_is_named_by_its_line() -> None:
    for kind, line in kinds.KINDS.items():
        assert kinds.imported(line.settings).model_fields["kind"].default == kind
