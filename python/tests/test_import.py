# SPDX-License-Identifier: MIT OR Apache-2.0
"""The package can be imported with each supported NumPy, from 1.19 on."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

import rsshm

PACKAGE = Path(rsshm.__file__).parent

OLD_NUMPY = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    # A plain class, which cannot be subscripted: as ndarray and dtype before NumPy 1.22.
    return type(name, (), {"__init__": lambda self, *arguments: None})
"""


def evaluated_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions that Python evaluates when it imports the module. The module must postpone its annotations."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        run = [*node.decorator_list, *node.args.defaults, *(value for value in node.args.kw_defaults if value)]
    elif isinstance(node, ast.Lambda):
        run = [*node.args.defaults, *(value for value in node.args.kw_defaults if value)]
    elif isinstance(node, ast.AnnAssign):
        run = [node.value] if node.value else []
    elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        run = list(node.orelse)  # type: ignore[arg-type]
    else:
        yield node
        run = list(ast.iter_child_nodes(node))  # type: ignore[arg-type]
    for child in run:
        yield from evaluated_at_import(child)


def numpy_subscripts(source: str) -> list[str]:
    """The expressions that subscript a name of NumPy and are evaluated at import."""
    return [
        ast.unparse(node)
        for node in evaluated_at_import(ast.parse(source))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).startswith(("numpy.", "np."))
    ]


def test_check_finds_numpy_alias() -> None:
    assert numpy_subscripts("class A:\n    Array = Optional[numpy.ndarray[Any, Any]]") == ["numpy.ndarray[Any, Any]"]
    assert numpy_subscripts("def f(a: numpy.dtype[Any]) -> None:\n    b: numpy.dtype[Any]") == []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_no_numpy_name_is_subscripted_at_import(path: Path) -> None:
    source = path.read_text()
    assert numpy_subscripts(source) == []
    # Without this import, Python would evaluate annotations at import too.
    assert path.name == "__init__.py" or "from __future__ import annotations" in source


def test_import_with_numpy_without_subscripts(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(OLD_NUMPY)
    done = subprocess.run(
        [sys.executable, "-c", "import numpy, rsshm; print(numpy.__file__)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert done.stdout.decode().strip() == str(tmp_path / "numpy.py")
