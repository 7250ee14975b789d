"""Labels of large annotation files, kept once they were read: COCO's take 15 seconds to parse and 8 MB to keep.

An entry is named by the annotation file's path, size and time of change; another file, or a changed one, is read
anew. Entries are checked by their hash, and read anew if they are damaged.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlrpl_bench import arrays as array_files
from mlrpl_bench.dataset import Split
from mlrpl_bench.files import cache_folder, write_atomically

VERSION = 1
"""Raised when what is kept, or what reading makes of a file, changes."""
KEEP_ABOVE_BYTES = 20 * 2**20
"""Smaller files are read as fast as their entries."""


def kept(annotation_file: Path, read: Callable[[], Split]) -> Split:
    """What `read` gives for an annotation file: a split whose image paths are relative names, without word vectors."""
    try:
        facts = annotation_file.stat()
    except OSError:
        return read()  # which says what is wrong
    if facts.st_size <= KEEP_ABOVE_BYTES:
        return read()
    name = repr((VERSION, str(annotation_file.resolve()), facts.st_size, facts.st_mtime_ns))
    path = cache_folder() / "labels" / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"
    split = _load(path)
    if split is None:
        split = read()
        write_atomically(path, _bytes_of(split))
    return split


def _bytes_of(split: Split) -> bytes:
    words = {"ids": list(split.ids), "names": [str(p) for p in split.image_paths], "categories": split.categories}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(words).encode(), dtype=np.uint8)
    np.savez_compressed(buffer, text=text, labels_NC=split.labels_NC, fingerprint=np.array(split.fingerprint()))
    return buffer.getvalue()


def _load(path: Path) -> Split | None:
    """The entry, or None if there is none or it is not what was written."""
    if not path.is_file():
        return None
    try:
        arrays = array_files.read(path)
        words = json.loads(arrays["text"].tobytes())
        paths = [Path(name) for name in words["names"]]
        split = Split(words["ids"], paths, arrays["labels_NC"], tuple(words["categories"]))
        return split if split.fingerprint() == str(arrays["fingerprint"]) else None
    except Exception:  # damaged in whatever way: it is only a copy, and is made anew
        return None
