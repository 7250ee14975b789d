"""This module checks who signed a record, with OpenSSH's own program and keys that the user trusts.

A signature lies beside a record as ``record.json.sig``. Whoever measured it makes one with

    ssh-keygen -Y sign -f ~/.ssh/id_ed25519 -n mlrpl-bench.METHOD record.json

The namespace after ``-n`` names the method, so that a line in the file of trusted keys can let a key speak for one
method alone: ``jane@example.org namespaces="mlrpl-bench.sarb" ssh-ed25519 AAAA...`` (ALLOWED SIGNERS in the manual of
ssh-keygen). Keys are never fetched.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlrpl_bench.records.record import RECORD, Record
from mlrpl_bench.utils.errors import UserError, one_line

SIGNATURE = f"{RECORD}.sig"
PROGRAM = "ssh-keygen"
SECONDS = 30.0
"""A program that takes longer hangs: it checks a signature in milliseconds."""


def namespace(method: str) -> str:
    """Return what the signature of a method's record is for."""
    return f"mlrpl-bench.{method}"


KEY_TYPES = (b"ssh-", b"ecdsa-", b"sk-")
"""The types of keys that OpenSSH knows begin like this."""


def check_trusted_keys(path: Path) -> None:
    """Refuse a file of trusted keys that is not there or holds no key, before anything else is done.

    Raises:
        UserError: it cannot be read, or no line of it names a key.
    """
    advice = "give a file as ssh-keygen reads it: NAME ssh-ed25519 AAAA... on each line"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"--trusted-keys {path} cannot be read ({error.strerror}); {advice}") from error
    if not any(word.startswith(KEY_TYPES) for line in lines if line[:1] != b"#" for word in line.split()[1:]):
        raise UserError(f"--trusted-keys {path} holds no key; {advice}")


def signer(record: Record, trusted_keys: Path) -> str:
    """Return who signed a record, as the user's file of trusted keys calls them.

    Args:
        trusted_keys: a file of allowed signers, see `ssh-keygen`.

    Returns:
        "" where there is no signature, or one by a key that is not trusted for records of this method.

    Raises:
        UserError: the signature is not one of this record, or there is no `ssh-keygen`.
    """
    signature, content = record.folder / SIGNATURE, (record.folder / RECORD).read_bytes()
    if not signature.is_file():
        return ""
    of = ("-n", namespace(record.cell.method), "-s", str(signature))
    checked = _ssh_keygen(("check-novalidate", *of), content)
    if checked.returncode:
        raise UserError(
            f"the signature of {record.cell.title} ({record.cell.key[:8]}) is not one of its record under the "
            f"namespace {namespace(record.cell.method)} ({one_line(checked.stderr.decode(errors='replace'))})"
        )
    found = _ssh_keygen(("find-principals", "-s", str(signature), "-f", str(trusted_keys)))
    for name in found.stdout.decode(errors="replace").splitlines():
        if not _ssh_keygen(("verify", "-f", str(trusted_keys), "-I", name, *of), content).returncode:
            return "".join(letter for letter in name if letter.isprintable())
    return ""


def _ssh_keygen(arguments: Sequence[str], content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run([PROGRAM, "-Y", *arguments], input=content, capture_output=True, timeout=SECONDS)
    except FileNotFoundError:
        advice = "install OpenSSH, or leave --trusted-keys out"
        raise UserError(f"signatures are checked by {PROGRAM}, which is not here; {advice}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{PROGRAM} did not answer within {SECONDS:g} s; try it by hand") from None
