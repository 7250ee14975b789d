"""Word vectors for category names.

Methods that start from the meaning of a category's name need a vector for it. Where no real vectors (such as
GloVe's) are given, `hashed_vectors` stands in: it knows that "red seven" and "red two" share a word and nothing
else; "cat" is as far from "dog" as from "bus".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.randomness import seed_of

WIDTH = 300
WORD_NORM = 6.0
"""About the length of a GloVe vector of a common noun; the methods use such vectors without normalising them."""


def hashed_vectors(names: Sequence[str], width: int = WIDTH) -> NDArray[np.float32]:
    """A fixed vector per category name, the mean of its words' vectors: float32, (C, E) with E = `width`.

    The same name gives the same vector on every machine, whatever other names are asked for. Letter case,
    hyphens and underscores do not count.

    >>> red_seven, red_two, blue_six = hashed_vectors(["red seven", "red two", "blue six"])
    >>> bool(red_seven @ red_two > 10 * abs(red_seven @ blue_six))
    True
    """
    return np.stack([np.mean([_word_vector(word, width) for word in _words(name)], axis=0) for name in names]).astype(
        np.float32
    )


def vectors_hash(vectors_CE: NDArray[np.floating]) -> str:
    """Identifies word vectors: SHA-256 over their shape and their values as float32."""
    values = np.ascontiguousarray(vectors_CE, dtype="<f4")
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.lower()) or [name]


def _word_vector(word: str, width: int) -> NDArray[np.float64]:
    """Uniform rather than normal draws: their bits are the same on every platform."""
    unit_variance_E = np.sqrt(3) * np.random.default_rng(seed_of("word", word)).uniform(-1, 1, width)
    return WORD_NORM / np.sqrt(width) * unit_variance_E
