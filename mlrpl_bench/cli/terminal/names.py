"""This module finds the names that files of methods and data sets register, without running the files.

Importing them takes seconds, as methods import torch; a shell that completes a name waits for a fraction of one. Names
that a file computes are not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from mlrpl_bench.utils.files import PACKAGE, bundled_folder

SHARED_PRESETS = PACKAGE / "data" / "dataset.py"
"""Data sets take the presets that they share from here."""


def methods(plugins: Sequence[Path] = ()) -> list[str]:
    """List the methods of the project and of the user's files, in order."""
    return sorted({name for path in _files("methods", plugins) for name, _ in _registered(path, "register_method")})


def datasets(plugins: Sequence[Path] = ()) -> dict[str, list[str]]:
    """List the presets of each data set of the project and of the user's files, by name in order."""
    calls = [each for path in _files("datasets", plugins) for each in _registered(path, "register_dataset")]
    return dict(sorted(calls))


def _files(folder: str, plugins: Sequence[Path]) -> Iterable[Path]:
    return [*sorted(bundled_folder(folder).glob("[!_]*.py")), *plugins]


def _registered(path: Path, function: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each name that a file registers, with the names of its presets."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function):
            continue
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(name := node.args[0].value, str):
            presets = next((word.value for word in node.keywords if word.arg == "presets"), None)
            yield name, _keys(presets, tree)


def _keys(node: ast.expr | None, tree: ast.Module) -> list[str]:
    """List the texts that are keys of a mapping, which may have a name in its file or among the shared presets."""
    if isinstance(node, ast.Call) and node.args:  # MappingProxyType({...})
        node = node.args[0]
    if isinstance(node, ast.Name):
        named = {**_mappings(_tree(SHARED_PRESETS)), **_mappings(tree)}
        node = named.get(node.id)
    keys = node.keys if isinstance(node, ast.Dict) else []
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def _mappings(tree: ast.Module) -> Mapping[str, ast.Dict]:
    found: dict[str, ast.Dict] = {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and value.args:
            value = value.args[0]
        if isinstance(value, ast.Dict):
            found |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return found


@cache
def _tree(path: Path) -> ast.Module:
    """Parse a file; one that cannot be read or is no Python has nothing in it."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])
