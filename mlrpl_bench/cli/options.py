"""This module has the options and helpers that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
    from mlrpl_bench.records.store import ResultStore

DatasetOption = Annotated[str, typer.Option("--dataset", help="A registered dataset; see: list datasets.")]
RatiosOption = Annotated[
    str | None,
    typer.Option("--ratios", help="Known shares such as 0.1,0.5, or all (0.1 to 0.9).", show_default="preset's"),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        help="Your own method or dataset file. Its code is run; nothing else that you name is. Repeatable.",
    ),
]
ResultsOptions = Annotated[
    list[Path] | None,
    typer.Option(
        "--results-dir",
        help="Where records and tables are kept. Repeatable: the others are only read.",
        show_default="results",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def registries(plugin: list[Path] | None) -> tuple[Registry[MethodEntry], Registry[DatasetEntry]]:
    """Load all methods and datasets; a file that cannot be loaded becomes a warning."""
    from mlrpl_bench.models.registry import describe_failure, load_datasets, load_methods

    plugins = [path.resolve() for path in plugin or ()]
    methods, datasets = load_methods(plugins), load_datasets(plugins)
    for path, error in {**methods.failures, **datasets.failures}.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    return methods, datasets


def result_store(results_dirs: list[Path] | None) -> ResultStore:
    """Return a record store that writes into the first folder and reads from all."""
    from mlrpl_bench.records.store import ResultStore

    first, *others = results_dirs or [Path("results")]
    return ResultStore(first, others)


def program() -> str:
    """Return the command as the user types it, for hints: ``python bench.py`` or ``mlrpl-bench``."""
    return "python bench.py" if Path(sys.argv[0]).name == "bench.py" else "mlrpl-bench"
