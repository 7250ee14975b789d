"""Small made-up photographs as a split.

Test modules import this; it has no tests.
"""

import numpy as np
from PIL import Image

from mlrpl_bench.data.dataset import Split
from mlrpl_bench.data.images.decoding import decode

NUM_ROWS, SIDE = 11, 32


BICUBIC = Image.Resampling.BICUBIC


def photograph(width, height, seed):
    coarse = np.random.default_rng(seed).integers(256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), BICUBIC)


def split_of(folder, num_rows=NUM_ROWS):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{row}.png" for row in range(num_rows)]
    for row, path in enumerate(paths):
        size = (SIDE, SIDE) if row == 3 else (60 + row, 50 - row)
        photograph(*size, seed=row).save(path)
    labels_NC = np.tile(np.array([[1, -1]], np.int8), (num_rows, 1))
    return Split(list(range(num_rows)), paths, labels_NC, ("cat", "dog"))


def enlarged(path):
    """The pixels (SIDE, SIDE, 3) of an image after the first resize of the reference."""
    return np.asarray(decode(path).resize((SIDE, SIDE), BICUBIC))
