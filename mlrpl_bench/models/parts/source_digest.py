"""This module identifies what a Python file computes, together with the local modules that it imports.

Local are neither installed packages nor this one. Syntax trees are read, and nothing is run.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

OWN = "mlrpl_bench"
"""This package; `protocol.VERSION` stands for what its code computes.

Which of its names a file imports is part of the file's digest, from which module is not: moving a shared module must
not make another method.
"""

DESCRIPTIONS: dict[str, set[str | int]] = {
    "register_method": {"idea", "paper", "published", "differs", "default"},
    "register_step": {"idea", "paper", "differs"},
    "parameter": {1, "doc"},
}
"""Arguments, by name or place, that are words for people: rewording one makes no other method."""

MAY_HAVE_A_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

SUFFIXES = (".py", *importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True, order=True)
class LocalModule:
    """This is a module that a file imports, itself or through other local modules.

    Attributes:
        name: its name as it is imported, with dots.
        path: its file.
    """

    name: str
    path: Path

    @property
    def package(self) -> str:
        """Return the package that its relative imports start from."""
        return self.name if self.path.stem == "__init__" else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class _Imported:
    """This is one import statement.

    Attributes:
        name: the module's name without leading dots.
        level: the number of leading dots.
        of_it: the names that are taken from it, which may be modules.
    """

    name: str
    level: int = 0
    of_it: tuple[str, ...] = ()


def source_digest(path: Path) -> str:
    """Return SHA-256 of a Python file's syntax tree without words for people: docstrings, descriptions, comments,
    layout.

    Covers the local modules that the file imports, see `local_modules`; a file without any has its own digest.
    """
    own = _digest_of_text(path.read_text(encoding="utf-8"))
    modules = local_modules(path)
    if not modules:
        return own
    lines = [own, *(f"{module.name} {_digest_of_module(module)}" for module in modules)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest_of_module(module: LocalModule) -> str:
    content = module.path.read_bytes()
    try:
        return _digest_of_text(content.decode())
    except (SyntaxError, ValueError):  # compiled, or not to be read: every byte counts
        return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=256)  # asked for once a record, and parsing takes ten milliseconds
def _digest_of_text(text: str) -> str:
    tree = ast.parse(text)
    shared = sorted({_canonical(name) for node in ast.walk(tree) if _imports_ours(node) for name in node.names})
    return hashlib.sha256("\n".join([_canonical(tree), *shared]).encode()).hexdigest()


def _imports_ours(node: Any) -> TypeGuard[ast.ImportFrom]:
    """Tell whether a statement is ``from mlrpl_bench... import ...``."""
    return isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == OWN


def _canonical(node: Any) -> str:
    """Return a syntax tree as text that is the same on every Python version.

    Left out are empty fields, docstrings, descriptions and the imports from this package.
    """
    if isinstance(node, list):
        return "[" + ",".join(_canonical(each) for each in node if not _imports_ours(each)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, MAY_HAVE_A_DOCSTRING) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DESCRIPTIONS:
        described = DESCRIPTIONS[node.func.id]
        fields["keywords"] = [keyword for keyword in fields["keywords"] if keyword.arg not in described]
        fields["args"] = [argument for place, argument in enumerate(fields["args"]) if place not in described]
    kept = (f"{name}={_canonical(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({','.join(kept)})"


def local_modules(path: Path) -> list[LocalModule]:
    """Return the local modules that a file imports, in order of their names; also those that these import.

    Imports are read from the syntax tree, inside functions too, and looked for where Python looks: in `sys.path`, and
    last in the file's own folder, which a file may add to `sys.path` when it is run.
    """
    start = LocalModule("", path.resolve())
    folder = start.path.parent
    found: dict[Path, LocalModule] = {start.path: start}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        for imported in _imports(module.path.read_bytes()) if module.path.suffix == ".py" else ():
            for other in _modules(imported, module, folder):
                if other.path not in found:
                    found[other.path] = other
                    waiting.append(other)
    return sorted(module for module in found.values() if module is not start)


@functools.lru_cache(maxsize=256)  # of each file once, although it is asked for once a record
def _imports(source: bytes) -> tuple[_Imported, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # where it is imported late, the file that imports it loads all the same
        return ()
    return tuple(imported for node in ast.walk(tree) for imported in _of_node(node))


def _of_node(node: ast.AST) -> Iterator[_Imported]:
    if isinstance(node, ast.Import):
        yield from (_Imported(alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield _Imported(node.module or "", node.level, tuple(alias.name for alias in node.names))
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            name = node.args[0].value
            yield _Imported(name.lstrip("."), len(name) - len(name.lstrip(".")))


def _modules(imported: _Imported, importer: LocalModule, folder: Path) -> Iterator[LocalModule]:
    """Yield the local modules that one import runs: packages on the way, the module, and modules taken from it."""
    name = imported.name
    if imported.level:
        base = importer.package.split(".") if importer.package else []
        base = base[: max(len(base) - imported.level + 1, 0)]
        name = ".".join([*base, *filter(None, [name])])
    parts = name.split(".") if name else []
    relative_to_start = imported.level and not importer.package
    roots = [folder] if relative_to_start or not parts else _roots(parts[0], folder)
    for depth in range(1, len(parts) + 1):
        yield from _one(".".join(parts[:depth]), roots)
    for taken in imported.of_it:
        if taken == "*":  # a package's __all__ may name its modules
            yield from _all_in(name, roots)
        else:
            yield from _one(".".join([*parts, taken]), roots)


def _one(name: str, roots: list[Path]) -> Iterator[LocalModule]:
    for root in roots:
        if (file := _file(os.path.join(root, *name.split(".")))) is not None:
            yield LocalModule(name, Path(file).resolve())
            return


def _all_in(name: str, roots: list[Path]) -> Iterator[LocalModule]:
    for root in roots:
        package = root.joinpath(*name.split("."))
        for path in sorted(package.glob("*")) if name and package.is_dir() else ():
            yield from _one(f"{name}.{path.name.split('.')[0]}", [root])


def _file(place: str) -> str | None:
    """Return the file of a module that would lie at a place without its suffix; a package goes first, as in Python."""
    # Strings, as this is asked some dozen times a record.
    candidates = [os.path.join(place, "__init__" + suffix) for suffix in SUFFIXES] if os.path.isdir(place) else []
    candidates += [place + suffix for suffix in SUFFIXES]
    return next((path for path in candidates if os.path.isfile(path)), None)


def _roots(top: str, folder: Path) -> list[Path]:
    """Return the folders in which a local top-level module or package lies; none where it is installed or this package.

    A folder without ``__init__.py`` is a package only where there is no other module of its name.
    """
    if top == OWN or top in sys.builtin_module_names:
        return []
    entries = [entry or os.getcwd() for entry in sys.path]
    namespaces = []
    for entry in entries:
        if _is_installation(entry):
            if _is_installed(entry, top):
                return []
        elif _file(os.path.join(entry, top)) is not None:
            return [Path(entry)]
        elif os.path.isdir(os.path.join(entry, top)):
            namespaces.append(Path(entry))
    if namespaces or _is_installation(str(folder)):
        return namespaces
    return [folder]


@functools.cache
def _is_installation(entry: str) -> bool:
    """Tell whether a folder of `sys.path` holds installed packages or the standard library."""
    place = os.path.realpath(entry)
    if {"site-packages", "dist-packages"} & set(Path(place).parts):
        return True
    paths = sysconfig.get_paths()
    known = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    known += [*site.getsitepackages(), site.getusersitepackages()]
    return any(Path(place).is_relative_to(os.path.realpath(path)) for path in known)


@functools.cache
def _is_installed(entry: str, top: str) -> bool:
    return _file(os.path.join(entry, top)) is not None
