"""This module defines the commands ``compare`` and ``claims``, which judge the records at hand without training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.options import (
    DatasetOption,
    JsonOption,
    PluginOption,
    RatiosOption,
    ResultsOptions,
    plugin_files,
    ratio_numbers,
    result_folders,
    with_setting,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.api.resolving import Resolved
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.training.options import Options

MaskSeedOption = Annotated[
    int | None, typer.Option("--mask-seed", help="Only cells of this mask.", show_default="those of mask seed = seed")
]


@with_setting
def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="METHOD_A", help="A row of the table, such as sarb.", autocompletion=completion.method),
    ],
    b: Annotated[str, typer.Argument(metavar="METHOD_B", help="Another.", autocompletion=completion.method)],
    dataset: DatasetOption = "scenes",
    ratios: RatiosOption = None,
    mask_seed: MaskSeedOption = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Compare two methods on the same images and seeds, with intervals and corrected p-values, from their records."""
    from mlrpl_bench.api.actions import reading

    resolved, display = _resolve(dataset, ratios, mask_seed, plugin, results_dir, options)
    with display:
        found = reading.compare_rows(resolved, display, a, b)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        found.table(f"{a} and {b} on {dataset}").print()
    if display.problems:
        raise typer.Exit(1)


@with_setting
def claims(
    dataset: DatasetOption = "scenes",
    ratios: RatiosOption = None,
    mask_seed: MaskSeedOption = None,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Judge what the papers claim by the records there are, and write the verdicts to claims.md.

    A second table sets heads beside trainings, so that it is seen which gains belong to which.

    Claims about another setting than the data set's usual one have that setting in the file's name, as other tables do.
    """
    from mlrpl_bench.api.actions import reading
    from mlrpl_bench.training.study import Study

    resolved, display = _resolve(dataset, ratios, mask_seed, plugin, results_dir, options)
    with display:
        study = Study(resolved.dataset, resolved.request.options, display.report)
        found = reading.judge_claims(resolved, display, study)
    ending = study.variant()
    name = f"claims-{ending}.md" if ending else "claims.md"
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        found.table().print()
        found.heads.table().print()
    try:
        print(f"wrote {resolved.store.write_table(dataset, name, found.to_markdown())}", file=sys.stderr)
    except UserError as error:  # records may be read-only; what was asked for is printed
        print(f"only printed: {error}", file=sys.stderr)
    if display.problems:
        raise typer.Exit(1)


def _resolve(
    dataset: str,
    ratios: str | None,
    mask_seed: int | None,
    plugin: list[Path] | None,
    results_dir: list[Path] | None,
    options: Options,
) -> tuple[Resolved, Display]:
    """Resolve a request that only reads records, and return it with the display that is told of problems."""
    from mlrpl_bench.api.resolving import resolve
    from mlrpl_bench.cli.display import Display

    display = Display()
    folders = plugin_files(plugin), result_folders(results_dir)
    request = Request.for_reading(dataset, options, *folders, ratio_numbers(ratios), mask_seed)
    return resolve(request, display), display
