"""This module describes what a pack changed of a record's files: scores rounded, training scores or weights left out.

A record that came in a pack keeps its ``record.json`` to the byte, with the sizes and hashes of the files as training
wrote them. Beside it lies ``packed.json``, which says which of these files have other bytes here and which are not
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

PACKED = "packed.json"
FULL, ROUNDED = "float32", "float16"
PRECISIONS = (ROUNDED, FULL)
"""The number formats in which a pack may hold scores."""

TRAIN_SCORES, WEIGHTS = "train_scores.npz", "weights.safetensors"
TRAIN_EVIDENCE = "train_evidence.npz"
"""What tables need of the training scores lies in this file where these are left out; see `evidence.of_training`."""

MAY_BE_LEFT_OUT = (TRAIN_SCORES, WEIGHTS)
MAY_BE_ROUNDED = ("scores.npz", TRAIN_SCORES, "examples.npz")

ROUNDING_TOLERANCE: Mapping[str, float] = {"mAP": 1e-4, "OF1": 1e-4, "CF1": 1e-4}
"""By so much, as fractions, may a metric of rounded scores differ from the one that the full scores gave."""
OTHER_TOLERANCE = 1e-2
"""The same for all other metrics: one category's precision rests on few images, of which rounding may tie two."""


@dataclass(frozen=True)
class Packed:
    """This class says how a record's files differ from those that its ``record.json`` states.

    Attributes:
        scores: the number format of the scores, one of `PRECISIONS`.
        files: by name of each file that has other bytes here or was added, its ``bytes`` and its ``sha256``.
        left_out: the names of the files that are not here.
    """

    scores: str
    files: Mapping[str, Mapping[str, Any]]
    left_out: tuple[str, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Packed:
        """Return what `to_json` wrote.

        Raises:
            ValueError: it is something else; the message says what is wrong.
        """
        if set(content) != {"scores", "files", "left_out"}:
            raise ValueError(f"it has {', '.join(sorted(map(str, content))) or 'nothing'}")
        scores, stated, left_out = content["scores"], content["files"], content["left_out"]
        if scores not in PRECISIONS:
            raise ValueError(f"its scores are {scores!r}")
        if not isinstance(left_out, list) or not all(name in MAY_BE_LEFT_OUT for name in left_out):
            raise ValueError(f"it leaves out {left_out!r}")
        if not isinstance(stated, dict) or not set(stated) <= {*MAY_BE_ROUNDED, TRAIN_EVIDENCE} - set(left_out):
            raise ValueError("it names files that no pack changes")
        if (TRAIN_SCORES in left_out) != (TRAIN_EVIDENCE in stated):
            raise ValueError(f"of {TRAIN_SCORES} and {TRAIN_EVIDENCE} it must have one")
        for name, facts in stated.items():
            check_facts(name, facts)
        return cls(scores, stated, tuple(left_out))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"scores": self.scores, "files": dict(self.files), "left_out": list(self.left_out)}

    def files_here(self, stated: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return size and hash of each file that is here, by name.

        Args:
            stated: the same of the files as training wrote them.
        """
        return {name: facts for name, facts in {**stated, **self.files}.items() if name not in self.left_out}

    def is_rounded(self) -> bool:
        """Tell whether scores have fewer digits here than when they were written."""
        return self.scores == ROUNDED


def check_facts(name: str, facts: Any) -> None:
    """Refuse what is not the size and the hash of a file.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(facts, dict) or set(facts) != {"bytes", "sha256"}:
        raise ValueError(f"of {name} it does not state bytes and sha256")
    size, sha256 = facts["bytes"], facts["sha256"]
    if type(size) is not int or size < 0:
        raise ValueError(f"the bytes of {name} are {size!r}")
    if type(sha256) is not str or len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"the sha256 of {name} is {sha256!r}")


def tolerance_of(metric: str) -> float:
    """Return by how much a metric of rounded scores may differ, as a fraction."""
    return ROUNDING_TOLERANCE.get(metric, OTHER_TOLERANCE)


def rounded(name: str, values: np.ndarray) -> np.ndarray:
    """Return 32-bit numbers in 16 bits, other arrays as they are.

    Args:
        name: how an error calls the array.

    Raises:
        ValueError: a number is larger than 16 bits can hold, 65,504.
    """
    if values.dtype != np.float32:
        return values
    with np.errstate(over="ignore"):
        less = values.astype(np.float16)
    if not np.array_equal(np.isfinite(less), np.isfinite(values)):
        raise ValueError(f"{name} has numbers that {ROUNDED} cannot hold")
    return less
