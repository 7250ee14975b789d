"""This module defines the commands under ``data``, which check, show and prepare a dataset before training on it.

What is slow is imported in the commands.
"""

from __future__ import annotations

import functools
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.cli.options import JsonOption, PluginOption, program, with_options
from mlrpl_bench.cli.terminal import completion
from mlrpl_bench.cli.terminal.panels import App
from mlrpl_bench.data.choices import PREPARED_JPEG, PREPARED_RAW
from mlrpl_bench.training.options import apply_options, described, flag
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import is_writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.data.dataset import Dataset, Split
    from mlrpl_bench.data.images.transforms import ImageTransform
    from mlrpl_bench.models.registry import DatasetEntry
    from mlrpl_bench.tools.inspection.checking import CheckResult
    from mlrpl_bench.training.options import Options

IMAGE_KINDS = {"jpeg": PREPARED_JPEG, "raw": PREPARED_RAW}
ASK_ABOVE_BYTES = 5e9
SHOWN = 10
"""The output names at most this many of the skipped images and counts the others."""

data_app = App(
    no_args_is_help=True, help="Check a dataset's files, count its labels, look at its images, make them ready."
)

DatasetArgument = Annotated[
    str, typer.Argument(help="A registered dataset; see: list datasets.", autocompletion=completion.dataset)
]
MaskSeedOption = Annotated[int, typer.Option("--mask-seed", help="0 is the papers' mask.")]


def _with_data(*more: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that say where a dataset is, which may be called ``--root`` here, and `more`."""
    return with_options("data_root", "data", *more, also={"data_root": "--root"})


OF_A_RUN = (
    *("evaluate_on", "preset", "epochs", "batch", "image_size", "backbone", "weights"),
    *("trained_stages", "feature_width", "attention_width", "lr_multiplier"),
)
"""These are the options of a run that a check looks ahead with."""


@data_app.command()
@_with_data(*OF_A_RUN)
def check(
    dataset: DatasetArgument,
    plugin: PluginOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Decode 200 images of each split instead of all.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode, 0: none.", show_default="one a core")
    ] = None,
    as_json: JsonOption = False,
    output: Annotated[Path | None, typer.Option("--output", help="Also write the findings as JSON here.")] = None,
    *,
    options: Options,
) -> None:
    """Say what is there and what is missing, and decode the images. Exit code 0 if a run would succeed."""
    from mlrpl_bench.cli.display import Display
    from mlrpl_bench.tools.inspection import checking, findings_text
    from mlrpl_bench.utils.files import write_atomically

    entry, instance = _dataset(dataset, options, plugin)
    folder = _root(entry, options)
    with Display() as display:
        instance.report = display.report
        preset = apply_options(options, entry.preset_called(options.preset))
        findings = checking.check(
            instance, folder, quick, workers, display.report, preset, options.weights, options.evaluate_on
        )
    content = json.dumps({"dataset": dataset, **findings.to_json()}, indent=1)
    if as_json:
        print(content)
    else:
        findings_text.print_findings(findings, dataset)
        _print_next(findings, dataset, options, plugin)
    if output is not None:
        write_atomically(output, content + "\n")
    if not findings.ok:
        raise typer.Exit(1)


@data_app.command()
@_with_data()
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

    _check_mask_seed("--mask-seed", mask_seed)
    path = _picture_path(output, f"{dataset}-stats.png")
    card_path = path.with_name(f"{dataset}-card.md")
    entry, splits = _splits(dataset, options, plugin)
    statistics = label_statistics.measure(splits, mask_seed=mask_seed)
    if as_json:
        print(json.dumps({"dataset": dataset, **statistics.to_json()}, indent=1))
    else:
        card.print_card(statistics, dataset, _about(entry))
        print(f"\nknown positives of every category at every ratio: {card_path}")
    write_atomically(path, statistics_picture.draw(statistics, dataset))
    write_atomically(card_path, card.markdown(statistics, dataset, _about(entry), every_category=True) + "\n")
    print(f"wrote {path}\nwrote {card_path}", file=sys.stderr)


@data_app.command()
@_with_data()
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
    _check_mask_seed("--mask-seed", mask_seed)
    path = _picture_path(output, f"{dataset}-images.png")
    entry, instance, folder = _opened(dataset, options, plugin)
    if split not in instance.splits(folder):
        raise UserError(f"no split {split!r}; there are: {', '.join(instance.splits(folder))}")
    shown = _loaded(entry, instance, folder, (split,))[split]
    given = "given " if shown.num_unknown else ""
    title = f"{dataset}, {split} images, {100 * ratio:g} % of the {given}labels known, mask seed {mask_seed}"
    write_atomically(path, contact_sheet.draw(shown, title, ratio, images, seed, mask_seed))
    print(f"wrote {path}", file=sys.stderr)


@data_app.command()
@_with_data("preset", "image_size", "on_bad_image")
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
    entry, splits = _splits(dataset, options, plugin)
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


@data_app.command()
@_with_data("evaluate_on", "mask_scheme")
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
    _check_mask_seed("--seed", seed)
    _refuse_no_folder(output)
    entry, instance, folder = _opened(dataset, options, plugin)
    train = _loaded(entry, instance, folder, ("train",))["train"]
    if options.evaluate_on == "val" and "val" not in instance.splits(folder):
        train = train.rows(np.flatnonzero(~held_out(len(train))))
    mask_NC = masks.Masks(train, options.mask_scheme)(ratio, seed)
    masks.write(output, mask_NC, train, ratio, seed)
    share = known_share(train.labels_NC, mask_NC)
    print(
        f"wrote {output}: {100 * share['present']:.1f} % of the present and {100 * share['absent']:.1f} % of the "
        f"absent labels of {len(train):,} images"
    )


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


def _dataset(name: str, options: Options, plugin: list[Path] | None) -> tuple[DatasetEntry, Dataset]:
    """Return the registered dataset and an instance of it with the options asked for."""
    from mlrpl_bench.models import hyperparameters
    from mlrpl_bench.models.registry import describe_failure, load_datasets

    registry = load_datasets([path.resolve() for path in plugin or ()])
    for path, error in registry.failures.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    entry = registry[name]
    return entry, entry.cls(hyperparameters.make_instance(entry.cls.Options, dict(options.data), entry.name, "option"))


def _root(entry: DatasetEntry, options: Options) -> Path:
    from mlrpl_bench.utils.files import cache_folder

    if not entry.cls.needs_root:
        return cache_folder()
    if options.data_root is None:
        raise UserError(f"where is {entry.name}? Name its folder with --root PATH or MLRPL_DATA")
    return options.data_root


def _splits(name: str, options: Options, plugin: list[Path] | None) -> tuple[DatasetEntry, dict[str, Split]]:
    """Load the registered dataset and all its splits."""
    entry, instance, folder = _opened(name, options, plugin)
    return entry, _loaded(entry, instance, folder, instance.splits(folder))


def _opened(name: str, options: Options, plugin: list[Path] | None) -> tuple[DatasetEntry, Dataset, Path]:
    """Return the registered dataset, an instance of it and its folder, which is there."""
    entry, instance = _dataset(name, options, plugin)
    folder = _root(entry, options)
    if entry.cls.needs_root and not folder.is_dir():
        raise UserError(f"--root {folder} is not a folder")
    return entry, instance, folder


def _loaded(entry: DatasetEntry, instance: Dataset, folder: Path, wanted: tuple[str, ...]) -> dict[str, Split]:
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


def _picture_path(output: Path | None, usual: str) -> Path:
    """Return the path of a picture; one that is no PNG's or lies in no folder is refused before anything is loaded.

    So is a place that is read-only.
    """
    path = output or Path(usual)
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {path}: the picture is a PNG; name it something.png")
    _refuse_no_folder(path)
    return path


def _check_mask_seed(option: str, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"{option} {seed} must be between 0 and {2**32 - 1}")


def _refuse_no_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    if not is_writable(path.parent):
        raise UserError(f"{path} cannot be written: {path.parent} is read-only; name another place with --output")


def _about(entry: DatasetEntry) -> str:
    """Return the first paragraph of the dataset file's own description."""
    text = sys.modules[entry.cls.__module__].__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())


