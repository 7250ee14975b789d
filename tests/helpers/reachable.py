"""What can be reached from a thing, for tests of what code in hand could look at.

Test modules import this; it has no tests.
"""

from types import FunctionType, MethodType, ModuleType

import numpy as np
import torch


def arrays_within(thing, path="", seen=None):
    """Every array and tensor that can be reached through attributes, containers, bound methods and closures."""
    seen = {} if seen is None else seen
    if id(thing) in seen or isinstance(thing, (type, ModuleType, str, bytes, int, float)) or thing is None:
        return
    seen[id(thing)] = thing  # kept alive, so that no other thing gets its id
    if isinstance(thing, (torch.Tensor, np.ndarray)):
        yield path, np.asarray(thing.detach().cpu() if isinstance(thing, torch.Tensor) else thing)
    parts = dict(getattr(thing, "__dict__", {}))
    if isinstance(thing, dict):
        parts |= {f"[{key!r}]": value for key, value in thing.items()}
    elif isinstance(thing, (list, tuple, set, frozenset)):
        parts |= {f"[{number}]": value for number, value in enumerate(thing)}
    elif isinstance(thing, MethodType):
        parts |= {"__self__": thing.__self__, "__func__": thing.__func__}
    elif isinstance(thing, FunctionType):
        parts |= {f"<{number}>": cell.cell_contents for number, cell in enumerate(thing.__closure__ or ())}
    for name, part in parts.items():
        yield from arrays_within(part, f"{path}.{name}", seen)
