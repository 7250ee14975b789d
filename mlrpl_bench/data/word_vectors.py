"""This module finds a word vector for each category name.

Methods that start from the meaning of a category's name need a vector for it. `prepare` reads real ones (GloVe's) and
keeps those of the names in the cache folder. Where there are none, `hashed_vectors` stands in: it knows that "red
seven" and "red two" share a word and nothing else; "cat" is as far from "dog" as from "bus".
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlrpl_bench.utils import arrays
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import cache_folder, write_atomically
from mlrpl_bench.utils.progress import Count
from mlrpl_bench.utils.randomness import seed_of

WIDTH = 300
WORD_NORM = 6.0
"""Made-up vectors have this length, about that of GloVe's common nouns: methods do not normalise word vectors."""

LONGEST_LINE = 2**20
"""A line of a word vector file may have this many bytes; GloVe's longest have some thousands."""


def hashed_vectors(names: Sequence[str], width: int = WIDTH) -> NDArray[np.float32]:
    """Return a fixed vector per category name, the mean of its words' vectors: float32, (C, E) with E = `width`.

    The same name gives the same vector on every machine, whatever other names are asked for. Letter case,
    hyphens and underscores do not count.

    >>> red_seven, red_two, blue_six = hashed_vectors(["red seven", "red two", "blue six"])
    >>> bool(red_seven @ red_two > 10 * abs(red_seven @ blue_six))
    True
    """
    return np.stack([np.mean([_word_vector(word, width) for word in _words(name)], axis=0) for name in names]).astype(
        np.float32
    )


def prepare(names: Sequence[str], source: Path, report: Count = lambda *_: None) -> Path:
    """Take the names' vectors from a file and keep them in the cache, where `prepared` finds them.

    Args:
        source: a GloVe text file (a word and its numbers on each line), of which the words of a name are averaged; or
            an ``.npy`` of shape C x E whose rows are in the order of the names.
        report: called with (bytes read, bytes total).

    Raises:
        UserError: the file is missing or damaged, lacks a word, or has another number of rows than there are names.
    """
    if not source.is_file():
        raise UserError(f"there is no file of word vectors {source}")
    vectors_CE = _from_npy(names, source) if source.suffix == ".npy" else _from_text(names, source, report)
    if not np.isfinite(vectors_CE).all() or (vectors_CE == 0).all(axis=1).any():
        raise UserError(f"{source} has a vector that is all zeros or not finite; get the file again")
    buffer = io.BytesIO()
    np.save(buffer, vectors_CE)
    write_atomically(_file_of(names), buffer.getvalue())
    return _file_of(names)


def prepared(names: Sequence[str]) -> NDArray[np.float32] | None:
    """Return the vectors (C, E) that `prepare` kept for exactly these names in this order, or None."""
    path = _file_of(names)
    if not path.is_file():
        return None
    try:
        vectors_CE = _one_array(path)
        if vectors_CE.ndim != 2 or len(vectors_CE) != len(names) or vectors_CE.dtype != np.float32:
            raise arrays.Damaged(f"{vectors_CE.dtype} of shape {vectors_CE.shape}")
    except arrays.Damaged as error:
        raise UserError(f"the prepared word vectors {path} are damaged ({error}); delete the file") from error
    return vectors_CE


def _one_array(path: Path) -> NDArray:
    found = arrays.read(path)
    if set(found) != {"array"}:
        raise arrays.Damaged("an .npz, not an .npy")
    return found["array"]


def _file_of(names: Sequence[str]) -> Path:
    return cache_folder() / "words" / f"{hashlib.sha256(repr(list(names)).encode()).hexdigest()[:16]}.npy"


def _from_npy(names: Sequence[str], source: Path) -> NDArray[np.float32]:
    try:
        vectors_CE = _one_array(source)
    except arrays.Damaged as error:
        raise UserError(f"{source} is no array of NumPy ({error})") from error
    if vectors_CE.ndim != 2 or len(vectors_CE) != len(names) or vectors_CE.dtype.kind != "f":
        raise UserError(
            f"{source} has the shape {vectors_CE.shape} of {vectors_CE.dtype}; one row of floats is needed for each of "
            f"the {len(names)} categories, in their order ({names[0]}, {names[1 % len(names)]}, ...)"
        )
    return vectors_CE.astype(np.float32)


def _from_text(names: Sequence[str], source: Path, report: Count) -> NDArray[np.float32]:
    """Read the vectors of the names' words from a text file line by line; such files have gigabytes."""
    if all(re.fullmatch(r"category \d+", name) for name in names):
        raise UserError("the categories have no names, only numbers, for which words have no meaning; give an .npy")
    wanted = {word for name in names for word in _real_words(name)}
    found: dict[str, NDArray[np.float32]] = {}
    size, done = source.stat().st_size, 0
    with source.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise UserError(f"{source}, line {number} has no end; this is no GloVe text file, get it again")
            done += len(line)
            if number % 20_000 == 0:
                report(done, size)
            word, _, numbers = line.decode("utf-8", errors="replace").partition(" ")
            if word not in wanted or word in found:
                continue
            try:
                found[word] = np.array(numbers.split(), dtype=np.float32)
            except ValueError:
                raise UserError(f"{source}, line {number}: {word!r} is not followed by numbers") from None
    report(size, size)
    missing = sorted(wanted - set(found))
    if missing:
        raise UserError(
            f"{source} has no vector for {len(missing)} of the {len(wanted)} words of the category names: "
            f"{', '.join(missing[:10])}; is it a GloVe text file of lower-case words, and complete?"
        )
    widths = {len(vector_E) for vector_E in found.values()}
    if len(widths) > 1:
        raise UserError(f"{source} has vectors of several lengths ({sorted(widths)}); it is damaged")
    return np.stack([np.mean([found[word] for word in _real_words(name)], axis=0) for name in names])


def _real_words(name: str) -> list[str]:
    """Return the words of a name as GloVe has them; VOC's three joined names are taken apart."""
    joined = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
    return _words(joined.get(name.lower(), name))


def vectors_hash(vectors_CE: NDArray[np.floating]) -> str:
    """Identifies word vectors: SHA-256 over their shape and their values as float32."""
    values = np.ascontiguousarray(vectors_CE, dtype="<f4")
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.lower()) or [name]


def _word_vector(word: str, width: int) -> NDArray[np.float64]:
    """Draw a word's vector; draws are uniform, not normal, because their bits are the same on every platform."""
    unit_variance_E = np.sqrt(3) * np.random.default_rng(seed_of("word", word)).uniform(-1, 1, width)
    return WORD_NORM / np.sqrt(width) * unit_variance_E
