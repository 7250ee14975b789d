"""This module seeds random draws by address instead of by their place in a stream.

An address says *where* a draw happens, such as ("augmentation", seed, epoch, row), so a draw depends neither on
what was drawn before, nor on the worker, the method or the group. Exact resume and paired comparisons follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*address: str | int) -> int:
    """Return a 63-bit seed for an address; different addresses give unrelated seeds.

    >>> seed_of("order", 0, 1) == seed_of("order", 0, 1) != seed_of("order", 0, 2)
    True
    """
    digest = hashlib.sha256(repr(address).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(*address: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a fresh torch generator for an address."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*address))


_IS_LENT: ContextVar[bool] = ContextVar("_IS_LENT", default=False)


@contextmanager
def torch_draws_from(generator: torch.Generator) -> Iterator[None]:
    """Let torch's global CPU generator draw from another generator for a while.

    This is for libraries that take no generator, such as torchvision's RandAugment. The generator gives a seed;
    afterwards the global generator is as it was before.
    """
    import torch

    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    lent = _IS_LENT.set(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        _IS_LENT.reset(lent)


def torch_draws_are_lent() -> bool:
    """Tell whether torch's global generator draws from another one now, see `torch_draws_from`."""
    return _IS_LENT.get()
