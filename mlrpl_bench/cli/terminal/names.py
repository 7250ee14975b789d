"""This module finds the names that files of methods and data sets register, without running the files.

Importing them takes seconds, as methods import torch; a shell that completes a name waits for a fraction of one. Names
that a file computes are not found.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from mlrpl_bench.utils.files import PACKAGE, bundled_folder

Loops = Mapping[str, Sequence[str]]
"""This maps the name of a loop's variable to its texts."""

SHARED_PRESETS = PACKAGE / "data" / "dataset.py"
"""Data sets take the presets that they share from here."""


def methods(plugins: Sequence[Path] = ()) -> list[str]:
    """List the methods of the project and of the user's files, in order."""
    return _all("methods", plugins, "register_method", "register_variant")


def steps(plugins: Sequence[Path] = ()) -> list[str]:
    """List the steps that may follow a method, in order; a row is then called ``METHOD+STEP``."""
    return _all("methods", plugins, "register_step")


def datasets(plugins: Sequence[Path] = ()) -> dict[str, list[str]]:
    """List the presets of each data set of the project and of the user's files, by name in order."""
    calls = [each for path in _files("datasets", plugins) for each in _registered(path, "register_dataset")]
    return dict(sorted(calls))


def _all(folder: str, plugins: Sequence[Path], *functions: str) -> list[str]:
    return sorted({name for path in _files(folder, plugins) for name, _ in _registered(path, *functions)})


def _files(folder: str, plugins: Sequence[Path]) -> Iterable[Path]:
    return [*sorted(bundled_folder(folder).glob("[!_]*.py")), *plugins]


def _registered(path: Path, *functions: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each name that a file registers by some functions, with the names of its presets."""
    tree = _tree(path)
    for call, loops in _calls(tree, {}, _mappings(tree)):
        if isinstance(call.func, ast.Name) and call.func.id in functions and call.args:
            presets = next((word.value for word in call.keywords if word.arg == "presets"), None)
            for name in _texts(call.args[0], loops):
                yield name, _keys(presets, tree)


def _calls(node: ast.AST, loops: Loops, mappings: Mapping[str, ast.Dict]) -> Iterator[tuple[ast.Call, Loops]]:
    """Yield every call below a node, with the texts that the variables of the loops around it stand for."""
    for child in ast.iter_child_nodes(node):
        inner = {**loops, **_variable(child, loops, mappings)} if isinstance(child, ast.For) else loops
        if isinstance(child, ast.Call):
            yield child, inner
        yield from _calls(child, inner, mappings)


def _variable(loop: ast.For, loops: Loops, mappings: Mapping[str, ast.Dict]) -> Loops:
    """Return the texts of a loop's variable, over texts or over the keys of a mapping (``in IDEAS.items()``)."""
    target = loop.target.elts[0] if isinstance(loop.target, ast.Tuple) else loop.target
    if not isinstance(target, ast.Name):
        return {}
    elements: Sequence[ast.expr | None] = loop.iter.elts if isinstance(loop.iter, (ast.Tuple, ast.List)) else []
    if isinstance(called := getattr(loop.iter, "func", None), ast.Attribute) and called.attr == "items":
        mapping = mappings.get(called.value.id) if isinstance(called.value, ast.Name) else None
        elements = mapping.keys if mapping is not None else []
    return {target.id: [text for element in elements if element is not None for text in _texts(element, loops)]}


def _texts(node: ast.expr, loops: Loops) -> list[str]:
    """List what a text may be: ``"ssgrl"``, a loop's variable, or ``f"{name}_ema"`` with one; else nothing."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Name):
        return list(loops.get(node.id, ()))
    if isinstance(node, ast.FormattedValue):
        return _texts(node.value, loops)
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in itertools.product(*(_texts(part, loops) for part in node.values))]
    return []


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
