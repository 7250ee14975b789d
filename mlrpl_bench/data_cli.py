"""The commands under ``data``: look at a dataset before training on it. What is slow is imported in the commands."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrpl_bench.errors import UserError

if TYPE_CHECKING:
    from mlrpl_bench.dataset import Dataset, Split
    from mlrpl_bench.display import Display
    from mlrpl_bench.inspection.checking import Findings
    from mlrpl_bench.registry import DatasetEntry
    from mlrpl_bench.views import View

IMAGE_KINDS = {"jpeg": "prepared-jpeg95", "raw": "prepared-raw"}
ASK_ABOVE_BYTES = 5e9

data_app = typer.Typer(
    no_args_is_help=True, help="Check a dataset's files, count its labels, look at its images, make them ready."
)

DatasetArgument = Annotated[str, typer.Argument(help="A registered dataset; see: list datasets.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", "--data-root", envvar="MLRPL_DATA", help="The folder with the dataset's files.")
]
SetDataOption = Annotated[
    list[str] | None, typer.Option("--set-data", help="An option of the dataset, name=value. Repeatable.")
]
PluginOption = Annotated[
    list[Path] | None, typer.Option("--plugin", help="Your own dataset file; it is run. Repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@data_app.command()
def check(
    dataset: DatasetArgument,
    root: RootOption = None,
    set_data: SetDataOption = None,
    plugin: PluginOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Decode 200 images of each split instead of all.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode, 0: none. [default: one a core]")
    ] = None,
    as_json: JsonOption = False,
    output: Annotated[Path | None, typer.Option("--output", help="Also write the findings as JSON here.")] = None,
) -> None:
    """Say what is there and what is missing, and decode the images. Exit code 0 if a run would succeed."""
    from mlrpl_bench.display import Display
    from mlrpl_bench.files import write_atomically
    from mlrpl_bench.inspection import checking, findings_text

    entry, instance = _dataset(dataset, set_data, plugin)
    folder = _root(entry, root)
    with Display() as display:
        instance.report = display.report
        findings = checking.check(instance, folder, quick, workers, display.report)
    content = json.dumps({"dataset": dataset, **findings.to_json()}, indent=1)
    if as_json:
        print(content)
    else:
        findings_text.print_findings(findings, dataset)
        _print_next(findings, dataset, root, set_data, plugin)
    if output is not None:
        write_atomically(output, content + "\n")
    if not findings.ok:
        raise typer.Exit(1)


@data_app.command()
def stats(
    dataset: DatasetArgument,
    root: RootOption = None,
    set_data: SetDataOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the picture goes. [default: DATASET-stats.png]")
    ] = None,
) -> None:
    """Count images, labels, pairs of categories and what is known at each ratio; draw it."""
    from mlrpl_bench.files import write_atomically
    from mlrpl_bench.inspection import card, label_statistics, statistics_picture

    path = _picture_path(output, f"{dataset}-stats.png")
    entry, splits = _splits(dataset, root, set_data, plugin, ("train", "test"))
    statistics = label_statistics.measure(splits)
    if as_json:
        print(json.dumps({"dataset": dataset, **statistics.to_json()}, indent=1))
    else:
        card.print_card(statistics, dataset, _about(entry))
    write_atomically(path, statistics_picture.draw(statistics, dataset))
    print(f"wrote {path}", file=sys.stderr)


@data_app.command()
def show(
    dataset: DatasetArgument,
    root: RootOption = None,
    set_data: SetDataOption = None,
    plugin: PluginOption = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many images.")] = 12,
    ratio: Annotated[float, typer.Option("--ratio", help="Share of the labels that is known.")] = 0.5,
    seed: Annotated[int, typer.Option("--seed", help="Which images are drawn.")] = 0,
    split: Annotated[str, typer.Option("--split", help="train or test.")] = "train",
    output: Annotated[
        Path | None, typer.Option("--output", help="Where the picture goes. [default: DATASET-images.png]")
    ] = None,
) -> None:
    """Draw a sheet of images with the labels that are known, hidden and absent at a ratio."""
    from mlrpl_bench.files import write_atomically
    from mlrpl_bench.inspection import contact_sheet
    from mlrpl_bench.protocol import check_ratio

    check_ratio(ratio)
    if split not in ("train", "test"):
        raise UserError(f"no split {split!r}; there are: train, test")
    path = _picture_path(output, f"{dataset}-images.png")
    _, splits = _splits(dataset, root, set_data, plugin, (split,))
    title = f"{dataset}, {split} images, {100 * ratio:g} % of the labels known"
    write_atomically(path, contact_sheet.draw(splits[split], title, ratio, images, seed))
    print(f"wrote {path}", file=sys.stderr)


@data_app.command()
def prepare(
    dataset: DatasetArgument,
    root: RootOption = None,
    set_data: SetDataOption = None,
    plugin: PluginOption = None,
    word_vectors: Annotated[
        Path | None, typer.Option("--word-vectors", help="A GloVe text file, or an .npy with a row for each category.")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", help="Resize images once: jpeg (quality 95) or raw (lossless, large).")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=16, help="The network's input they are for. [default: preset's]")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that resize; 0 for this one.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not stop after saying how large it will be.")] = False,
) -> None:
    """Keep the word vectors of the categories, and images resized once, in the cache folder."""
    from mlrpl_bench import words
    from mlrpl_bench.display import Display
    from mlrpl_bench.views import View

    if word_vectors is None and images is None:
        raise UserError("nothing to prepare; name --word-vectors FILE, or --images jpeg or raw, or both")
    if images not in (None, *IMAGE_KINDS):
        raise UserError(f"--images {images} is not valid; it is jpeg or raw")
    entry, splits = _splits(dataset, root, set_data, plugin, ("train", "test"))
    with Display() as display:
        if word_vectors is not None:
            report = lambda done, in_all: display.report("reading word vectors", done, in_all)  # noqa: E731
            path = words.prepare(splits["train"].categories, word_vectors, report)
            print(f"wrote {path}")
        if images is not None:
            view = View(image_size or entry.preset.image_size, backend=IMAGE_KINDS[images])
            _prepare_images(view, splits, workers, yes, display)


@data_app.command()
def mask(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option("--output", help="The .npz to write.")],
    ratio: Annotated[float, typer.Option("--ratio", help="Share of the labels that is known.")],
    root: RootOption = None,
    set_data: SetDataOption = None,
    plugin: PluginOption = None,
    seed: Annotated[int, typer.Option("--seed", help="The mask seed; 0 is the papers' mask.")] = 0,
    scheme: Annotated[
        str, typer.Option("--mask-scheme", help="hcp (the papers'), by_id, positives_only or single_positive.")
    ] = "hcp",
) -> None:
    """Write which training labels are known at a ratio, for other code or for --mask-file."""
    from mlrpl_bench import masks
    from mlrpl_bench.protocol import check_ratio, known_share

    check_ratio(ratio)
    if output.suffix != ".npz":
        raise UserError(f"--output {output}: a mask file is an .npz; name it something.npz")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed} must be between 0 and {2**32 - 1}")
    _, splits = _splits(dataset, root, set_data, plugin, ("train",))
    mask_NC = masks.Masks(splits["train"], scheme)(ratio, seed)
    masks.write(output, mask_NC, splits["train"], ratio, seed)
    share = known_share(splits["train"].labels_NC, mask_NC)
    print(
        f"wrote {output}: {100 * share['present']:.1f} % of the present and {100 * share['absent']:.1f} % of the absent"
    )


def _prepare_images(view: View, splits: dict[str, Split], workers: int, yes: bool, display: Display) -> None:
    from mlrpl_bench import prepared

    kind = view.backend
    folders = {name: prepared.prepared_folder(split, view) for name, split in splits.items()}
    size = sum(prepared.size_of(split, kind, view.enlarged) for split in splits.values())
    print(f"{view.enlarged} x {view.enlarged} pixels, about {size / 1e9:.2f} GB in {folders['train'].parent}")
    if not yes and size > ASK_ABOVE_BYTES:
        raise UserError("that is large: say --yes to go on, or choose another place with MLRPL_CACHE")
    for name, split in splits.items():
        report = lambda done, in_all, name=name: display.report(f"resizing {name} images", done, in_all)  # noqa: E731
        prepared.prepare(split, folders[name], kind, view.enlarged, report, workers)
        print(f"wrote {folders[name]}")
    print(f"use them with --image-backend {kind}")


def _dataset(name: str, set_data: list[str] | None, plugin: list[Path] | None) -> tuple[DatasetEntry, Dataset]:
    """The registered dataset and an instance of it with the options asked for."""
    from mlrpl_bench import hyperparameters
    from mlrpl_bench.registry import describe_failure, load_datasets

    registry = load_datasets([path.resolve() for path in plugin or ()])
    for path, error in registry.failures.items():
        print(f"warning: {describe_failure(path, error)}; the others are there", file=sys.stderr)
    entry = registry[name]
    options = hyperparameters.build(entry.cls.Options, _pairs(set_data or []), entry.name)
    return entry, entry.cls(options)


def _pairs(texts: list[str]) -> dict[str, str]:
    """``["difficult=ignore"]`` to ``{"difficult": "ignore"}``."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set-data {text!r} is not valid; write it as name=value")
        found[name.strip()] = value.strip()
    return found


