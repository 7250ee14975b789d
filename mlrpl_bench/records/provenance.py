"""This module records where a number comes from: code, versions, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlrpl_bench.utils.files import PACKAGE

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn", "pillow")


def provenance(device: Any) -> dict[str, Any]:
    """Collect the provenance of a record as plain data.

    It holds commit, versions, node, device, threads, and whether algorithms had to be deterministic.


    Args:
        device: the `torch.device` that trained.
    """
    import torch

    import mlrpl_bench

    return {
        "mlrpl_bench": mlrpl_bench.__version__,
        "git": git_state(PACKAGE),
        "versions": versions(),
        "node": platform.node(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def device_name(device: Any) -> str:
    """Name a `torch.device` by its kind, such as ``NVIDIA H100`` or ``x86_64 CPU``."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on, by name."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and whether tracked files were changed; None outside a checkout (an installed wheel)."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed": bool(git("status", "--porcelain", "-uno", "--", ":/*.py")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
