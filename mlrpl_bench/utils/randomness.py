"""This module seeds random draws by address instead of by their place in a stream.

An address says *where* a draw happens, such as ("augmentation", seed, epoch, row), so a draw depends neither on
what was drawn before, nor on the worker, the method or the group. Exact resume and paired comparisons follow.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*address: str | int) -> int:
    """A 63-bit seed for an address; different addresses give unrelated seeds.

    >>> seed_of("order", 0, 1) == seed_of("order", 0, 1) != seed_of("order", 0, 2)
    True
    """
    digest = hashlib.sha256(repr(address).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(*address: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh torch generator for an address."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*address))
