"""This module defines the options that say where workers train, and checks them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mlrpl_bench.cli.options import Command, in_place_of
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.launchers.placement import LAUNCHERS, MOST_WORKERS, Placement
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

_OPTIONS: dict[str, tuple[Any, str, str]] = {
    "launcher": (list[str], f"Who starts workers: {', '.join(LAUNCHERS)}.", "none, train here"),
    "workers": (int, "How many workers a --launcher starts.", "one a GPU; 1 for jobs and print"),
    "ray_address": (str, "With ray: the cluster; local starts one here.", "auto"),
    "accelerator": (str, "With ray: the kind of GPU, such as H100.", "any"),
    "partition": (str, "With submitit: SLURM's partition.", "SLURM's"),
    "time": (str, "With submitit: a job's time, in minutes or such as 1-12:30:00.", "submitit's"),
}

ShardOption = Annotated[
    str | None, typer.Option("--shard", help="Train one part of several, such as 1/3; needs no shared folder.")
]
WorkersPlannedOption = Annotated[
    int | None, typer.Option("--workers-planned", help="With --dry-run: print the groups for so many workers.")
]
LogJsonOption = Annotated[
    bool, typer.Option("--log-json", help="Progress as one JSON object a line on standard error.")
]


def with_placement(command: Command) -> Command:
    """Give a command the options of `Placement` in place of its parameter ``placement``, which is checked."""
    shared = [_parameter(name, *facts) for name, facts in _OPTIONS.items()]

    def made(values: dict[str, Any], given: Mapping[str, Any]) -> Placement:
        chosen = {name: values[f"place_{name}"] for name in _OPTIONS}
        placement = Placement(**{**chosen, "launcher": _the_one(chosen["launcher"] or ())})
        placement.check(given["options"].device)
        return placement

    return in_place_of("placement", shared, made, Options=Options, Placement=Placement)(command)


def shard_of(text: str | None) -> tuple[int, int] | None:
    """Convert ``2/3`` to (2, 3); None stays None.

    Raises:
        UserError: it is no part of anything.
    """
    if text is None:
        return None
    number, _, of = text.partition("/")
    if not all(part.isascii() and part.isdecimal() for part in (number, of)) or not 1 <= int(number) <= int(of):
        raise UserError(f"--shard {text} is not valid; write 1/3 for the first of three parts")
    return int(number), int(of)


def refuse_contradictions(
    placement: Placement, shard: tuple[int, int] | None, planned: int | None, dry_run: bool, no_train: bool = False
) -> None:
    """Refuse choices that contradict each other.

    Raises:
        UserError: names them.
    """
    if planned is not None and not dry_run:
        raise UserError("--workers-planned is for --dry-run; add it, or write --workers with a --launcher")
    if planned is not None and not 1 <= planned <= MOST_WORKERS:
        raise UserError(f"--workers-planned {planned} must be between 1 and {MOST_WORKERS}")
    if no_train and (placement.launcher is not None or shard is not None):
        other = "--launcher" if placement.launcher is not None else "--shard"
        raise UserError(f"--no-train and {other} contradict each other; leave one out")


def _the_one(launchers: Sequence[str]) -> str | None:
    if len(set(launchers)) > 1:
        raise UserError(f"--launcher {' and --launcher '.join(launchers)} contradict each other; leave one out")
    return launchers[0] if launchers else None


def _parameter(name: str, kind: Any, text: str, unset: str) -> inspect.Parameter:
    choices = completion.one_of(*LAUNCHERS) if name == "launcher" else None
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, show_default=unset, autocompletion=choices)
    annotation = Annotated[kind | None, option]
    # Not the bare name: `Options`, too, has workers, which are others.
    own = f"place_{name}"
    return inspect.Parameter(own, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)
