"""This module defines the command ``data prepare``, which keeps word vectors and resized images."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.commands.data.opening import DatasetArgument, all_splits, with_data
from mlrpl_bench.cli.options import PluginOption
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.data.dataset import Split
    from mlrpl_bench.data.images.transforms import ImageTransform
    from mlrpl_bench.training.options import Options

IMAGE_KINDS = {"jpeg": PREPARED_JPEG, "raw": PREPARED_RAW}
ASK_ABOVE_BYTES = 5e9
SHOWN = 10
"""The output names at most this many of the skipped images and counts the others."""


@with_data("preset", "image_size", "on_bad_image")
def prepare(
    dataset: DatasetArgument,
    plugin: PluginOption = None,
    word_vectors: Annotated[
        Path | None, typer.Option("--word-vectors", help="A GloVe text file, or an .npy with a row for each category.")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="KIND",
            help="Resize images once: jpeg (quality 95) or raw (lossless, large).",
            autocompletion=completion.one_of(*IMAGE_KINDS),
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that resize; 0 for this one.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not stop after saying how large it will be.")] = False,
    *,
    options: Options,
) -> None:
    """Keep the word vectors of the categories, and images resized once, in the cache folder."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.data import word_vectors as words
    from mlrpl_bench.data.images.transforms import ImageTransform

    if word_vectors is None and images is None:
        raise UserError("nothing to prepare; name --word-vectors FILE, or --images jpeg or raw, or both")
    if images not in (None, *IMAGE_KINDS):
        raise UserError(f"--images {images} is not valid; it is jpeg or raw")
    entry, splits = all_splits(dataset, options, plugin)
    with Display() as display:
        if word_vectors is not None:
            report = functools.partial(display.report, "reading word vectors")
            path = words.prepare(splits["train"].categories, word_vectors, report)
            print(f"wrote {path}")
            _warn_of_width(splits["train"].categories)
        if images is not None:
            preset = entry.preset_called(options.preset)
            view = ImageTransform(options.image_size or preset.image_size, backend=IMAGE_KINDS[images])
            _prepare_images(view, splits, options.on_bad_image == "skip", workers, yes, display)
            named = "" if options.preset is None else f" --preset {options.preset}"
            size = f" --image-size {view.size}" if view.size != preset.image_size else ""
            skip = " --on-bad-image skip" if options.on_bad_image == "skip" else ""
            print(f"use them with --image-backend {view.backend}{named}{size}{skip}")


def _prepare_images(
    view: ImageTransform, splits: dict[str, Split], skip: bool, workers: int, yes: bool, display: Display
) -> None:
    from mlrpl_bench.data.file_lists import refuse_missing
    from mlrpl_bench.data.images import cache_writer
    from mlrpl_bench.data.images.cache import prepared_folder
    from mlrpl_bench.data.images.decoding import BadImage, bad_rows

    kind, side = view.backend, view.enlarged
    folders = {name: prepared_folder(split, view) for name, split in splits.items()}
    skipped_rows: dict[str, dict[int, str]] = {name: {} for name in splits}
    for name, split in splits.items():
        if skip:
            look = functools.partial(display.report, "looking for damaged images")
            skipped_rows[name] = dict(bad_rows(split.image_paths, workers, look, remember=True))
        else:
            refuse_missing(split.image_paths, f"{name} images", ", or leave them out with --on-bad-image skip")
    try:
        size = sum(cache_writer.size_of(split, kind, side) for split in splits.values())
        print(f"{side} x {side} pixels, about {size / 1e9:.2f} GB in {folders['train'].parent}")
        if not yes and size > ASK_ABOVE_BYTES:
            raise UserError(
                "that is large: say --yes to go on, choose another place with MLRPL_CACHE, or a smaller --image-size"
            )
        cache_writer.refuse_to_fill_the_disk([(split, folders[name]) for name, split in splits.items()], kind, side)
        for name, split in splits.items():
            report = functools.partial(display.report, f"resizing {name} images")
            made = cache_writer.prepare(split, folders[name], kind, side, report, workers, skipped_rows[name])
            print(f"wrote {folders[name]}")
            _tell_skipped(name, split, made.skipped_rows)
    except BadImage as error:
        raise UserError(f"{error}, or leave it out with --on-bad-image skip") from error


def _tell_skipped(name: str, split: Split, skipped_rows: dict[int, str]) -> None:
    for number, (row, reason) in enumerate(skipped_rows.items()):
        if number == SHOWN:
            print(f"  and {len(skipped_rows) - SHOWN:,} more {name} images")
            break
        print(f"left out: {split.image_paths[row]} ({reason})")


def _warn_of_width(categories: tuple[str, ...]) -> None:
    from mlrpl_bench.data.word_vectors import WIDTH, prepared

    vectors_CE = prepared(categories)
    assert vectors_CE is not None, "they were kept a moment ago"
    if vectors_CE.shape[1] != WIDTH:
        print(f"warning: the vectors are {vectors_CE.shape[1]} wide; the papers use GloVe of width {WIDTH}")
