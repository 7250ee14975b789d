"""What a user may choose about a setting. Imports nothing that takes long."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlrpl_bench.data.dataset import Preset


@dataclass(frozen=True)
class Options:
    """What a user may choose about a setting; None is the dataset preset's choice.

    Attributes:
        epochs: training length. batch: images per step. image_size: side of the network's input, pixels.
        backbone, weights: see `backbones.build`.
        precision: ``32-true`` or ``bf16-mixed``. device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: loader processes; the numbers do not depend on them.
        data: the dataset's own options by name.
        evaluate_on: ``test``, or ``val``: the data set's own validation images where it has any, else a tenth of the
            training images, held out before labels are hidden.
        mask_scheme: see `protocol.SCHEMES`. mask_file: one mask to use instead, see `masks`.
        on_bad_image: ``error``, or ``skip``: images that are missing or damaged are left out, and counted in the notes.
        image_backend: how images are made ready, see `ImageTransform`.
        compile: let torch compile the networks, see `Method.parts_to_compile`; scores differ in their last bits.
        deterministic: on a GPU, only algorithms whose results do not change from run to run. It is no part of a
            cell's setting: on a CPU it changes no number, and on a GPU no more than another GPU would; records tell.
    """

    data_root: Path | None = None
    epochs: int | None = None
    batch: int | None = None
    image_size: int | None = None
    backbone: str | None = None
    weights: str | None = None
    precision: str = "32-true"
    device: str = "auto"
    workers: int | None = None
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    evaluate_on: str = "test"
    mask_scheme: str = "hcp"
    mask_file: Path | None = None
    on_bad_image: str = "error"
    image_backend: str = "reference"
    compile: bool = False
    deterministic: bool = False


def variant(options: Options, preset: Preset) -> str:
    """What of the options makes another setting than the data set's usual one: ``val-by_id-epochs=5``, or nothing."""
    parts = [options.evaluate_on, options.mask_scheme, options.image_backend, options.precision, options.on_bad_image]
    usual = ["test", "hcp", "reference", "32-true", "error"]
    words = [word for word, of_usual in zip(parts, usual, strict=True) if word != of_usual]
    if options.compile:
        words.append("compile")
    if options.mask_file is not None:
        words.append(f"mask={options.mask_file.stem}")
    for name in ("epochs", "batch", "image_size", "backbone"):
        if getattr(options, name) not in (None, getattr(preset, name)):
            words.append(f"{name}={getattr(options, name)}")
    if options.weights is not None:
        words.append(f"weights={Path(options.weights).stem}")
    words += [f"{name}={value}" for name, value in sorted(options.data.items())]
    return re.sub(r"[^\w=.,-]", "_", "-".join(words))[:150]
