"""The command ``fill``: the labels that nobody gave, by a trained cell, at a promised precision."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli.options import (
    JsonOption,
    PluginOption,
    ResultsOptions,
    plugin_files,
    result_folders,
    say_which_record,
    with_options,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.training.options import Options, check_values, described
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.api.actions.filling import Filled


@with_options(*(name for name in described() if name != "precision"))
def fill(
    method: Annotated[
        str, typer.Argument(help="A method with a record; see: list cells.", autocompletion=completion.method)
    ],
    cell: Annotated[
        str | None, typer.Option("--cell", help="The beginning of a record's key; see: list cells.")
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", help="What it was trained on; labels are missing.", autocompletion=completion.dataset
        ),
    ] = "table",
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Its known ratio.", show_default="the highest below 1")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Its training seed.", show_default="the lowest")] = None,
    promised: Annotated[
        float, typer.Option("--precision", help="Share of the filled-in labels that is to be right.")
    ] = 0.95,
    trained_precision: Annotated[
        str, typer.Option("--trained-precision", help="Arithmetic of the training: what is --precision of run.")
    ] = Options.precision,
    output: Annotated[Path, typer.Option("--output", help="The folder for what is written.")] = Path("filled"),
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Fill in labels that nobody gave: calibrated probabilities, and those sure enough for a promised precision."""
    from mlrpl_bench.api.actions import filling
    from mlrpl_bench.api.resolving import resolve
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools.filling import tables
    from mlrpl_bench.tools.predict import Wanted

    wanted = Wanted(cell, ratio, seed)
    filling.check_precision(promised)
    options = dataclasses.replace(options, precision=trained_precision)
    check_values(options)
    _refuse_folder(output)
    request = Request.for_reading(dataset, options, plugin_files(plugin), result_folders(results_dir))
    with Display() as display:
        resolved = resolve(request, display, needs_ratios=False)
        filled = filling.fill(resolved, display, method, wanted, promised)
    say_which_record(filled.title, filled.key, filled.fitting)
    written = filled.write(output)
    if as_json:
        content = {"cell": filled.title, "key": filled.key, **tables.to_json(filled.filling)}
        print(json.dumps({**content, "written": list(map(str, written))}, indent=1))
    else:
        _print(filled)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def _refuse_folder(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; name a folder")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}")


def _print(filled: Filled) -> None:
    from mlrpl_bench.tools.filling import tables

    filling = filled.filling
    tables.calibration_table(filling).print()
    tables.promise_table(filling).print()
    set_ = sum(promise.choice.set for promise in filling.promises)
    wrong = sum(promise.choice.expected_wrong for promise in filling.promises)
    print(f"\n{set_:,} of {filling.num_unknown:,} unknown labels are set; about {wrong:,.0f} of these are wrong")
