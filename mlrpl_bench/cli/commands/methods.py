"""This module defines the commands for authors of methods, ``test-method`` and ``new``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import JsonOption, PluginOption, plugin_files, program, registries, with_options
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.tools.conformance.checks import Report


@with_options("data_root", "data")
def test_method(
    method: Annotated[str, typer.Argument(help="A registered method.", autocompletion=completion.method)],
    plugin: PluginOption = None,
    permuted_labels: Annotated[
        bool,
        typer.Option(
            "--permuted-labels", help="Instead: train it beside true and beside permuted label files of --dataset."
        ),
    ] = False,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="For --permuted-labels.", autocompletion=completion.dataset)
    ] = None,
    as_json: JsonOption = False,
    *,
    options: Options,
) -> None:
    """Run the checks that every method must pass, on small random data."""
    from mlrpl_bench.tools.conformance import checks

    if permuted_labels:
        found = [_blind_to_label_files(method, dataset, options, plugin)]
    else:
        methods, _ = registries(plugin)
        found = checks.reports(checks.run(methods[method]))
    holds = all(report.problem is None for report in found)
    if as_json:
        content = [{"check": each.check, "problem": each.problem, "same_fault": each.same_fault} for each in found]
        print(json.dumps({"method": method, "holds": holds, "checks": content}, indent=1))
    else:
        _print(found)
    if not holds:
        raise typer.Exit(1)


def _print(found: Sequence[Report]) -> None:
    for report in found:
        print(f"{'ok    ' if report.problem is None else 'FAILED'}  {report.check}", end="")
        print("" if report.problem is None else f": {report.problem}")
        for check in report.same_fault:
            print(f"        for the same reason: {check}")


def new(name: Annotated[str, typer.Argument(help="The new method's name, a Python identifier.")]) -> None:
    """Write a new method's file: a working method to edit."""
    from mlrpl_bench.tools import new_method

    path = new_method.write(name)
    print(
        f"wrote {path}: a working method. Edit it, then\n  {program()} test-method {name}{new_method.plugin_hint(path)}"
    )
    print(f"  {program()} run {name}{new_method.plugin_hint(path)}")


def _blind_to_label_files(method: str, dataset: str | None, options: Options, plugin: list[Path] | None) -> Report:
    """Check whether a method's scores change with the labels in a data set's files."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools.conformance import permuted_labels
    from mlrpl_bench.tools.conformance.checks import Report

    if dataset is None:
        raise UserError("--permuted-labels needs a data set with label files: --dataset NAME --data-root FOLDER")
    methods, datasets = registries(plugin)
    with Display() as display:
        problem = permuted_labels.check(
            methods[method], datasets[dataset], options, plugin_files(plugin), display.report
        )
    return Report(f"the scores do not depend on the labels in the files of {dataset}", problem)
