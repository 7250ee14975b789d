"""This module defines the commands under ``records``, which pack records for others and bring in their packs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import (
    JsonOption,
    PluginOption,
    RatiosOption,
    ResultsOptions,
    method_names,
    ratio_numbers,
    registries,
    result_store,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.cli.terminal.panels import OUTPUT, App
from mlrpl_bench.utils.tables import counted

if TYPE_CHECKING:
    from mlrpl_bench.records.packs.importing import Imported

NAMED = 20
"""At most this many records of a kind are named, and the others counted."""

records_app = App(no_args_is_help=True, help="Pack records for others, and bring in the records of others.")


@records_app.command("export")
def export_(
    out: Annotated[
        Path, typer.Option("--out", help="The pack: one file if its name ends in .zip, else a folder. Must be new.")
    ],
    methods: Annotated[
        str | None, typer.Option("--methods", help="Only these, such as sarb,ssgrl.", autocompletion=completion.methods)
    ] = None,
    datasets: Annotated[
        str | None, typer.Option("--datasets", help="Only these, such as scenes.", autocompletion=completion.dataset)
    ] = None,
    ratios: RatiosOption = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Only so many training seeds, from 0.")] = None,
    cell: Annotated[
        list[str] | None, typer.Option("--cell", help="Only the cell whose key begins so. Repeatable.")
    ] = None,
    scores: Annotated[
        str,
        typer.Option(
            "--scores",
            help="float16 (mAP moves by less than 0.01 points) or float32.",
            autocompletion=completion.one_of("float16", "float32"),
        ),
    ] = "float16",
    train_scores: Annotated[
        bool, typer.Option("--train-scores", help="Also the scores of training images, which no table needs.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also the trained weights.", rich_help_panel=OUTPUT, metavar="")
    ] = False,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Pack records into one file or folder that others can import. All records, unless options choose some."""
    from mlrpl_bench.api.actions import packing
    from mlrpl_bench.cli.display import Display

    chosen = packing.Chosen(method_names(datasets), method_names(methods), ratio_numbers(ratios), seeds, cell)
    with Display() as display:
        done = packing.export(
            result_store(results_dir), out, chosen, packing.Contents(scores, train_scores, weights), display
        )
    if as_json:
        print(json.dumps(done.to_json(), indent=1))
    else:
        sizes = f"{done.bytes:,} bytes of files, scores {done.scores}"
        print(f"packed {counted(done.records, 'record')} into {done.path}: {sizes}")
        print(f"sha256 of its contents: {done.sha256}")
    if weights and done.with_weights < done.records:
        lacking = f"{done.with_weights or 'none'} of {counted(done.records, 'record')}"
        print(f"--weights: {lacking} had weights here to be packed", file=sys.stderr)
    if display.problems:
        raise typer.Exit(1)


@records_app.command("import")
def import_(
    pack: Annotated[Path, typer.Argument(help="A file or a folder that export wrote.")],
    trusted_keys: Annotated[
        Path | None,
        typer.Option(
            "--trusted-keys",
            help="Whose signatures count, and for which methods: a file of allowed signers as ssh-keygen reads it.",
        ),
    ] = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of a pack and bring in its records. Exit code 1 where a cell has other numbers here."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.records.packs.importing import bring_in

    with Display() as display:
        found = bring_in(pack, result_store(results_dir), trusted_keys, display.report)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _print(found, trusted_keys, plugin)
    if not found.is_complete():
        raise typer.Exit(1)


def _print(found: Imported, trusted_keys: Path | None, plugin: list[Path] | None) -> None:
    print(f"sha256 of its contents: {found.sha256}")
    here = f"; {counted(len(found.already), 'record')} with the same scores here already" if found.already else ""
    print(f"imported {counted(len(found.imported), 'record')}{here}")
    if trusted_keys is not None:
        names = ", ".join(sorted(set(found.signed.values()))) or "nobody"
        print(f"signed by a key in {trusted_keys}: {len(found.signed) or 'none'} of them, by {names}")
    for line in _unregistered(found, plugin):
        print(line)
    if found.conflicts:
        cells = counted(len(found.conflicts), "cell") + (" has" if len(found.conflicts) == 1 else " have")
        print(f"not imported, as {cells} other numbers here (import into another --results-dir to keep both):")
    lines = [conflict.to_text() for conflict in found.conflicts]
    for line in lines[:NAMED]:
        print(f"  {line}")
    if len(lines) > NAMED:
        print(f"  and {len(lines) - NAMED} more; --json has all")
    for reason in found.unusable:
        print(f"not imported: {reason}", file=sys.stderr)


def _unregistered(found: Imported, plugin: list[Path] | None) -> list[str]:
    """Return a line for each method of imported records that is not registered here."""
    known, _ = registries(plugin)
    numbers = Counter(record.cell.method for record in found.imported if record.cell.method not in known)
    return [
        f"{method}: {counted(number, 'record')} of a method that is not registered here; listed by list cells, "
        "in no table until its file is named with --plugin"
        for method, number in sorted(numbers.items())
    ]
