"""The tables of ``list``: methods, datasets, cells."""

from __future__ import annotations

import sys
from typing import Any

from mlrpl_bench.models import hyperparameters
from mlrpl_bench.models.registry import DatasetEntry, MethodEntry, Registry
from mlrpl_bench.records.store import ResultStore, left_out_line
from mlrpl_bench.utils.tables import counted, from_text


def methods(
    methods: Registry[MethodEntry], datasets: Registry[DatasetEntry], store: ResultStore, verbose: bool
) -> list[dict[str, Any]]:
    """One row a method."""
    rows = []
    for entry in (methods[name] for name in methods):
        row: dict[str, Any] = {"name": entry.name, "idea": entry.idea or _first_line(entry)}
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
    return rows


def datasets(
    methods: Registry[MethodEntry], datasets: Registry[DatasetEntry], store: ResultStore, verbose: bool
) -> list[dict[str, Any]]:
    """One row a dataset."""
    rows = []
    for entry in (datasets[name] for name in datasets):
        preset = entry.preset
        row: dict[str, Any] = {"name": entry.name, "about": _first_line(entry)}
        row |= {"needs --data-root": "yes" if entry.cls.needs_root else "no"}
        if verbose:
            epochs = counted(preset.epochs, "epoch")
            row |= {
                "setting": f"{preset.backbone}, {preset.image_size} px, {epochs}, batch {preset.batch}",
                "ratios": ", ".join(f"{ratio:g}" for ratio in preset.ratios),
                "file": str(entry.path),
            }
        rows.append(row)
    return rows


def cells(
    methods: Registry[MethodEntry], datasets: Registry[DatasetEntry], store: ResultStore, verbose: bool
) -> list[dict[str, Any]]:
    """One row a cell that has a record of this protocol version; the others are counted on standard error."""
    rows = []
    for dataset in store.datasets():
        survey = store.survey(dataset)
        for problem in survey.problems:
            print(f"not used: {problem}", file=sys.stderr)
        for reason, folders in survey.left_out.items():
            print(left_out_line(reason, folders), file=sys.stderr)
        for record in survey.records:
            row: dict[str, Any] = {"dataset": dataset, "cell": record.cell.title, "key": record.cell.key[:8]}
            row |= {"mAP": f"{100 * record.metrics['mAP']:.1f}"}
            if verbose:
                cost = record.content.get("cost", {})
                row |= {"seconds": f"{cost.get('seconds', 0):.0f}", "folder": str(record.folder)}
            rows.append(row)
    return rows


def _first_line(entry: MethodEntry | DatasetEntry) -> str:
    """What a method's or dataset's file says about itself first."""
    return (sys.modules[entry.cls.__module__].__doc__ or "").strip().split("\n")[0]


KINDS = {"methods": methods, "datasets": datasets, "cells": cells}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows with equal keys as a table; where there are many columns, a block for each row."""
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
