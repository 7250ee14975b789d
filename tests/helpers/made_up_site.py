"""Folders of records of every kind that a site shows, made up without training. Test modules import this."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mlrpl_bench.data.protocol import mask_hash
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.record import digest
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.tools.recompute.labels import Labels
from mlrpl_bench.tools.site.gathering import Gathered, gather
from mlrpl_bench.tools.site.making import Made, make
from mlrpl_bench.tools.site.output import Output
from mlrpl_bench.training.options import Options
from tests.helpers import tiny_study as tiny
from tests.helpers.made_up_table import HOSTILE, PROVENANCE, logged

STRANGE = HOSTILE.replace("/", "|")
"""The name of a method that is registered nowhere; it is a folder's."""
RATIOS = (0.5, 0.9)
KEPT = """# Leaderboard of squares

| method | 10 % | mAP (at 10 %) | 95 % interval |
| --- | ---: | ---: | ---: |
| plain | 40.0 ± 1.0 | ≈ 40.0 ± 1.0 | 38.0 – 42.0 |
| other\\[a\\_b=1\\] | **41.5** | **41.5** | 39.0 – 43.0 |

- setting: small backbone, 32 px, 2 epochs, batch 4, 32-true, protocol version 2
- seeds 0 (mask 0), 1 (mask 1)

## By category

| category | plain | other |
| --- | ---: | ---: |
| a\\|b | 40.0 | 41.0 |
"""


class Folders(NamedTuple):
    """What a site is made from.

    Attributes:
        results: records of two data sets, of one of which the labels are here.
        others: more records of the same cells.
        kept: a table without records.
        plugins: files that register the data set and one method.
    """

    results: Path
    others: Path
    kept: Path
    plugins: list[Path]


def folders(root: Path) -> Folders:
    """Make the folders; of one cell `others` has the same numbers in other bytes, of another other numbers."""
    found = Folders(root / "results", root / "others", root / "kept", [root / "tiny.py", root / "plain.py"])
    of = tiny.study(found.plugins[0], weights="random")
    entry = tiny.method(found.plugins[1])
    store, number = ResultStore(found.results), 0
    for method in (entry.name, STRANGE):
        for ratio in RATIOS:
            for seed in (0, 1):
                cell = replace(of.job(entry, ratio, seed, seed, {}).cell, method=method)
                assert cell.mask_hash == mask_hash(of.masks(ratio, seed))
                store.write(tiny.finished(cell, seed=number, **logged(seed)), PROVENANCE)
                number += 1
    elsewhere = replace(tiny.SETTING, dataset="squares")
    for method in ("plain", "weak"):
        cell = tiny.cell(setting=elsewhere, method=method, hyperparameters={"alpha": 0.5}, changed=("alpha",))
        store.write(tiny.finished(cell, seed=number), PROVENANCE)
    shutil.copytree(found.results / "tiny" / "plain", found.others / "tiny" / "plain")
    same, other, *rest = sorted((found.others / "tiny" / "plain").iterdir())
    edit(same, lambda content: content["cost"].update(seconds=9.0))
    edit(other, lambda content: content["metrics"].update(mAP=0.125))
    for folder in rest:
        shutil.rmtree(folder)
    found.kept.mkdir()
    (found.kept / "squares-all.md").write_text(KEPT, encoding="utf-8")
    (found.kept / "README.md").write_text("# Nothing of the kind\n", encoding="utf-8")
    return found


def edit(folder: Path, change: Any) -> None:
    """Change what a record says, with a digest that fits."""
    path = folder / "record.json"
    content = json.loads(path.read_bytes())
    change(content)
    content["sha256"] = digest(content)
    path.write_text(json.dumps(content))


def made(out: Path, results: list[Path], plugins: list[Path], unpacked: Path) -> tuple[Made, Gathered]:
    """Make a site of folders."""
    methods, datasets = load_methods(plugins), load_datasets(plugins)
    output = Output(out)
    unpacked.mkdir(exist_ok=True)
    gathered = gather(results, unpacked)
    labels = Labels(datasets.entries, Options(device="cpu"))
    return make(gathered, output, methods, datasets.entries, labels), gathered
