"""This module defines the command ``list``, which prints tables of methods, data sets and cells."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrpl_bench.cli.options import JsonOption, PluginOption, ResultsOptions, registries, result_store
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError, one_line
from mlrpl_bench.utils.tables import counted, from_text

if TYPE_CHECKING:
    from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
    from mlrpl_bench.records.store import ResultStore

ADDRESS = re.compile(r",?\s*https?://[^\s)]+")
"""An address cannot be broken, so that a table with it does not fit a terminal; -v shows it."""


def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="methods, datasets or cells.", autocompletion=completion.one_of("methods", "datasets", "cells")
        ),
    ] = "methods",
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also papers, differences, settings.")] = False,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/methods.md; measures costs.")] = False,
    plugin: PluginOption = None,
    results_dir: ResultsOptions = None,
) -> None:
    """List methods or datasets, and how many cells of each are trained; or the cells that are trained or begun."""
    if what not in KINDS:
        raise UserError(f"nothing called {what!r} to list; there are: {', '.join(KINDS)}")
    methods, datasets = registries(plugin)
    if markdown and what != "methods":
        raise UserError(f"--markdown makes the page of methods; there is none of {what}")
    if markdown:
        print(_page_of_methods(methods, datasets["scenes"]), end="")
        return
    rows = KINDS[what](methods, datasets, result_store(results_dir), verbose)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print_table(rows)


def methods(
    methods: Registry[MethodEntry], datasets: Registry[DatasetEntry], store: ResultStore, verbose: bool
) -> list[dict[str, Any]]:
    """Return a row for each method, with its trained cells, for each alias, and for each step that can follow."""
    from mlrpl_bench.models import hyperparameters

    rows = []
    for entry in (methods[name] for name in methods):
        row: dict[str, Any] = {"name": entry.name, "idea": entry.idea or _first_paragraph(entry)}
        row |= {"default": "yes" if entry.default else ""}
        if verbose:
            row |= {
                "paper": entry.paper,
                "published as": entry.published,
                "differs": entry.differs,
                "hyper-parameters": hyperparameters.describe(entry.cls.Hyperparameters).removeprefix("valid: "),
                "set to": ", ".join(f"{name}={value}" for name, value in entry.settings.items()),
                "file": str(entry.path),
            }
        rows.append(row)
    for alias in methods.aliases.values():
        row = dict.fromkeys(rows[0] if rows else ("name", "idea"), "")
        rows.append(row | {"name": alias.name, "idea": f"{alias.method} at known ratio {alias.ratio:g}"})
    for name, step in sorted(methods.steps.items()):
        row = dict.fromkeys(rows[0] if rows else ("name", "idea"), "")
        row |= {"name": f"METHOD+{name}", "idea": f"Any method with a last linear layer; then: {step.idea}"}
        if verbose:
            settings = ", ".join(f"{each}={value}" for each, value in step.settings.items())
            described = hyperparameters.describe(step.cls.Hyperparameters).removeprefix("valid: ")
            row |= {"paper": step.paper, "differs": step.differs, "hyper-parameters": described, "set to": settings}
            row |= {"file": str(step.path)}
        rows.append(row)
    by_dataset = _trained(store)
    return _with_trained(rows, {name: {of: number[name] for of, number in by_dataset.items()} for name in methods})


def datasets(
    methods: Registry[MethodEntry], datasets: Registry[DatasetEntry], store: ResultStore, verbose: bool
) -> list[dict[str, Any]]:
    """Return a row for each dataset, with the number of cells that have a record."""
    rows = []
    for entry in (datasets[name] for name in datasets):
        preset = entry.preset
        about = _first_paragraph(entry)
        row: dict[str, Any] = {"name": entry.name, "about": about if verbose else ADDRESS.sub("", about)}
        row |= {"needs --data-root": "yes" if entry.cls.needs_root else "no"}
        if verbose:
            epochs = counted(preset.epochs, "epoch")
            row |= {
                "setting": f"{preset.backbone}, {preset.image_size} px, {epochs}, batch {preset.batch}",
                "other presets": ", ".join(name for name, other in entry.presets.items() if other != preset),
                "ratios": ", ".join(f"{ratio:g}" for ratio in preset.ratios),
                "file": str(entry.path),
            }
        rows.append(row)
    return _with_trained(rows, {name: {"": numbers.total()} for name, numbers in _trained(store).items()})


def cells(
    methods: Registry[MethodEntry], datasets: Registry[DatasetEntry], store: ResultStore, verbose: bool
) -> list[dict[str, Any]]:
    """Return a row for each cell that has a record of this protocol version or was begun.

    Standard error tells of records that cannot be used.
    """
    from mlrpl_bench.api.actions.reading import list_records, unfinished
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.records.elsewhere.origin import OWN

    rows = []
    for _, record in list_records(store, None, Display()).iterrows():
        row: dict[str, Any] = {"dataset": record["dataset"], "cell": record["title"], "key": record["key"][:8]}
        status = "finished" if record["status"] == OWN.status else record["status"]
        row |= {"mAP": f"{record['mAP']:.1f}", "status": status}
        if verbose:
            row |= {"origin": record["origin"], "seconds": f"{record['seconds']:.0f}", "folder": record["folder"]}
        rows.append(row)
    for name in store.datasets():
        for folder, status in unfinished(store, name).items():
            row = {"dataset": name, **_named(folder), "mAP": "", "status": status}
            rows.append(row | ({"origin": "", "seconds": "", "folder": str(folder)} if verbose else {}))
    return rows


def _named(folder: Path) -> dict[str, str]:
    """Return the name and the key of a cell without a record, as far as its folder tells."""
    if (found := re.fullmatch(r"(.+)-s(\d+)-([0-9a-f]{8})", folder.name)) is None:
        return {"cell": f"{folder.parent.name}/{folder.name}", "key": ""}
    ratio, seed, key = found.groups()
    return {"cell": f"{folder.parent.name} {100 * float(ratio):g} % seed {seed}", "key": key}


def _trained(store: ResultStore) -> dict[str, Counter[str]]:
    """Count the cells of each data set that have a record, by method; records are not read, which would take long."""
    return {
        dataset: Counter(method for method, _ in {path.parent.parts[-2:] for path in store.record_files(dataset)})
        for dataset in store.datasets()
    }


def _with_trained(rows: list[dict[str, Any]], trained: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Add to each row how many cells of its name have a record, and of which data set: ``3 scenes, 2 coco``."""
    for row in rows:
        numbers = {dataset: number for dataset, number in trained.get(row["name"], {}).items() if number}
        row["trained"] = ", ".join(f"{number:,} {dataset}".strip() for dataset, number in numbers.items())
    return rows


