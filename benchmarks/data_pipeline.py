"""How many training images a second one core reads, for each backend of the views and for the plain torchvision chain.

    python -m benchmarks.data_pipeline [--images FOLDER] [--json PATH]
    python -m benchmarks.data_pipeline --width 1280 --height 960    # photographs twice as large as the network's input
    python -m benchmarks.data_pipeline --labels    # instead: labels, masks and the label graph, as many as COCO's

All run in one process on the same files, in turns; the best of several rounds counts, in the processor's own time.
The backends end in uint8 pixels stacked to a batch, as a reader gives them (the network's device normalises);
torchvision's chain ends in normalised floats. The second column normalises the backends' batches on the same core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision import transforms

from benchmarks.common import write
from mlrpl_bench.data import coco
from mlrpl_bench.data.choices import BACKENDS, FAST, REDUCED, REFERENCE
from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.cache_writer import prepare
from mlrpl_bench.data.images.decoding import decode
from mlrpl_bench.data.images.loader import normalise
from mlrpl_bench.data.images.transforms import BICUBIC, DEVIATION_3, MEAN_3, ImageTransform
from mlrpl_bench.data.protocol import hide, known_mask
from mlrpl_bench.models.layers.graphs import cooccurrence

TORCHVISION = "torchvision"
BATCH = 16

COCO_IMAGES, COCO_CATEGORIES, COCO_ANNOTATIONS = 82_783, 80, 604_907
"""Of COCO's training part of 2014."""
RATIO = 0.5


class Reads(NamedTuple):
    """The pixels (size x size x 3, uint8) of a row: its training view, and its test view."""

    training: Callable[[int], np.ndarray]
    test: Callable[[int], np.ndarray]


