"""This module prints the worker's command line, for any scheduler that can start a command."""

from __future__ import annotations

from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import command_text


def start(launch: Launch) -> None:
    """Print the command alone on standard output; start it as often as there are GPUs, wherever the folder is seen."""
    print(command_text(launch.path))
