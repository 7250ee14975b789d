"""This module reads and writes the manifest of a pack: every file of every record with its size and its SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlrpl_bench.data import protocol
from mlrpl_bench.records.elsewhere.packed import PACKED, PRECISIONS, TRAIN_EVIDENCE, WEIGHTS, check_facts
from mlrpl_bench.records.packs.signatures import SIGNATURE
from mlrpl_bench.records.record import FILES, RECORD
from mlrpl_bench.utils.errors import UserError

MANIFEST = "manifest.json"
FORMAT, FORMAT_VERSION = "mlrpl-bench records", 1
LARGEST = 64 * 2**20
"""A manifest of more bytes is refused unread; one of ten thousand records has 15 million."""

MEMBERS = frozenset({*FILES, RECORD, PACKED, TRAIN_EVIDENCE, WEIGHTS, SIGNATURE})
"""A record in a pack has files of these names and no others."""

Facts = Mapping[str, Mapping[str, Any]]
"""This maps the name of each file to its ``bytes`` and its ``sha256``."""


NOTHING_IMPORTED = "; nothing was imported"


class BadPack(UserError):
    """A pack is damaged, of another version, or holds what does not belong into one."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}{NOTHING_IMPORTED}")


@dataclass(frozen=True)
class Manifest:
    """A manifest says what is in a pack.

    Attributes:
        scores: the number format of the scores, one of `packed.PRECISIONS`; an exported pack rounds all alike.
        records: by a record's place, ``scenes/sarb/0.1-s0-0123abcd``, the facts of its files.
    """

    scores: str
    records: Mapping[str, Facts]

    def members(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the path and the facts of each file, in order."""
        for place, files in sorted(self.records.items()):
            for name, facts in sorted(files.items()):
                yield f"{place}/{name}", facts

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain data, with the digest of all of it."""
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "protocol_version": protocol.VERSION,
            "scores": self.scores,
            "records": {place: dict(files) for place, files in self.records.items()},
        }
        return {**content, "sha256": _digest(content)}

    @property
    def sha256(self) -> str:
        """Return the digest of the pack: of all that the manifest states, and so of every byte of every member."""
        return self.to_json()["sha256"]

    @classmethod
    def read(cls, pack: str, content: bytes) -> Manifest:
        """Read the manifest that `to_json` gave.

        Args:
            pack: what an error calls the pack.

        Raises:
            BadPack: it is damaged, of another version or no manifest.
        """
        try:
            stated = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadPack(f"{pack}: its {MANIFEST} is no JSON ({error})") from error
        try:
            return cls._of(pack, stated)
        except BadPack:  # it is a ValueError too, and says by itself what is wrong
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadPack(f"{pack}: its {MANIFEST} is no manifest ({error!r})") from error

    @classmethod
    def _of(cls, pack: str, stated: Any) -> Manifest:
        if stated["format"] != FORMAT:
            raise ValueError(f"its format is {stated['format']!r}")
        if (version := stated["version"]) != FORMAT_VERSION:
            raise BadPack(f"{pack} is of version {version!r} of packs and {FORMAT_VERSION} is read here")
        if (version := stated["protocol_version"]) != protocol.VERSION:
            here = f"this is version {protocol.VERSION}: their numbers do not mix"
            raise BadPack(f"{pack} is of protocol version {version!r} and {here}")
        if stated["sha256"] != _digest({name: value for name, value in stated.items() if name != "sha256"}):
            raise BadPack(f"{pack}: its {MANIFEST} is not what was written (SHA-256 differs); fetch the pack again")
        if stated["scores"] not in PRECISIONS:
            raise ValueError(f"its scores are {stated['scores']!r}")
        if not stated["records"]:
            raise ValueError("it names no record")
        for place, files in stated["records"].items():
            if unknown := sorted(set(files) - MEMBERS):
                raise ValueError(f"{place} has a file {unknown[0]!r}, which belongs to no record")
            for name, facts in files.items():
                check_facts(name, facts)
        return cls(stated["scores"], stated["records"])


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
