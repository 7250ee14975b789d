"""This module has the options and helpers that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.utils.errors import UserError

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

    plugins = plugin_files(plugin)
    methods, datasets = load_methods(plugins), load_datasets(plugins)
    for path, error in {**methods.failures, **datasets.failures}.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    return methods, datasets


def plugin_files(plugin: list[Path] | None) -> tuple[Path, ...]:
    """The plug-ins' files under names that do not depend on the current folder."""
    return tuple(path.resolve() for path in plugin or ())


def result_folders(results_dirs: list[Path] | None) -> tuple[Path, ...]:
    """The folders of records; the first is written to, the others are only read."""
    return tuple(results_dirs or [Path("results")])


def result_store(results_dirs: list[Path] | None) -> ResultStore:
    """Return a record store that writes into the first folder and reads from all."""
    from mlrpl_bench.records.store import ResultStore

    first, *others = result_folders(results_dirs)
    return ResultStore(first, others)


def program() -> str:
    """Return the command as the user types it, for hints: ``python bench.py`` or ``mlrpl-bench``."""
    return "python bench.py" if Path(sys.argv[0]).name == "bench.py" else "mlrpl-bench"


def ratio_numbers(text: str | None) -> tuple[float, ...] | None:
    """``0.1,0.5`` or ``all`` to known ratios in ascending order; None stays None, the preset's."""
    from mlrpl_bench.data.dataset import NINE_RATIOS
    from mlrpl_bench.data.protocol import check_ratio

    if text is None:
        return None
    if text == "all":
        return NINE_RATIOS
    chosen = set()
    for part in text.split(","):
        try:
            chosen.add(float(part))
        except ValueError:
            raise UserError(f"--ratios {text}: {part!r} is no number; write 0.1,0.5 or all") from None
        check_ratio(float(part))
    return tuple(sorted(chosen))


def group_size(text: str) -> int | None:
    """A group of at least one cell; None, for as many as fit in memory, is ``auto``."""
    if text == "auto":
        return None
    try:
        size = int(text)
    except ValueError:
        raise UserError(f"--group {text} is neither auto nor a number of cells") from None
    if size < 1:
        raise UserError(f"--group {size} must be at least 1")
    return size


def keeps_weights(text: str) -> bool:
    """``last`` or ``none``."""
    if text not in ("last", "none"):
        raise UserError(f"--keep-weights {text} is not valid; it is last or none")
    return text == "last"


def method_names(text: str | None) -> tuple[str, ...] | None:
    """``ssgrl, sarb`` to names; None stays None, the basic methods."""
    return None if text is None else tuple(part.strip() for part in text.split(","))
