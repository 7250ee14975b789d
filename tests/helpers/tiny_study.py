"""Cells and records in a second: a data set of twenty pictures, and results made up without training.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlrpl_bench.data.protocol import ABSENT, PRESENT, VERSION
from mlrpl_bench.evaluation import metrics
from mlrpl_bench.leaderboard.evidence import Evidence, EvidenceGrid
from mlrpl_bench.models.method import Recipe
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.cell import Cell, Finished, Setting
from mlrpl_bench.records.record import Record
from mlrpl_bench.training.study import Options, Study
from mlrpl_bench.utils.errors import UserError

CATEGORIES = ("red square", "green square", "blue square", "white square")

DATASET = '''"""Twenty pictures of squares, drawn on first use."""

import numpy as np
from PIL import Image

from mlrpl_bench.data.dataset import Dataset, Preset, Split
from mlrpl_bench.utils.files import build_folder_once
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models.registry import register_dataset

INKS = {"red square": (220, 0, 0), "green square": (0, 220, 0), "blue square": (0, 0, 220), "white square": (250,) * 3}


def has(number):
    """The bits of a picture's number say which squares it shows; below 8 none is white."""
    return [bool(number >> bit & 1) for bit in range(len(INKS))]


def draw(folder):
    for number in range(12):
        pixels_HW3 = np.full((32, 32, 3), 60, dtype=np.uint8)
        for place, (ink, shown) in enumerate(zip(INKS.values(), has(number))):
            if shown:
                pixels_HW3[4:12, 8 * place : 8 * place + 6] = ink
        Image.fromarray(pixels_HW3).save(folder / f"{number}.png")


@register_dataset("tiny", preset=Preset(32, "small", epochs=2, batch=4, lr_multiplier=100, ratios=(0.5, 0.9)))
class Tiny(Dataset):
    needs_root = False

    def load(self, root, split):
        folder = build_folder_once(root / "tiny", draw)
        numbers = range(12 if split == "train" else 8)
        labels_NC = np.where([has(number) for number in numbers], PRESENT, ABSENT).astype(np.int8)
        return Split(list(numbers), [folder / f"{number}.png" for number in numbers], labels_NC, tuple(INKS))
'''
"""12 pictures to train on and 8 to test, which have no white square: that category's precision is NaN."""

METHOD = '''"""One linear layer on the mean position.

Nothing else.
"""

from torch import nn

from mlrpl_bench.models.losses import partial_bce
from mlrpl_bench.models.method import Method
from mlrpl_bench.models.registry import register_method


