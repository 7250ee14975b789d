"""This module has what the commands under ``data`` share: where a dataset is, and what it loads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import Command, program, with_options
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import is_writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlrpl_bench.data.dataset import Dataset, Split
    from mlrpl_bench.models.registry import DatasetEntry
    from mlrpl_bench.training.options import Options

DatasetArgument = Annotated[
    str, typer.Argument(help="A registered dataset; see: list datasets.", autocompletion=completion.dataset)
]
MaskSeedOption = Annotated[int, typer.Option("--mask-seed", help="0 is the papers' mask.")]


def with_data(*more: str) -> Callable[[Command], Command]:
    """Give a command the options that say where a dataset is, which may be called ``--root`` here, and `more`."""
    return with_options("data_root", "data", *more, also={"data_root": "--root"})


def registered(name: str, options: Options, plugin: list[Path] | None) -> tuple[DatasetEntry, Dataset]:
    """Return the registered dataset and an instance of it with the options asked for."""
    from mlrpl_bench.models import hyperparameters
    from mlrpl_bench.models.registry import describe_failure, load_datasets

    registry = load_datasets([path.resolve() for path in plugin or ()])
    for path, error in registry.failures.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    entry = registry[name]
    return entry, entry.cls(hyperparameters.make_instance(entry.cls.Options, dict(options.data), entry.name, "option"))


def root_of(entry: DatasetEntry, options: Options) -> Path:
    """Return the dataset's folder, which may be missing; generated data needs none and is in the cache.

    Raises:
        UserError: no folder is named.
    """
    from mlrpl_bench.utils.files import cache_folder

    if not entry.cls.needs_root:
        return cache_folder()
    if options.data_root is None:
        raise UserError(f"where is {entry.name}? Name its folder with --root PATH or MLRPL_DATA")
    return options.data_root


def all_splits(name: str, options: Options, plugin: list[Path] | None) -> tuple[DatasetEntry, dict[str, Split]]:
    """Load the registered dataset and all its splits."""
    entry, instance, folder = opened(name, options, plugin)
    return entry, loaded(entry, instance, folder, instance.splits(folder))


def opened(name: str, options: Options, plugin: list[Path] | None) -> tuple[DatasetEntry, Dataset, Path]:
    """Return the registered dataset, an instance of it and its folder, which is there."""
    entry, instance = registered(name, options, plugin)
    folder = root_of(entry, options)
    if entry.cls.needs_root and not folder.is_dir():
        raise UserError(f"--root {folder} is not a folder")
    return entry, instance, folder


def loaded(entry: DatasetEntry, instance: Dataset, folder: Path, wanted: tuple[str, ...]) -> dict[str, Split]:
    """Load some splits of a dataset.

    Raises:
        UserError: one has no image or no category.
    """
    from mlrpl_bench.cli.display import Display

    with Display() as display:
        instance.report = display.report
        splits = {split: instance.load(folder, split) for split in wanted}
    for split, content in splits.items():
        if not len(content) or not content.categories:
            raise UserError(
                f"{entry.name}: the {split} split is empty; check it with: {program()} data check {entry.name}"
            )
    return splits


def picture_path(output: Path | None, usual: str) -> Path:
    """Return the path of a picture; one that is no PNG's or lies in no folder is refused before anything is loaded.

    So is a place that is read-only.
    """
    path = output or Path(usual)
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {path}: the picture is a PNG; name it something.png")
    refuse_no_folder(path)
    return path


def check_mask_seed(option: str, seed: int) -> None:
    """Refuse a mask seed, given by an option, that no mask can be drawn with."""
    if not 0 <= seed < 2**32:
        raise UserError(f"{option} {seed} must be between 0 and {2**32 - 1}")


def refuse_no_folder(path: Path) -> None:
    """Refuse a file to write whose folder is not there or is read-only."""
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    if not is_writable(path.parent):
        raise UserError(f"{path} cannot be written: {path.parent} is read-only; name another place with --output")