def make_images(folder: Path, num_images: int, width: int = 640, height: int = 480) -> list[Path]:
    """JPEGs with details at many scales, a detail's contrast in proportion to its size, as in photographs."""
    paths = []
    for row in range(num_images):
        random = np.random.default_rng(row)
        pixels_HW3 = np.full((height, width, 3), 128.0)
        for cell in (160, 80, 40, 20, 10, 5, 2):
            coarse = random.integers(256, size=(height // cell, width // cell, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((width, height), BICUBIC)
            pixels_HW3 += (np.asarray(smooth) - 127.5) * 0.5 * (cell / 160) ** 0.5
        paths.append(folder / f"{row:04d}.jpg")
        Image.fromarray(pixels_HW3.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def shortest_side(path: Path) -> int:
    with Image.open(path) as image:
        return min(image.size)


def plain_torchvision(size: int, random: np.random.Generator) -> transforms.Compose:
    """The chain that most training scripts have, with the same distribution of crop sides."""
    view = ImageTransform(size)
    bicubic = transforms.InterpolationMode.BICUBIC
    return transforms.Compose(
        [
            transforms.Resize((view.enlarged, view.enlarged), bicubic),
            transforms.RandomCrop(view.draw(random).side),
            transforms.Resize((size, size), bicubic),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN_3, DEVIATION_3),
        ]
    )


def readers(paths: Sequence[Path], size: int, folder: Path) -> dict[str, Reads]:
    """For each backend how a row is read; the training view's draws follow from the row."""
    labels_NC = np.ones((len(paths), 1), np.int8)
    split = Split(list(range(len(paths))), list(paths), labels_NC, ("anything",))

    def reads(backend: str) -> Reads:
        view = ImageTransform(size, backend=backend)
        prepared = prepare(split, folder / backend, backend, view.enlarged) if view.is_prepared else None

        def image_of(row: int) -> Image.Image:
            return decode(paths[row], view.decode_at_least) if prepared is None else prepared[row]

        return Reads(
            lambda row: np.asarray(view.train(image_of(row), np.random.default_rng(row))),
            lambda row: np.asarray(view.test(image_of(row))),
        )

    return {backend: reads(backend) for backend in BACKENDS}


def differences(reads: Reads, reference: Reads, num_rows: int) -> dict[str, float]:
    """Absolute differences of pixels, 0 to 255: the mean and the largest, of the training view and of the test view."""
    found: dict[str, float] = {}
    for suffix, one, other in (("", reads.training, reference.training), ("_test", reads.test, reference.test)):
        rows = [np.abs(one(row).astype(int) - other(row)) for row in range(num_rows)]
        found[f"mean_absolute_difference{suffix}"] = float(np.mean([row.mean() for row in rows]))
        found[f"largest_difference{suffix}"] = float(max(row.max() for row in rows))
    return found


def read_all(read: Callable[[int], np.ndarray], num_rows: int, with_normalise: bool) -> None:
    for start in range(0, num_rows, BATCH):
        pixels_BHW3 = np.stack([read(row) for row in range(start, min(start + BATCH, num_rows))])
        pixels_B3HW = torch.from_numpy(pixels_BHW3).permute(0, 3, 1, 2)
        if with_normalise:
            normalise(pixels_B3HW)


def read_all_with_torchvision(paths: Sequence[Path], size: int) -> None:
    for start in range(0, len(paths), BATCH):
        rows = range(start, min(start + BATCH, len(paths)))
        chains = [plain_torchvision(size, np.random.default_rng(row)) for row in rows]
        torch.stack([chain(decode(paths[row])) for chain, row in zip(chains, rows, strict=True)])


def measure(paths: Sequence[Path], size: int, rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """By name: images a second (with and without normalising), the ratio to torchvision, the pixel differences."""
    reads_of = readers(paths, size, folder)
    jobs: dict[tuple[str, bool], Callable[[], None]] = {
        (TORCHVISION, True): lambda: read_all_with_torchvision(paths, size)
    }
    for name, reads in reads_of.items():
        for with_normalise in (False, True):
            jobs[name, with_normalise] = lambda read=reads.training, also=with_normalise: read_all(
                read, len(paths), also
            )
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(rounds):
        for key, job in jobs.items():
            start = time.process_time()
            job()
            best[key] = min(best[key], time.process_time() - start)
    rates = {key: len(paths) / seconds for key, seconds in best.items()}
    plain = rates[TORCHVISION, True]
    rows = {TORCHVISION: {"images_per_s_normalised": plain, "ratio_normalised": 1.0}}
    for name, reads in reads_of.items():
        rows[name] = {
            "images_per_s": rates[name, False],
            "ratio": rates[name, False] / plain,
            "images_per_s_normalised": rates[name, True],
            "ratio_normalised": rates[name, True] / plain,
            **differences(reads, reads_of[REFERENCE], len(paths)),
        }
    return rows


def table_of(rows: dict[str, dict[str, float]], title: str) -> Table:
    columns = {
        "images_per_s": ("images/s", ".1f"),
        "ratio": ("times", ".2f"),
        "images_per_s_normalised": ("normalised", ".1f"),
        "ratio_normalised": ("times", ".2f"),
        "mean_absolute_difference": ("train", ".3f"),
        "mean_absolute_difference_test": ("test", ".3f"),
        "largest_difference_test": ("most", ".0f"),
    }
    caption = (
        "times: torchvision's images/s; train, test: mean absolute difference of that view's pixels (0 to 255) from "
        "the reference's; most: the largest of the test view's"
    )
    table = Table(title=title, caption=caption)
    table.add_column("one core", no_wrap=True)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right")
    for name, facts in rows.items():
        table.add_row(name, *(format(facts[key], form) if key in facts else "" for key, (_, form) in columns.items()))
    return table


def write_annotations(file: Path, num_images: int, num_annotations: int) -> None:
    """Objects at random, some categories much more frequent than others, each with a box and an outline."""
    random = np.random.default_rng(0)
    share_C = 1 / np.arange(1, COCO_CATEGORIES + 1)
    image_A = random.integers(num_images, size=num_annotations).tolist()
    category_A = random.choice(COCO_CATEGORIES, num_annotations, p=share_C / share_C.sum()).tolist()
    outlines_A = random.random((num_annotations, 24)).round(4).tolist()
    coco.write(
        file,
        [
            {"id": number, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640}
            for number in range(num_images)
        ],
        [
            {"id": number, "image_id": image, "category_id": category, "bbox": outline[:4], "segmentation": [outline]}
            for number, (image, category, outline) in enumerate(zip(image_A, category_A, outlines_A, strict=True))
        ],
        [{"id": number, "name": f"thing {number}"} for number in range(COCO_CATEGORIES)],
    )


def measure_labels(num_images: int, num_annotations: int, folder: Path) -> dict[str, float]:
    """Seconds by step; the cache folder is one of its own."""
    file = folder / "instances.json"
    write_annotations(file, num_images, num_annotations)
    os.environ["MLRPL_CACHE"] = str(folder / "cache")
    seconds: dict[str, float] = {}

    def timed(step: str, job: Callable[[], object]) -> Any:
        start = time.process_time()
        result = job()
        seconds[step] = time.process_time() - start
        return result

    split = timed("labels, first reading", lambda: coco.read(file, folder))
    again = timed("labels, kept", lambda: coco.read(file, folder))
    assert again.fingerprint() == split.fingerprint()
    shape = split.labels_NC.shape
    mask_NC = timed("mask, hcp", lambda: known_mask(shape, RATIO))
    timed("mask, by_id", lambda: known_mask(shape, RATIO, scheme="by_id", ids=split.ids))
    labels_NC = torch.from_numpy(hide(split.labels_NC, mask_NC))
    timed("label graph", lambda: cooccurrence(labels_NC))
    return seconds


def print_labels(num_images: int, num_annotations: int, folder: Path) -> dict[str, float]:
    seconds = measure_labels(num_images, num_annotations, folder)
    size = (folder / "instances.json").stat().st_size / 2**20
    table = Table(
        title=f"{num_images:,} images, {num_annotations:,} annotations, {COCO_CATEGORIES} categories, {size:.0f} MiB"
    )
    table.add_column("one core")
    table.add_column("seconds", justify="right")
    for step, taken in seconds.items():
        table.add_row(step, f"{taken:.2f}")
    Console().print(table)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", action="store_true", help="time labels, masks and the label graph instead")
    parser.add_argument("--num-labelled", type=int, default=COCO_IMAGES, help="images with --labels")
    parser.add_argument("--images", type=Path, help="a folder with JPEGs; else photograph-like ones are made")
    parser.add_argument("--num-images", type=int, default=64)
    parser.add_argument("--width", type=int, default=640, help="of the images that are made, pixels")
    parser.add_argument("--height", type=int, default=480, help="of the images that are made, pixels")
    parser.add_argument("--smallest", type=int, default=0, help="leave out images with a shorter side, pixels")
    parser.add_argument("--size", type=int, default=448, help="side of the network's input, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.labels:
            annotations = options.num_labelled * COCO_ANNOTATIONS // COCO_IMAGES
            seconds = print_labels(options.num_labelled, annotations, folder)
            labelled = {"images": options.num_labelled, "annotations": annotations, "seconds": seconds}
            write(options.json, ["-m", "benchmarks.data_pipeline", "--labels"], labelled)
            return
        if options.images is None:
            paths = make_images(folder, options.num_images, options.width, options.height)
        else:
            found = (path for path in sorted(options.images.glob("*.jpg")) if shortest_side(path) >= options.smallest)
            paths = list(islice(found, options.num_images))
        if not paths:
            parser.error(f"there is no .jpg file of that size in {options.images}")
        rows = measure(paths, options.size, options.rounds, folder)
    Console().print(table_of(rows, f"{len(paths)} images, {options.size} pixels, best of {options.rounds} rounds"))
    chosen = {name: getattr(options, name) for name in ("width", "height", "size", "rounds")}
    facts: dict[str, Any] = {"num_images": len(paths), **chosen, "rows": rows}
    if options.images is None:  # others cannot be measured again elsewhere
        facts["ratios"] = {f"{TORCHVISION} over {name}": 1 / rows[name]["ratio"] for name in BACKENDS}
        facts["ratios"][f"{FAST} over {REDUCED}"] = rows[FAST]["ratio"] / rows[REDUCED]["ratio"]
    else:
        del facts["width"], facts["height"]
    command = [f"--{name.replace('_', '-')}={facts[name]}" for name in ("num_images", *chosen) if name in facts]
    write(options.json, ["-m", "benchmarks.data_pipeline", *command], facts)


if __name__ == "__main__":
    main()
