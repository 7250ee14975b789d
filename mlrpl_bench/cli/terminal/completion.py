"""This module says what a shell may complete: names of methods, data sets, presets, launchers and other choices.

Nothing here runs code of the user or imports what takes long, see `names`. Options are completed by Typer itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from mlrpl_bench.cli.terminal import names
from mlrpl_bench.utils.errors import UserError

COMMAND = "mlrpl-bench"
"""The installed command, which alone is completed: a shell completes a command's arguments by the command's name."""

FLAGS = ("--install-completion", "--show-completion")
VARIABLE = "_MLRPL_BENCH_COMPLETE"
"""The shell asks by this environment variable."""

GROUPS = ("all", "paper")
"""These are the words that ``--methods`` takes besides names."""

Completer = Callable[[typer.Context, str], list[str]]


def is_asked_for() -> bool:
    """Tell whether a shell, or who installs completion, waits for an answer; Typer then ends the process itself."""
    return VARIABLE in os.environ or bool(set(sys.argv[1:2]) & set(FLAGS))


def refuse_for_a_script() -> None:
    """Refuse to install completion for ``python bench.py``, which no shell completes.

    Raises:
        UserError: it was asked for.
    """
    if Path(sys.argv[0]).name == "bench.py" and (asked := set(sys.argv[1:2]) & set(FLAGS)):
        raise UserError(
            f"a shell completes commands, not python scripts; pip install -e . here, then {COMMAND} {asked.pop()}"
        )


def method(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a method, or that of the step that follows it."""
    before, plus, _ = incomplete.partition("+")
    if plus:
        return _beginning_with(incomplete, [f"{before}+{step}" for step in names.steps(_plugins(ctx))])
    return _beginning_with(incomplete, names.methods(_plugins(ctx)))


def methods(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the last of some names of methods with commas between, or ``all`` or ``paper`` alone."""
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    found = [name for name in method(ctx, last) if name not in given]
    return [f"{before}{comma}{name}" for name in [*found, *(() if comma else _beginning_with(last, GROUPS))]]


def dataset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a data set."""
    return _beginning_with(incomplete, names.datasets(_plugins(ctx)))


def setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a data set, or ``paper``."""
    return _beginning_with(incomplete, [*names.datasets(_plugins(ctx)), "paper"])


def preset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a preset: of the data set that is named, else of any."""
    found = names.datasets(_plugins(ctx))
    source = ctx.get_parameter_source("dataset")
    is_named = source is not None and source.name != "DEFAULT"
    presets = found.get(ctx.params["dataset"], []) if is_named else [name for of in found.values() for name in of]
    return _beginning_with(incomplete, dict.fromkeys(presets))


def one_of(*choices: str) -> Completer:
    """Make a completer for fixed choices."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return _beginning_with(incomplete, choices)

    return complete


def option(name: str, choices: Iterable[str]) -> Completer | None:
    """Return the completer of a field of `Options`; None where nothing is known of its values.

    Args:
        choices: the field's own, if it has any.
    """
    if name == "preset":
        return preset
    known = tuple(choices) or {"device": ("auto", "cpu", "cuda"), "weights": ("random",)}.get(name, ())
    return one_of(*known) if known else None


def _beginning_with(incomplete: str, found: Iterable[str]) -> list[str]:
    return [name for name in found if name.startswith(incomplete)]


def _plugins(ctx: Any) -> list[Path]:
    return [Path(path).expanduser() for path in ctx.params.get("plugin") or ()]
