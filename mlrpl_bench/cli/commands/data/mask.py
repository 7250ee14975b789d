"""This module defines the command ``data mask``, which writes which labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.commands.data.opening import (
    DatasetArgument,
    check_mask_seed,
    loaded,
    opened,
    refuse_no_folder,
    with_data,
)
from mlrpl_bench.cli.options import PluginOption
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.training.options import Options


@with_data("evaluate_on", "mask_scheme")
def mask(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--output", help="The .npz to write.")],
    ratio: Annotated[float, typer.Option("--ratio", help="Share of the labels that is known.")],
    plugin: PluginOption = None,
    seed: Annotated[int, typer.Option("--seed", "--mask-seed", help="The mask seed; 0 is the papers' mask.")] = 0,
    *,
    options: Options,
) -> None:
    """Write which training labels are known at a ratio, for other code or for --mask-file."""
    import numpy as np

    from mlrpl_bench.data import masks
    from mlrpl_bench.data.dataset import held_out
    from mlrpl_bench.data.protocol import check_ratio, known_share

    check_ratio(ratio)
    if output.suffix != ".npz":
        raise UserError(f"--output {output}: a mask file is an .npz; name it something.npz")
    check_mask_seed("--seed", seed)
    refuse_no_folder(output)
    entry, instance, folder = opened(dataset, options, plugin)
    train = loaded(entry, instance, folder, ("train",))["train"]
    if options.evaluate_on == "val" and "val" not in instance.splits(folder):
        train = train.rows(np.flatnonzero(~held_out(len(train))))
    mask_NC = masks.Masks(train, options.mask_scheme)(ratio, seed)
    masks.write(output, mask_NC, train, ratio, seed)
    share = known_share(train.labels_NC, mask_NC)
    print(
        f"wrote {output}: {100 * share['present']:.1f} % of the present and {100 * share['absent']:.1f} % of the "
        f"absent labels of {len(train):,} images"
    )
