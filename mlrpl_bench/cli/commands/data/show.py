"""This module defines the command ``data show``, which draws images of a dataset with their labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.commands.data.opening import (
    DatasetArgument,
    MaskSeedOption,
    check_mask_seed,
    loaded,
    opened,
    picture_path,
    with_data,
)
from mlrpl_bench.cli.options import PluginOption
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.training.options import Options


@with_data()
def show(
    dataset: DatasetArgument,
    plugin: PluginOption = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many images.")] = 12,
    ratio: Annotated[float, typer.Option("--ratio", help="Share of the labels that is known.")] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Which images are drawn.")] = 0,
    mask_seed: MaskSeedOption = 0,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="train or test, or val where there is one.",
            autocompletion=completion.one_of("train", "test", "val"),
        ),
    ] = "train",
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the picture goes.", show_default="DATASET-images.png")
    ] = None,
    *,
    options: Options,
) -> None:
    """Draw a sheet of images with the labels that are known, hidden and absent at a ratio."""
    from mlrpl_bench.data.protocol import check_ratio
    from mlrpl_bench.tools.inspection import contact_sheet
    from mlrpl_bench.utils.files import write_atomically

    check_ratio(ratio)
    check_mask_seed("--mask-seed", mask_seed)
    path = picture_path(output, f"{dataset}-images.png")
    entry, instance, folder = opened(dataset, options, plugin)
    if split not in instance.splits(folder):
        raise UserError(f"no split {split!r}; there are: {', '.join(instance.splits(folder))}")
    shown = loaded(entry, instance, folder, (split,))[split]
    given = "given " if shown.num_unknown else ""
    title = f"{dataset}, {split} images, {100 * ratio:g} % of the {given}labels known, mask seed {mask_seed}"
    write_atomically(path, contact_sheet.draw(shown, title, ratio, images, seed, mask_seed))
    print(f"wrote {path}", file=sys.stderr)
