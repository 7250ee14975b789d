"""Numbers recorded from code that authors published: how they are read and compared.

Test modules import this; it has no tests.
"""

import numpy as np
import torch

from tests.helpers.places import GOLDEN


def golden(name: str, part: str = "") -> dict[str, torch.Tensor]:
    """The arrays of a file by name; only those of a part (``saturated/``), without its name, if one is given."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        found = {key: torch.from_numpy(file[key]) for key in file.files if key.startswith(part)}
    assert found, f"no {part} in {name}"
    return {key.removeprefix(part): value for key, value in found.items()}


def assert_recorded(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    """To a share of the tensor's largest value: what cancels to almost nothing need not agree in every digit."""
    theirs = theirs.to(ours.dtype)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))
