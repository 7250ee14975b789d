"""This module says what to do first, for who calls the command line without a command."""

from __future__ import annotations

import shutil

STEPS = (
    ("leaderboard", "train a first table; minutes, needs no data"),
    ("list methods -v", "what there is to train, and from which paper"),
    ("new my_idea", "write a method of your own, to be edited"),
)
"""Commands, and what each does; on a terminal of 80 characters a command and its words are one line."""


def first_steps(called: str) -> str:
    """Write three commands to begin with; words that do not fit beside a command stand below it.

    Args:
        called: the command line as the user types it, such as ``mlrpl-bench``.
    """
    commands = [f"  {called} {command}" for command, _ in STEPS]
    widest = max(map(len, commands))
    fits = widest + 3 + max(len(words) for _, words in STEPS) <= shutil.get_terminal_size().columns
    lines = [
        f"{command:<{widest}}   {words}" if fits else f"{command}\n      {words}"
        for command, (_, words) in zip(commands, STEPS, strict=True)
    ]
    return "\n".join(["Begin with one of these:", "", *lines, "", f"All commands: {called} --help"])
