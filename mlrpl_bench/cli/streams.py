"""This module decides what becomes of text on the two streams: any character can be printed, and any line be JSON."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

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


class JsonLines(io.TextIOBase):
    """This stream stands in place of standard error; each line that is printed to it becomes a JSON object.

    Args:
        stream: where the objects are written.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begun = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write the lines that end in a text, each as an object with the event ``text``; an empty one is left out."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                write_json("text", text=line)
        return len(text)

    def end(self) -> None:
        """Write the line that was begun and has no end."""
        if self._begun:
            self.write("\n")

    def flush(self) -> None:
        """Hand on what is written."""
        self.stream.flush()

    def fileno(self) -> int:
        """Return the number of the file beneath."""
        return self.stream.fileno()


@contextlib.contextmanager
def json_lines(wanted: bool) -> Iterator[None]:
    """Let every line on standard error be a JSON object in here, a traceback too, if that is wanted.

    Raises:
        SystemExit: with 1 in place of an exception that nobody expected, which is an ``error`` with its traceback.
    """
    if not wanted:
        yield
        return
    before = sys.stderr
    lines = JsonLines(before)
    sys.stderr = lines
    try:
        yield
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        write_json("error", text=words, exit_code=1, traceback=traceback.format_exc())
        raise SystemExit(1) from error
    finally:
        lines.end()
        sys.stderr = before


def say(event: str, line: str, **facts: Any) -> None:
    """Print a line for a person on standard error; where its lines are JSON, an object with the line's ``text``.

    Args:
        event: names the kind of line; a line may begin with it and a colon, which are left out of the ``text``.
        facts: further entries of the object.
    """
    if isinstance(sys.stderr, JsonLines):
        write_json(event, text=line.removeprefix(f"{event}: "), **facts)
    else:
        print(line, file=sys.stderr)


def write_json(event: str, **facts: Any) -> None:
    """Write one JSON object as a line on standard error, with the time in seconds since 1970 (UTC).

    Numbers that are none, such as a loss that is not a number, are null.
    """
    line = {"event": event, "time": round(time.time(), 3), **{name: _plain(fact) for name, fact in facts.items()}}
    stream = sys.stderr.stream if isinstance(sys.stderr, JsonLines) else sys.stderr
    print(json.dumps(line, allow_nan=False), file=stream, flush=True)


def _plain(fact: Any) -> Any:
    if isinstance(fact, float):
        return round(fact, 6) if math.isfinite(fact) else None
    return [_plain(part) for part in fact] if isinstance(fact, tuple) else fact
