"""This module defines the commands for authors of methods, ``test-method`` and ``new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlrpl_bench.cli.options import PluginOption, plugin_files, program, registries, with_options
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError


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
    *,
    options: Options,
) -> None:
    """Run the checks that every method must pass, on small random data."""
    from mlrpl_bench.tools.conformance import checks

    if permuted_labels:
        if not _is_blind_to_label_files(method, dataset, options, plugin):
            raise typer.Exit(1)
        return
    methods, _ = registries(plugin)
    failed = False
    for report in checks.reports(checks.run(methods[method])):
        print(f"{'ok    ' if report.problem is None else 'FAILED'}  {report.check}", end="")
        print("" if report.problem is None else f": {report.problem}")
        for check in report.same_fault:
            print(f"        for the same reason: {check}")
        failed |= report.problem is not None
    if failed:
        raise typer.Exit(1)


def new(name: Annotated[str, typer.Argument(help="The new method's name, a Python identifier.")]) -> None:
    """Write a new method's file: a working method to edit."""
    from mlrpl_bench.tools import new_method

    path = new_method.write(name)
    print(
        f"wrote {path}: a working method. Edit it, then\n  {program()} test-method {name}{new_method.plugin_hint(path)}"
    )
    print(f"  {program()} run {name}{new_method.plugin_hint(path)}")


def _is_blind_to_label_files(method: str, dataset: str | None, options: Options, plugin: list[Path] | None) -> bool:
    """Print whether a method's scores change with the labels in a data set's files, and return True if they do not."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools.conformance import permuted_labels

    if dataset is None:
        raise UserError("--permuted-labels needs a data set with label files: --dataset NAME --data-root FOLDER")
    methods, datasets = registries(plugin)
    with Display() as display:
        problem = permuted_labels.check(
            methods[method], datasets[dataset], options, plugin_files(plugin), display.report
        )
    what = f"the scores do not depend on the labels in the files of {dataset}"
    print(f"ok      {what}" if problem is None else f"FAILED  {what}: {problem}")
    return problem is None
