"""This module writes and reads a finished cell's weights: its method's tensors, and plain data beside them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlrpl_bench.records.record import DamagedRecord
from mlrpl_bench.utils import arrays

PLAIN = ":plain"
"""The name of a value that is no tensor ends in this; no attribute of a module can be called so."""


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """Return a method's state as the bytes of a ``.safetensors`` file.

    Args:
        state: as ``state_dict()`` gives it. What ``get_extra_state()`` returns may be plain data (numbers, text,
            lists, dicts, tensors in them): `torch.save` makes bytes of it, and these are stored as a tensor.
    """
    from safetensors.torch import save

    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    plain = {f"{name}{PLAIN}": _as_tensor(value) for name, value in state.items() if name not in tensors}
    return save({**tensors, **plain})


def read(path: Path) -> dict[str, Any]:
    """Read the state that `to_bytes` was given, on the CPU; nothing but plain data and tensors is unpickled.

    Raises:
        DamagedRecord: the file holds no such state.
        OSError: the system could not read the file.
        MemoryError: the state does not fit in memory.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
        return {
            name.removesuffix(PLAIN): _from_tensor(value) if name.endswith(PLAIN) else value
            for name, value in stored.items()
        }
    except (MemoryError, OSError):  # which says nothing about the file
        raise
    except SafetensorError as error:
        raise DamagedRecord(f"{path} is damaged ({error}); move {path.parent} away, then run again") from error
    except Exception as error:  # zipfile, pickle and torch raise many kinds on what is no such state
        reason = f"{type(error).__name__} in what lies beside the tensors"
        raise DamagedRecord(f"{path} is damaged ({reason}); move {path.parent} away, then run again") from error


def _as_tensor(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _from_tensor(stored: Tensor) -> Any:
    content = stored.numpy().tobytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays.refuse_bomb(archive, len(content))
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
