"""The commands for authors of methods: ``test-method`` and ``new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlrpl_bench.cli.options import PluginOption, program, registries


def test_method(
    method: Annotated[str, typer.Argument(help="A registered method.")],
    plugin: PluginOption = None,
    permuted_labels: Annotated[
        bool,
        typer.Option(
            "--permuted-labels", help="Instead: train it beside true and beside permuted label files of --dataset."
        ),
    ] = False,
    dataset: Annotated[str | None, typer.Option("--dataset", help="For --permuted-labels.")] = None,
    data_root: Annotated[
        Path | None, typer.Option("--data-root", envvar="MLRPL_DATA", help="The folder with its files.")
    ] = None,
    set_data: Annotated[
        list[str] | None, typer.Option("--set-data", help="An option of the data set, name=value. Repeatable.")
    ] = None,
) -> None:
    """Run the checks that every method must pass, on small random data."""
    from mlrpl_bench.cli.commands.permuted_labels import is_blind_to_label_files
    from mlrpl_bench.tools.conformance import checks

    if permuted_labels:
        if not is_blind_to_label_files(method, dataset, data_root, set_data, plugin):
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