def _root(entry: DatasetEntry, root: Path | None) -> Path:
    from mlrpl_bench.files import cache_folder

    if not entry.cls.needs_root:
        return cache_folder()
    if root is None:
        raise UserError(f"where is {entry.name}? Name its folder with --root PATH or MLRPL_DATA")
    return root


def _splits(
    name: str, root: Path | None, set_data: list[str] | None, plugin: list[Path] | None, wanted: tuple[str, ...]
) -> tuple[DatasetEntry, dict[str, Split]]:
    from mlrpl_bench.display import Display

    entry, instance = _dataset(name, set_data, plugin)
    folder = _root(entry, root)
    if entry.cls.needs_root and not folder.is_dir():
        raise UserError(f"--root {folder} is not a folder")
    with Display() as display:
        instance.report = display.report
        splits = {split: instance.load(folder, split) for split in wanted}
    for split, content in splits.items():
        if not len(content) or not content.categories:
            raise UserError(f"{name}: the {split} split is empty; check it with: {_program()} data check {name}")
    return entry, splits


def _picture_path(output: Path | None, usual: str) -> Path:
    """Where a picture goes; refused before anything is loaded if it is not called a PNG or lies nowhere."""
    path = output or Path(usual)
    if path.suffix.lower() != ".png":
        raise UserError(f"--output {path}: the picture is a PNG; name it something.png")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")
    return path


def _about(entry: DatasetEntry) -> str:
    """The first sentences of the dataset file's own description."""
    text = sys.modules[entry.cls.__module__].__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())


def _print_next(
    findings: Findings, dataset: str, root: Path | None, set_data: list[str] | None, plugin: list[Path] | None
) -> None:
    """The next command to type."""
    repeated = [f"--plugin {shlex.quote(str(path))}" for path in plugin or ()]
    repeated += [f"--set-data {shlex.quote(pair)}" for pair in set_data or ()]
    given = [] if root is None else [f"--root {shlex.quote(str(root))}"]
    again = " ".join([_program(), "data check", dataset, *given, *repeated])
    run = " ".join(
        [
            _program(),
            "leaderboard --dataset",
            dataset,
            *(one.replace("--root", "--data-root", 1) for one in given),
            *repeated,
        ]
    )
    if not findings.ok:
        print(f"next: mend what is named above, then\n  {again}")
        return
    print(f"next:\n  {run}")
    if findings.quick:
        print(f"all images are decoded by:\n  {again}")


def _program() -> str:
    return "python bench.py" if Path(sys.argv[0]).name == "bench.py" else "mlrpl-bench"
