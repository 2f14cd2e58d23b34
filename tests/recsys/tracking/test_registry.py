"""The registered model's requirements name what its code imports."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

from recsys.settings.kinds import KINDS
from recsys.tracking.registry import _PACKAGES

ROOT = Path(__file__).parents[3]


def test_the_requirements_bring_every_library_that_answering_imports() -> None:
    """Also what is imported late: the kinds of model, and the compiled loops for many queries at once."""
    kinds = [kind.estimator.partition(":")[0] for kind in KINDS.values()]
    answering = ["recsys.serving.mlflow_model", "recsys.loops.compiled", *(k for k in kinds if k.startswith("recsys."))]
    found = libraries(answering)
    assert {"mlflow", "deltalake", "numba"} <= found
    distributions = packages_distributions()
    brought = brought_by(["mlflow", *_PACKAGES])  # MLflow adds itself
    assert {name for name in found if not brought & {normal(one) for one in distributions[name]}} == set()


def libraries(modules: Iterable[str]) -> set[str]:
    """Other people's packages that these modules of ours, and all of ours that they import, import as they load."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        top, *rest = name.split(".")
        if top != "recsys":
            found |= {top} - sys.stdlib_module_names
            continue
        for length in range(len(rest) + 1):
            module = ".".join([top, *rest[:length]])
            path = ROOT / module.replace(".", "/")
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if module not in seen and file.is_file():  # else the name of something in a module
                seen.add(module)
                todo += imports(ast.parse(file.read_text(encoding="utf-8")).body)
    return found


def imports(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(ast.iter_child_nodes(node))


def brought_by(packages: Iterable[str]) -> set[str]:
    """Packages and all that they require."""
    found: set[str] = set()
    todo = list(packages)
    while todo:
        name = normal(todo.pop())
        if name not in found:
            found.add(name)
            wanted = map(Requirement, requires(name) or ())
            todo += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
