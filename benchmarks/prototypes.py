"""What prototypes cost: collecting features in one pass, and K-means, as a share of an epoch.

    python -m benchmarks.prototypes [--scale 0.1] [--images-per-second 400] [--json PATH]

COCO's 82,783 training images, 80 categories and cap of 20,000 features per category, all positives known, times
`--scale`; the seconds at COCO's size are those divided by the scale. Collecting is linear in the number of features;
K-means also takes more rounds the more features there are, so a scale below 1 makes its seconds a lower estimate.
Categories are clustered side by side, as many as there are threads: with one, and with one for each core that may be
used. However many there are, it takes as long as the longest category, which is measured too. An
epoch is estimated from an *assumed* number of training images a second. The forward pass that makes the features is
no part of collecting: features are drawn at random here, around overlapping centres.

Collecting is compared with repeated concatenation (as the papers' code has it) on `--joined-images` images.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.common import in_turns, machine, seconds, write
from benchmarks.metrics import simulated
from mlrpl_bench.data.protocol import PRESENT
from mlrpl_bench.models.layers.prototypes import KnownPositives, Prototypes
from mlrpl_bench.utils.processes import usable_cores

IMAGES, CAP, PROTOTYPES, BATCH = 82_783, 20_000, 10, 16
"""COCO's training images; the other three as the hyper-parameters and presets have them."""
ROUNDS = 3
JOINED, LINEAR = "collecting over repeated concatenation", "collecting from twice the images over once"
Batch = tuple[Tensor, Tensor]


def batches(images: int, categories: int, width: int) -> list[Batch]:
    """Features and labels of a pass; the features are a view of a few, so that they take no memory."""
    random_numbers = torch.Generator().manual_seed(0)
    labels_NC = torch.from_numpy(simulated(images, categories)[1])
    centres_KCD = torch.randn(PROTOTYPES, categories, width, generator=random_numbers)
    noise_BCD = torch.randn(BATCH, categories, width, generator=random_numbers)
    which_B = torch.randint(PROTOTYPES, (BATCH,), generator=random_numbers)
    features_BCD = centres_KCD[which_B] + noise_BCD
    return [(features_BCD[: len(labels_BC)], labels_BC) for labels_BC in labels_NC.split(BATCH)]


def collected(passed: list[Batch]) -> list[Tensor]:
    found = KnownPositives()
    for features_BCD, labels_BC in passed:
        found.add(labels_BC, features_BCD)
    return found.take()


def joined_each_time(passed: list[Batch]) -> Tensor:
    """All features so far are copied at each batch: quadratic in the number of images."""
    features_SD = torch.empty(0, passed[0][0].shape[-1])
    for features_BCD, labels_BC in passed:
        features_SD = torch.cat([features_SD, features_BCD[labels_BC == PRESENT]])
    return features_SD


def clustering(passed: list[Batch], cap: int) -> Callable[[], None]:
    """A recompute, all but the pass; features are moved until clusters overlap, else K-means would end early."""
    categories, width = passed[0][0].shape[1:]
    prototypes = Prototypes(categories, PROTOTYPES, width, cap)
    random_numbers = torch.Generator().manual_seed(0)
    for features_BCD, labels_BC in passed:
        moved_BCD = 0.05 * features_BCD + torch.randn(features_BCD.shape, generator=random_numbers)
        prototypes.observe(moved_BCD, labels_BC)
    return lambda: prototypes.cluster(torch.Generator().manual_seed(0))


def k_means_with(threads: int) -> str:
    return f"K-means, {threads} thread{'s' if threads > 1 else ''}"


def clustered_in(threads: int, passed: list[Batch], cap: int) -> float:
    """Seconds of a recompute by so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return seconds(clustering(passed, cap))
    finally:
        torch.set_num_threads(before)


def longest_category(passed: list[Batch], cap: int) -> float:
    """Seconds of the category with the most features, alone."""
    counts_C = torch.stack([(labels_BC == PRESENT).sum(0) for _, labels_BC in passed]).sum(0)
    largest = slice(int(counts_C.argmax()), int(counts_C.argmax()) + 1)
    return seconds(clustering([(features[:, largest], labels[:, largest]) for features, labels in passed], cap))


def measure(scale: float, categories: int, width: int, joined_images: int, images_per_second: float) -> dict[str, Any]:
    images = max(round(IMAGES * scale), 2 * BATCH)
    passed, few = batches(images, categories, width), batches(joined_images, categories, width)
    twice = few + few
    joining = in_turns(ROUNDS, lambda: collected(few), lambda: collected(twice), lambda: joined_each_time(few))
    assert torch.equal(collected(few)[1], joined_each_time(few))
    collecting = statistics.median(row[0] for row in in_turns(ROUNDS, lambda: collected(passed)))
    cap, epoch = max(round(CAP * scale), PROTOTYPES), IMAGES / images_per_second
    clustered_in(1, few[:2], cap)  # imports what K-means takes
    taken = {"collecting": collecting}
    for threads in sorted({1, len(usable_cores())}):
        taken[k_means_with(threads)] = clustered_in(threads, passed, cap)
    taken["K-means, the longest category"] = longest_category(passed, cap)
    at_full_size = {name: value * IMAGES / images for name, value in taken.items()}
    return {
        "sizes": {"scale": scale, "images": images, "categories": categories, "width": width},
        "assumed_images_per_second": images_per_second,
        "features": sum(int((labels_BC == PRESENT).sum()) for _, labels_BC in passed),
        "seconds": taken,
        "seconds_at_full_size": at_full_size,
        "share_of_an_epoch": {name: value / epoch for name, value in at_full_size.items()},
        # Not among the ratios that are checked: from run to run it is 0.014 to 0.032, as once is so short.
        JOINED: statistics.median(once / repeated for once, _, repeated in joining),
        "ratios": {LINEAR: statistics.median(double / once for once, double, _ in joining)},
    }


def table_of(facts: dict[str, Any], title: str) -> Table:
    rate = facts["assumed_images_per_second"]
    caption = f"an epoch is {IMAGES / rate:,.0f} s: {rate:g} training images a second are assumed, not measured"
    table = Table(title=title, caption=caption)
    for heading in ("prototypes", "seconds", "at COCO's size", "of an epoch"):
        table.add_column(heading, justify="left" if heading == "prototypes" else "right")
    for name, value in facts["seconds"].items():
        share = facts["share_of_an_epoch"][name]
        table.add_row(name, f"{value:.2f}", f"{facts['seconds_at_full_size'][name]:.1f}", f"{share:.1%}")
    for name, ratio in {JOINED: facts[JOINED], **facts["ratios"]}.items():
        table.add_row(name, "", "", f"{ratio:.2f} x")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="of COCO's images and of the cap")
    for name, usual in (("categories", 80), ("width", 1024), ("joined-images", 4000)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--images-per-second", type=float, default=400, help="what an epoch is estimated from")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    torch.set_num_threads(1)
    facts = measure(**given)
    sizes = facts["sizes"]
    Console().print(table_of(facts, f"{facts['features']:,} features of {sizes['width']} numbers; {machine()}"))
    named = (f"--{name.replace('_', '-')}={value}" for name, value in given.items())
    write(path, ["-m", "benchmarks.prototypes", *named], facts)


if __name__ == "__main__":
    main()
