"""A data set of drawn squares whose training labels are partly missing; test modules import this, it has no tests."""

from __future__ import annotations

DATASET = '''"""Six hundred noisy pictures of squares; of their training labels a half was never given."""

import numpy as np
from PIL import Image

from mlrpl_bench import ABSENT, PRESENT, UNKNOWN, Dataset, Preset, Split, build_folder_once, register_dataset

INKS = {"red square": (220, 0, 0), "green square": (0, 220, 0), "blue square": (0, 0, 220)}
SHARES = (0.5, 0.3, 0.2)
IMAGES = {"train": 600, "test": 8}
GIVEN = 0.5


def truth(split):
    """Complete labels."""
    draws_NC = np.random.default_rng(len(split)).random((IMAGES[split], len(INKS)))
    labels_NC = np.where(draws_NC < SHARES, PRESENT, ABSENT).astype(np.int8)
    labels_NC[0], labels_NC[1] = PRESENT, ABSENT
    return labels_NC


def draw(folder):
    random = np.random.default_rng(0)
    for split in IMAGES:
        (folder / split).mkdir()
        for row, labels_C in enumerate(truth(split)):
            pixels_HW3 = random.integers(40, 90, (32, 32, 3)).astype(np.uint8)
            for place, (ink, label) in enumerate(zip(INKS.values(), labels_C)):
                if label == PRESENT:
                    strength = random.uniform(0.2, 1)
                    pixels_HW3[4:24, 10 * place : 10 * place + 9] = (strength * np.array(ink)).astype(np.uint8)
            Image.fromarray(pixels_HW3).save(folder / split / f"{row}.png")


@register_dataset("partly", preset=Preset(32, "small", epochs=2, batch=16, lr_multiplier=300, ratios=(0.6,)))
class Partly(Dataset):
    needs_root = False

    def load(self, root, split):
        folder = build_folder_once(root / "partly", draw)
        labels_NC = truth(split)
        if split == "train":
            given_NC = np.random.default_rng(1).random(labels_NC.shape) < GIVEN
            labels_NC = np.where(given_NC, labels_NC, UNKNOWN).astype(np.int8)
        names = [f"{split}/{row}.png" for row in range(len(labels_NC))]
        return Split(names, [folder / name for name in names], labels_NC, tuple(INKS))
'''

COMPLETE = DATASET.replace("GIVEN = 0.5", "GIVEN = 1.0")
"""The same with all labels given."""
