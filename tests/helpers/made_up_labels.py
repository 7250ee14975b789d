"""Splits for the tests of this folder: random labels, and images that are drawn on the spot. It has no tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mlrpl_bench.data.dataset import Dataset, Split
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.utils.errors import UserError


def labels(num_images: int, num_categories: int, share: float = 0.3, seed: int = 0) -> np.ndarray:
    draws_NC = np.random.default_rng(seed).random((num_images, num_categories))
    return np.where(draws_NC < share, PRESENT, ABSENT).astype(np.int8)


def split(labels_NC: np.ndarray, folder: Path = Path("nowhere"), name: str = "train") -> Split:
    rows, columns = labels_NC.shape
    paths = [folder / f"{name}{row}.jpg" for row in range(rows)]
    return Split(range(rows), paths, labels_NC, tuple(f"thing {column}" for column in range(columns)))


def draw(path: Path, mode: str = "RGB", size: tuple[int, int] = (96, 64), **how) -> Path:
    Image.effect_noise(size, 60).convert(mode).save(path, **how)
    return path


class Folder(Dataset):
    """Two splits of images that lie in the root, six and four."""

    expected_files = "ROOT/\n  train*.jpg\n  test*.jpg"
    expected_counts = {"train": 6, "test": 4}  # noqa: RUF012

    def load(self, root: Path, name: str) -> Split:
        if not (root / "labels.txt").is_file():
            raise UserError(f"no file {root / 'labels.txt'}; download it")
        return split(labels({"train": 6, "test": 4}[name], 3, share=0.7), root, name)


def fill(root: Path) -> Path:
    """What `Folder` needs."""
    root.mkdir(exist_ok=True)
    (root / "labels.txt").write_text("")
    for name, images in Folder.expected_counts.items():
        for row in range(images):
            draw(root / f"{name}{row}.jpg")
    return root


def truncate(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path