def _first_paragraph(entry: MethodEntry | DatasetEntry) -> str:
    """Return what a method's or dataset's file says first about itself; a line of it may end within a sentence."""
    return one_line((sys.modules[entry.cls.__module__].__doc__ or "").strip().split("\n\n")[0])


KINDS = {"methods": methods, "datasets": datasets, "cells": cells}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows with equal keys as a table; where there are many columns, print a block for each row."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not rows:
        console.print("none")
    elif len(rows[0]) > 5:
        for row in rows:
            console.print(Text(row["name"] if "name" in row else row["cell"], style="bold"))
            for name, value in row.items():
                if value and name != "name":
                    console.print(f"  {name}: {value}", markup=False)
    else:
        from_text("list", "", list(rows[0]), [list(row.values()) for row in rows], (), wraps=True).print()


def _page_of_methods(methods: Registry[MethodEntry], dataset: DatasetEntry) -> str:
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools import method_page
    from mlrpl_bench.training.options import Options
    from mlrpl_bench.training.study import Study

    with Display() as display:
        study = Study(dataset, Options(), display.report)
        costs = method_page.step_costs(study, methods, "ssgrl", display.report)
    preset = dataset.preset
    where = f"`{dataset.name}` ({preset.backbone} backbone, {preset.image_size} px, batch {preset.batch})"
    return method_page.page(methods, costs, "ssgrl", f"{where} on {study.workbench.fabric.device.type}")
