"""What a table of labels costs to read: time and memory of the data set `table`, beside pandas' reader of CSV.

    python -m benchmarks.label_tables [--rows 1000000] [--categories 100] [--given 0.5] [--json PATH]

A wide CSV file of 1, 0 and blanks is made up in a temporary folder and read by each in a process of its own, from the
page cache. pandas gives floating-point numbers and checks nothing; the package gives label states, and refuses what is
no label, images that are named twice and rows of another length.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.common import machine, measured_apart, seconds, write
from mlrpl_bench.data.label_tables import reading
from mlrpl_bench.data.label_tables.files import open_table
from mlrpl_bench.data.label_tables.values import LabelValues

ROUNDS = 3
PART = 10_000
"""This many rows are made up at a time."""
RATIO = "reading a wide CSV over pandas.read_csv"


def make_up(path: Path, rows: int, categories: int, given: float) -> None:
    """Write a table in which this share of the labels is given, three of a hundred of them as present."""
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(["image", *(f"category {column}" for column in range(categories))]) + "\n")
        for start in range(0, rows, PART):
            shape = min(PART, rows - start), categories
            text_NC = np.where(random.random(shape) < 0.03, "1", "0")
            text_NC = np.where(random.random(shape) < given, text_NC, "")
            file.writelines(f"{start + row:08d}.jpg,{','.join(texts)}\n" for row, texts in enumerate(text_NC))


def by_the_package(path: Path) -> dict[str, float]:
    return {
        "seconds": seconds(
            lambda: reading.read(open_table(path), reading.ColumnNames(), LabelValues()), time.process_time
        )
    }


def by_pandas(path: Path) -> dict[str, float]:
    return {"seconds": seconds(lambda: pd.read_csv(path), time.process_time)}


def nothing(path: Path) -> dict[str, float]:
    """What a process has taken before it reads."""
    return {"seconds": 0.0}


def measure(rows: int, categories: int, given: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        make_up(path, rows, categories, given)
        before = measured_apart(nothing, path)["peak_gb"]
        jobs = (by_the_package, by_pandas)
        found = [[measured_apart(job, path) for job in jobs] for _ in range(ROUNDS)]
        megabytes = path.stat().st_size / 1e6
    taken = {
        job.__name__: {
            "seconds": statistics.median(of_round[place]["seconds"] for of_round in found),
            "extra_gb": max(of_round[place]["peak_gb"] for of_round in found) - before,
        }
        for place, job in enumerate(jobs)
    }
    ours, theirs = (taken[job.__name__]["seconds"] for job in jobs)
    sizes = {"rows": rows, "categories": categories, "given": given, "megabytes": megabytes}
    return {"sizes": sizes, "taken": taken, "ratios": {RATIO: ours / theirs}}


def table_of(facts: dict[str, Any], title: str) -> Table:
    table = Table(title=title)
    for heading in ("reader", "seconds", "extra GB"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    for name, numbers in facts["taken"].items():
        table.add_row(name.replace("_", " "), f"{numbers['seconds']:.1f}", f"{numbers['extra_gb']:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, usual in (("rows", int, 1_000_000), ("categories", int, 100), ("given", float, 0.5)):
        parser.add_argument(f"--{name}", type=kind, default=usual)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    facts = measure(**given)
    sizes = facts["sizes"]
    title = f"{sizes['rows']:,} rows, {sizes['categories']} categories, {sizes['megabytes']:,.0f} MB; {machine()}"
    Console().print(table_of(facts, title))
    write(path, ["-m", "benchmarks.label_tables", *(f"--{name}={value}" for name, value in given.items())], facts)


if __name__ == "__main__":
    main()
