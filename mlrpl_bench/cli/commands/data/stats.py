"""This module defines the command ``data stats``, which counts the labels of a dataset."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.commands.data.opening import (
    DatasetArgument,
    MaskSeedOption,
    all_splits,
    check_mask_seed,
    picture_path,
    with_data,
)
from mlrpl_bench.cli.options import JsonOption, PluginOption

if TYPE_CHECKING:
    from mlrpl_bench.models.registry import DatasetEntry
    from mlrpl_bench.training.options import Options


@with_data()
def stats(
    dataset: DatasetArgument,
    plugin: PluginOption = None,
    mask_seed: MaskSeedOption = 0,
    as_json: JsonOption = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Where the picture goes, and DATASET-card.md.", show_default="DATASET-stats.png"),
    ] = None,
    *,
    options: Options,
) -> None:
    """Count images, labels, pairs of categories and what is known at each ratio; draw it, and write it as a card."""
    from mlrpl_bench.tools.inspection import card, label_statistics, statistics_picture
    from mlrpl_bench.utils.files import write_atomically

    check_mask_seed("--mask-seed", mask_seed)
    path = picture_path(output, f"{dataset}-stats.png")
    card_path = path.with_name(f"{dataset}-card.md")
    entry, splits = all_splits(dataset, options, plugin)
    statistics = label_statistics.measure(splits, mask_seed=mask_seed)
    if as_json:
        print(json.dumps({"dataset": dataset, **statistics.to_json()}, indent=1))
    else:
        card.print_card(statistics, dataset, _about(entry))
        print(f"\nknown positives of every category at every ratio: {card_path}")
    write_atomically(path, statistics_picture.draw(statistics, dataset))
    write_atomically(card_path, card.markdown(statistics, dataset, _about(entry), every_category=True) + "\n")
    print(f"wrote {path}\nwrote {card_path}", file=sys.stderr)


def _about(entry: DatasetEntry) -> str:
    """Return the first paragraph of the dataset file's own description."""
    text = sys.modules[entry.cls.__module__].__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())
