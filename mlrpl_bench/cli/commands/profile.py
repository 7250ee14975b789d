"""This module defines the command ``profile``, which measures what a training step of each method costs, and where."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import (
    JsonOption,
    PluginOption,
    ResultsOptions,
    method_names,
    registries,
    result_store,
    with_options,
)
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import is_writable

if TYPE_CHECKING:
    from mlrpl_bench.models.registry import DatasetEntry, Registry
    from mlrpl_bench.tools.profiling.settings import ProfilingSetting
    from mlrpl_bench.training.options import Options
    from mlrpl_bench.utils.progress import Report

PAPER = "paper"


@with_options(
    "data_root",
    "preset",
    "data",
    "image_backend",
    "batch",
    "image_size",
    "backbone",
    "trained_stages",
    "feature_width",
    "attention_width",
    "precision",
    "device",
    "compile",
)
def profile(
    methods: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="Names such as ssgrl,sarb, or all, or paper.",
            autocompletion=completion.methods,
        ),
    ],
    setting: Annotated[
        str,
        typer.Option(
            "--setting",
            help="A dataset, with its preset; or paper: made-up images in memory.",
            autocompletion=completion.setting,
        ),
    ] = "scenes",
    classes: Annotated[
        int | None, typer.Option("--classes", help="Categories of the paper's setting.", show_default="80")
    ] = None,
    ratio: Annotated[float, typer.Option("--ratio", help="Share of the labels that is known.")] = 0.1,
    steps: Annotated[int, typer.Option("--steps", help="How many steps the medians are of.")] = 5,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the table: the data set's leaderboard shows it from then on.")
    ] = False,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Measure the time of a training step by parts, its memory and its share of the machine's peak; trains nothing.

    A second table says what share of a whole cell evaluation, training scores, example pictures and evidence have.
    """
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.models.registry import chosen_methods
    from mlrpl_bench.tools.profiling import step_costs

    _check(setting, classes, ratio, steps, save, options)
    registry, datasets = registries(plugin)
    entries = chosen_methods(registry, method_names(methods))
    # A step costs the same with any weights: none are fetched or pre-trained.
    options = replace(options, weights="random")
    store = result_store(results_dir)
    if save and not is_writable(store.root / setting):
        raise UserError(f"--save: {store.root / setting} is read-only; leave --save out, or name another --results-dir")
    with Display() as display:
        bench = _bench(datasets, setting, options, classes, ratio, display.report)
        found = step_costs.profile(bench, entries, steps, display.report)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        for table in found.tables():
            table.print()
    if save:
        path = store.write_table(setting, step_costs.FILE, json.dumps(found.to_json(), indent=1) + "\n")
        print(f"wrote {path}", file=sys.stderr)
    for name, reason in found.failures:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if found.failures:
        raise typer.Exit(1)


def _bench(
    datasets: Registry[DatasetEntry],
    setting: str,
    options: Options,
    classes: int | None,
    ratio: float,
    report: Report,
) -> ProfilingSetting:
    from mlrpl_bench.tools.profiling import settings

    if setting == PAPER:
        return settings.paper_setting(options, 80 if classes is None else classes, ratio, report)
    if setting not in datasets:
        raise UserError(f"no setting {setting!r}; there are: {PAPER}, {', '.join(datasets)}")
    return settings.dataset_setting(datasets[setting], options, ratio, report)


def _check(setting: str, classes: int | None, ratio: float, steps: int, save: bool, options: Options) -> None:
    """Refuse bad arguments before anything is loaded."""
    if classes is not None and setting != PAPER:
        raise UserError(f"--classes goes with --setting {PAPER}; {setting} has its own categories")
    if save and setting == PAPER:
        raise UserError("--save goes with a data set, whose leaderboard shows the table; leave out --setting paper")
    for option, given in (("--preset", options.preset), ("--set-data", options.data)):
        if given and setting == PAPER:
            raise UserError(f"{option} goes with a data set; name it with --setting")
    for option, number in (("--classes", classes), ("--steps", steps)):
        if number is not None and number < 1:
            raise UserError(f"{option} {number} must be at least 1")
    if not 0 < ratio <= 1:
        raise UserError(f"--ratio {ratio:g} must be above 0 and at most 1")
