"""Predictions to draw, and a look at what was drawn.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mlrpl_bench.tools.predict import Prediction

CATEGORIES = ("dog", "a $cat$ of a very long name", "bird", "cow", "elk")


def prediction(maps: bool = True, size=(40, 30), shift: float = 0) -> Prediction:
    """A prediction of a picture of noise, the same each time."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
    logits_C = np.array([2.0, 1, 0.5, -1, -2], dtype=np.float32) + np.float32(shift)
    attention_CHW = random.random((5, 7, 7)).astype(np.float32) if maps else None
    return Prediction(Path("some $x$ $y$.png"), picture, picture.resize((28, 28)), logits_C, attention_CHW)


def opened(png: bytes) -> Image.Image:
    """A whole PNG; nothing in it tells when or by what it was written."""
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    assert set(image.info) <= {"dpi"}
    return image
