"""This module keeps where a record comes from, beside the record: measured here, or submitted in a pack.

A record without the file ``origin.json`` was measured by whoever has the folder. `import` writes the file for what came
in a pack; ``verify`` adds that the cell was trained again here and held; a signature by a key that the user trusts adds
a name. The record's own bytes never change.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.files import write_atomically

ORIGIN = "origin.json"
OWN_STATUS, SUBMITTED, SIGNED, REMEASURED = "own", "submitted", "signed", "re-measured"


@dataclass(frozen=True)
class Origin:
    """An origin says how a record came into its folder, and what is known of it since.

    Attributes:
        pack: the SHA-256 of the pack that it came in; "" where it was measured by the folder's owner.
        signed_by: whom the user's file of trusted keys names as the signer; "" where none is known.
        remeasured: how the cell came out when it was trained again here, in words; "" where it was not.
    """

    pack: str = ""
    signed_by: str = ""
    remeasured: str = ""

    @property
    def status(self) -> str:
        """Return the strongest of what is known: ``own``, ``re-measured``, ``signed`` or ``submitted``."""
        if not self.pack:
            return OWN_STATUS
        return REMEASURED if self.remeasured else SIGNED if self.signed_by else SUBMITTED

    def to_text(self) -> str:
        """Write all that is known, in words."""
        signed = [f"signed by {self.signed_by}"] if self.signed_by else []
        again = [f"re-measured here: {self.remeasured}"] if self.remeasured else []
        return ", ".join([SUBMITTED if self.pack else OWN_STATUS, *signed, *again])


OWN = Origin()
UNKNOWN = Origin(pack="unknown")
"""This is the origin of a file that cannot be read: submitted by nobody knows whom, which claims the least."""


def read_origin(folder: Path) -> Origin:
    """Read a record's origin from its folder."""
    try:
        content = json.loads((folder / ORIGIN).read_bytes())
        found = Origin(**content)
    except (FileNotFoundError, NotADirectoryError):
        return OWN
    except (OSError, ValueError, TypeError, RecursionError):
        return UNKNOWN
    said = asdict(found).values()
    return found if found.pack and all(isinstance(text, str) and text.isprintable() for text in said) else UNKNOWN


def write_origin(folder: Path, origin: Origin) -> None:
    """Write a record's origin into its folder.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_atomically(folder / ORIGIN, json.dumps(asdict(origin), indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{folder / ORIGIN} cannot be written ({error.strerror}); allow it") from error


def counted_origins(origins: Iterable[Origin]) -> str:
    """Count submitted records by what is known of each, in words; "" where all were measured here.

    >>> counted_origins([OWN, Origin("p"), Origin("p", signed_by="a@b"), Origin("p", remeasured="bit-identical")])
    'measured elsewhere and submitted: 3 of 4 cells (1 re-measured here, 1 signed, 1 neither)'
    """
    number = Counter(origin.status for origin in origins)
    total = sum(number.values())
    if not (submitted := total - number[OWN_STATUS]):
        return ""
    words = {REMEASURED: "re-measured here", SIGNED: "signed", SUBMITTED: "neither"}
    parts = [f"{number[status]} {word}" for status, word in words.items() if number[status]]
    known = ", ".join(parts) if len(parts) > 1 or not number[SUBMITTED] else "none re-measured here or signed"
    return f"measured elsewhere and submitted: {submitted} of {total} cells ({known})"
