"""This module refuses to train with another code than that of the command that asked for it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlrpl_bench.records.provenance import versions
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import PACKAGE

FOLDERS = ("methods", "datasets")
"""Beside the package in a checkout, in it where it is installed."""


def digest(plugins: Sequence[Path] = ()) -> str:
    """Identify the code of the package, of its methods and data sets and of a user's files; 64 hexadecimal digits.

    Raises:
        UserError: a file cannot be read.
    """
    found = hashlib.sha256()
    for name, path in sorted(_files(plugins)):
        try:
            content = path.read_bytes()
        except OSError as error:
            message = f"{path} cannot be read on {platform.node()} ({error.strerror}); every node needs the same files"
            raise UserError(message) from error
        found.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return found.hexdigest()


def refuse_other(code: str, of: Mapping[str, str], plugins: Sequence[Path]) -> None:
    """Compare the code and the libraries here with those of whoever asked.

    Args:
        code: the digest there.
        of: versions of the libraries there; the build of a version (``+cpu``) may differ.

    Raises:
        UserError: something differs; names this machine.
    """
    node, here = platform.node(), versions()
    for name, there in of.items():
        if _public(there) != _public(here.get(name, "none")):
            raise UserError(
                f"{node} has {name} {here.get(name, 'none')} and the command was given with {there}; "
                "install the same versions on every node"
            )
    if digest(plugins) != code:
        raise UserError(
            f"the code on {node} is not the code that the command was given with (digest {digest(plugins)[:8]} here, "
            f"{code[:8]} there); install the same on every node, and give the command again after a change"
        )


def _public(version: str) -> str:
    return version.partition("+")[0]


def _files(plugins: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Return the files by a name that does not depend on where the package lies."""
    roots = [PACKAGE, *(PACKAGE.parent / folder for folder in FOLDERS if not (PACKAGE / folder).is_dir())]
    for root in roots:
        below = PACKAGE if root == PACKAGE else PACKAGE.parent
        yield from ((path.relative_to(below).as_posix(), path) for path in root.rglob("*.py"))
    yield from ((f"plugin {path.name}", path) for path in plugins)