def _print_next(findings: CheckResult, dataset: str, options: Options, plugin: list[Path] | None) -> None:
    """Print the next command to type, with the options that the findings say to add."""
    added = [option.removeprefix("--set-data ") for option in findings.to_add if option.startswith("--set-data ")]
    replaced = {pair.partition("=")[0] for pair in added}
    pairs = [
        *(f"{name}={value}" for name, value in options.data.items() if name not in replaced),
        *added,
    ]
    given = [f"--plugin {shlex.quote(str(path))}" for path in plugin or ()]
    given += [f"--set-data {shlex.quote(pair)}" for pair in pairs]
    to_replace = {option.partition(" ")[0] for option in findings.to_add}
    chosen = {flag(name): getattr(options, name) for name in OF_A_RUN}
    usual = {flag(name): described()[name].default for name in OF_A_RUN}
    given += [
        f"{written} {shlex.quote(str(value))}"
        for written, value in chosen.items()
        if value not in (None, usual[written]) and written not in to_replace
    ]
    folder = "" if options.data_root is None else shlex.quote(str(options.data_root))
    again = " ".join([program(), "data check", dataset, *([f"--root {folder}"] if folder else []), *given])
    run = [program(), "leaderboard --dataset", dataset, *([f"--data-root {folder}"] if folder else []), *given]
    run += [option for option in findings.to_add if not option.startswith("--set-data ")]
    if findings.options_are_enough:
        print(f"next:\n  {' '.join(run)}")
        if findings.quick:
            print(f"all images are decoded by:\n  {again}")
    elif added:
        print(f"next:\n  {again}")
    else:
        print(f"next: mend what is named above, then\n  {again}")
    if findings.images_can_be_skipped:
        print(f"or go on without these images:\n  {' '.join(run)} --on-bad-image skip")