@register_method("plain", paper="https://example.org/plain", differs="shorter")
class Plain(Method):
    def __init__(self, backbone, task, hyperparameters):
        super().__init__(backbone, task, hyperparameters)
        self.classifier = nn.Linear(backbone.channels, len(task.categories))

    def forward(self, frozen_BDHW):
        return self.classifier(self.trained(frozen_BDHW).mean((2, 3)))

    def losses(self, batch, progress):
        return {"bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}
'''

WEIGHTED = (
    METHOD.replace('"plain"', '"weighted"')
    .replace(
        "\n\n@register_method",
        "\nfrom dataclasses import dataclass\nfrom mlrpl_bench.models.hyperparameters import parameter\n\n\n"
        "@register_method",
    )
    .replace(
        "class Plain(Method):\n",
        "class Plain(Method):\n    @dataclass(frozen=True)\n    class Hyperparameters:\n"
        '        alpha: float = parameter(0.5, "a weight", low=0, high=1)\n\n',
    )
)
"""It has a hyper-parameter, which changes nothing."""

EXPLODING = METHOD.replace('"plain"', '"explodes"').replace(
    """return {"bce": partial_bce(self(batch.frozen_BDHW), batch.labels_BC)}""",
    """bce = partial_bce(self(batch.frozen_BDHW), batch.labels_BC)
        burst = float("nan") if (progress.epoch, progress.step) == (1, 2) else 0.0
        return {"bce": bce, "burst": bce * burst}""",
)
"""Its term ``burst`` is not a number at the third step of the second epoch."""


def write_plugin(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def method(path: Path, text: str = METHOD):
    """The registered method that a file with this text defines."""
    write_plugin(path, text)
    registry = load_methods([path])
    (name,) = (name for name in registry if registry[name].path == path)
    return registry[name]


def study(path: Path, **options: Any) -> Study:
    """A study of the tiny data set on the CPU, its file written to `path`; the cache folder is the caller's affair."""
    return Study(load_datasets([write_plugin(path, DATASET)])["tiny"], Options(**{"device": "cpu", **options}))


SETTING = Setting(
    protocol_version=VERSION,
    dataset="tiny",
    fingerprint="f-f",
    evaluate_on="test",
    mask_scheme="hcp",
    backbone="small",
    weights="random",
    word_vectors="w",
    image_size=32,
    crop_sides=(1.0, 0.5),
    flip=True,
    transform="reference",
    bad_images="error",
    precision="32-true",
    epochs=2,
    batch=4,
)


def cell(**changes: Any) -> Cell:
    """A cell of a method called plain."""
    values: dict[str, Any] = {
        "setting": SETTING,
        "method": "plain",
        "hyperparameters": {},
        "changed": (),
        "recipe": Recipe(epochs=2, batch=4),
        "source_digest": "d",
        "ratio": 0.5,
        "seed": 0,
        "mask_seed": 0,
        "mask_hash": "m",
    }
    return Cell(**{**values, **changes})


def labels_NC() -> np.ndarray:
    """Of the eight test images; nothing has the last category."""
    bits_NC = np.array([[number >> bit & 1 for bit in range(4)] for number in range(8)])
    return np.where(bits_NC == 1, PRESENT, ABSENT).astype(np.int8)


def finished(of: Cell, seed: int = 0, **changes: Any) -> Finished:
    """What training a cell might have left behind: random scores with the metrics that belong to them."""
    random = np.random.default_rng(seed)
    scores_NC = random.normal(size=(8, 4)).astype(np.float32)
    values: dict[str, Any] = {
        "cell": of,
        "history": [{"epoch": epoch, "loss.bce": 0.5 / (epoch + 1), "test.mAP": 0.25} for epoch in range(2)],
        "steps": {"bce": random.random(6).astype(np.float32)},
        "scores_NC": scores_NC,
        "train_scores_NC": random.normal(size=(12, 4)).astype(np.float32),
        "examples": {"rows": np.arange(8), "scores": scores_NC},
        "metrics": metrics.evaluate(scores_NC, labels_NC()),
        "best_epoch": 0,
        "best_metrics": metrics.evaluate(scores_NC, labels_NC()),
        "weights": {"classifier.bias": torch.zeros(4)},
        "known_share": {"present": 0.5, "absent": 0.45},
        "dropped_images": 0,
        "seconds": 1.5,
        "images_per_second": 16.0,
        "peak_memory_bytes": 10**8,
        "cells_in_group": 1,
        "threads": (1,),
    }
    return Finished(**{**values, **changes})


def record(of: Cell | None = None, **metrics_: float) -> Record:
    """A record with these metrics (fractions), in no folder."""
    values: dict[str, Any] = {name: 0.5 for name in metrics.evaluate(*SOME)}
    values |= {"AP_C": np.full(4, 0.5), **metrics_}
    cost = {"seconds": 1.5, "images_per_second": 16.0, "peak_memory_bytes": 10**8, "cells_in_group": 1}
    return Record(of or cell(), Path("nowhere"), values, {"metrics": values, "best_metrics": values, "cost": cost})


SOME = (np.array([[1.0], [-1.0]]), np.array([[PRESENT], [ABSENT]]))
"""Scores and labels of two images."""


def evidence(of: Record, noise: float = 0.0, recovery: float = 0.5) -> Evidence:
    """What a record is evidence for; with noise from images, in points of a standard error."""
    random = np.random.default_rng(of.cell.seed)
    influences = {name: random.normal(scale=noise * 0.1, size=100).astype(np.float32) for name in metrics.REPORTED}
    return Evidence(of, influences, recovery, np.full(4, recovery), 0.01)


def cells_of(records: Iterable[Record], **options: float) -> EvidenceGrid:
    """Records as a table takes them."""
    cells: dict[tuple[str, float], dict[tuple[int, int], Evidence]] = {}
    for one in records:
        found = evidence(one, **options)
        cells.setdefault((one.cell.label, one.cell.ratio), {})[found.seeds] = found
    return cells


def make_of_another_version(folder: Path) -> Path:
    """Turn a cell's folder into what another protocol version would have left: its key is another; the new folder."""
    content = json.loads((folder / "record.json").read_bytes())
    content["cell"]["setting"]["protocol_version"] = VERSION + 1
    content["key"] = Cell.from_json(content["cell"]).key
    (folder / "record.json").write_text(json.dumps(content))
    return folder.rename(folder.with_name(f"{folder.name[:-8]}{content['key'][:8]}"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refusal(action) -> str:
    """The line with which it is refused."""
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)
