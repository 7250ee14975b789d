"""This module lets standard output and standard error print any text, whatever characters the terminal knows."""

from __future__ import annotations

import codecs
import sys

HANDLER = "mlrpl_bench_similar"

SIMILAR = {"±": "~", "≈": "=", "≥": ">", "≤": "<", "–": "-", "—": "-", "…": ".", "×": "x", "²": "2", "┃": "|", "│": "|"}
"""Each character has the width of the one that it stands for, so that tables stay straight; "?" already marks an
entry."""


def _similar(error: UnicodeError) -> tuple[str, int]:
    """Return similar characters for those that cannot be written, and the place after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SIMILAR.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def print_anything() -> None:
    """Let both streams print characters that their encoding lacks (``PYTHONIOENCODING=ascii``) as similar ones.

    A name with bytes that are no text, such as a file's, is printed with question marks.
    """
    codecs.register_error(HANDLER, _similar)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a test or a notebook has put there
            stream.reconfigure(errors=HANDLER)
