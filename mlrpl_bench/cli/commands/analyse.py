"""This module defines the commands ``compare``, ``claims`` and ``analyse``, which read the records without training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import (
    Asked,
    JsonOption,
    PluginOption,
    ResultsOptions,
    plugin_files,
    ratio_numbers,
    result_folders,
    with_asked,
    with_setting,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.cli.terminal.panels import App
from mlrpl_bench.records.elsewhere.remote import address_of
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.api.actions.analysing import Analysis
    from mlrpl_bench.api.resolving import Resolved
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.training.options import Options

RowsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ROW", help="Rows of the table, such as sarb.", show_default="all", autocompletion=completion.method
    ),
]

analyse_app = App(
    no_args_is_help=True,
    help="Read stored scores again, without training: ensembles, ratings, costs, who wins where.",
)


@with_setting
@with_asked(out=False)
def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="METHOD_A", help="A row of the table, such as sarb.", autocompletion=completion.method),
    ],
    b: Annotated[str, typer.Argument(metavar="METHOD_B", help="Another.", autocompletion=completion.method)],
    *,
    asked: Asked,
    options: Options,
) -> None:
    """Compare two methods on the same images and seeds, with intervals and corrected p-values, from their records."""
    from mlrpl_bench.api.actions import reading

    resolved, display = _resolve(asked, options)
    with display:
        found = reading.compare_rows(resolved, display, a, b)
    if asked.as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        found.table(f"{a} and {b} on {asked.dataset}").print()
    if display.problems:
        raise typer.Exit(1)


@with_setting
@with_asked(out=False)
def claims(*, asked: Asked, options: Options) -> None:
    """Judge what the papers claim by the records there are, and write the verdicts to claims.md.

    A second table sets heads beside trainings, so that it is seen which gains belong to which.

    Claims about another setting than the data set's usual one have that setting in the file's name, as other tables do.
    """
    from mlrpl_bench.api.actions import reading
    from mlrpl_bench.training.study import Study

    resolved, display = _resolve(asked, options)
    with display:
        study = Study(resolved.dataset, resolved.request.options, display.report)
        found = reading.judge_claims(resolved, display, study)
    ending = study.variant()
    name = f"claims-{ending}.md" if ending else "claims.md"
    if asked.as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        found.table().print()
        found.heads.table().print()
    try:
        print(f"wrote {resolved.store.write_table(asked.dataset, name, found.to_markdown())}", file=sys.stderr)
    except UserError as error:  # records may be read-only; what was asked for is printed
        print(f"only printed: {error}", file=sys.stderr)
    if display.problems:
        raise typer.Exit(1)


@analyse_app.command("ensembles")
@with_setting
@with_asked()
def ensembles(
    rows: Annotated[
        list[str],
        typer.Argument(
            metavar="ROW",
            help="Rows of the table; the first is the one that the others are set beside.",
            autocompletion=completion.method,
        ),
    ],
    *,
    asked: Asked,
    options: Options,
) -> None:
    """Average the scores of two seeds and of two methods: is a method's gain more than that of a second seed?"""
    _of_dataset("ensembles", rows, asked, options)


@analyse_app.command("cost")
@with_setting
@with_asked()
def cost(rows: RowsArgument = None, *, asked: Asked, options: Options) -> None:
    """Set the CPU-hours or GPU-hours of a cell beside its mAP, as table and picture, each device by itself."""
    _of_dataset("cost", rows, asked, options)


@analyse_app.command("categories")
@with_setting
@with_asked()
def categories(rows: RowsArgument = None, *, asked: Asked, options: Options) -> None:
    """Say which row is the best in each category, and in how many categories that is sure."""
    _of_dataset("categories", rows, asked, options)


@analyse_app.command("ranks")
def ranks(
    rows: RowsArgument = None,
    datasets: Annotated[
        str | None, typer.Option("--datasets", help="Data sets with records, such as scenes,coco.", show_default="all")
    ] = None,
    ratios: Annotated[
        str | None, typer.Option("--ratios", help="Known shares such as 0.1,0.5.", show_default="all below 1")
    ] = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the table's files.", show_default="the first of --results-dir"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rate rows by who has the higher mAP: Elo and win rates over data sets, ratios and seeds, and average ranks.

    Of each data set those records count whose setting has the most.
    """
    from mlrpl_bench.api.actions import analysing
    from mlrpl_bench.cli.display import Display

    folders = result_folders(results_dir)
    names = None if datasets is None else [name.strip() for name in datasets.split(",")]
    with Display() as display:
        found = analysing.over_datasets(
            folders, plugin_files(plugin), rows or [], names, ratio_numbers(ratios), told=display
        )
    _show(found, folders[0] if out is None else out, as_json, display)


def _of_dataset(kind: str, rows: list[str] | None, asked: Asked, options: Options) -> None:
    """Analyse the records of one data set under one setting."""
    from mlrpl_bench.api.actions import analysing
    from mlrpl_bench.cli.display import Display

    request = asked.request(options)
    with Display() as display:
        found = analysing.of_dataset(kind, request, rows or [], display)
    _show(found, request.results[0] / asked.dataset if asked.out is None else asked.out, asked.as_json, display)


def _show(found: Analysis, folder: Path, as_json: bool, display: Display) -> None:
    """Print an analysis and write its files; where these cannot be written, it is only printed."""
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        for table in found.tables:
            table.print()
    try:
        if address_of(folder):
            raise UserError(f"{folder} is only read; name a folder here with --out")
        print(f"wrote {', '.join(map(str, found.write(folder)))}", file=sys.stderr)
    except UserError as error:  # records may be read-only; what was asked for is printed
        print(f"only printed: {error}", file=sys.stderr)
    if display.problems:
        raise typer.Exit(1)


def _resolve(asked: Asked, options: Options) -> tuple[Resolved, Display]:
    """Resolve a request that only reads records, and return it with the display that is told of problems."""
    from mlrpl_bench.api.resolving import resolve
    from mlrpl_bench.cli.display import Display

    display = Display()
    return resolve(asked.request(options), display), display
