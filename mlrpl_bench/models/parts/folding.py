"""This module folds the batch norms of a network that is not trained into the convolutions before them.

In eval mode a batch norm multiplies and shifts each channel by fixed numbers, which the convolution can do itself:

    scale (W x + b - mean) / sqrt(variance + eps) + shift  =  W' x + b'

The results agree but for rounding, and a step over the whole map is saved.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mlrpl_bench.utils import shortages


def fold(network: nn.Module) -> int:
    """Fold in place every batch norm that reads a convolution which nothing else reads.

    Args:
        network: in eval mode. Where a sequence cannot be traced, its members are looked at one by one.

    Returns:
        How many were folded; `batch_norms` tells how many were left.
    """
    assert not any(module.training for module in network.modules()), "only a network in eval mode can be folded"
    if not batch_norms(network):
        return 0
    graph = _traced(network)
    if graph is None:
        return sum(fold(child) for child in network) if isinstance(network, nn.Sequential) else 0
    return _fold_along(graph, network)


def batch_norms(network: nn.Module) -> int:
    """Return the number of batch norms in a network."""
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _fold_along(graph: fx.Graph, network: nn.Module) -> int:
    modules = dict(network.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    folded = 0
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(norm := modules[str(node.target)], nn.BatchNorm2d):
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        convolution = modules[str(source.target)]
        if isinstance(convolution, nn.Conv2d) and calls[str(source.target)] == calls[str(node.target)] == 1:
            _replace(network, str(source.target), fuse_conv_bn_eval(convolution, norm))
            _replace(network, str(node.target), _without_norm(norm))
            folded += 1
    return folded


def _without_norm(norm: nn.Module) -> nn.Module:
    """Return what a batch norm does beside the norm: timm's may have an activation."""
    rest: list[Any] = [getattr(norm, name, None) for name in ("drop", "act")]
    rest = [module for module in rest if isinstance(module, nn.Module) and not isinstance(module, nn.Identity)]
    return nn.Sequential(*rest).eval() if rest else nn.Identity().eval()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


class _Tracer(fx.Tracer):
    """Follows which module reads which; convolutions, norms and what timm marks as opaque are single steps."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        from timm.layers import is_notrace_module

        return (
            isinstance(m, (nn.Conv2d, nn.BatchNorm2d))
            or is_notrace_module(type(m))
            or super().is_leaf_module(m, module_qualified_name)
        )


def _traced(network: nn.Module) -> fx.Graph | None:
    """Return which module reads which, or None where that depends on the data."""
    from timm.layers import get_notrace_functions

    try:
        with torch.no_grad():
            return _Tracer(autowrap_functions=tuple(get_notrace_functions())).trace(network)
    except Exception as error:  # tracing fails in many ways, and what is not folded is computed as it was
        if (shortage := shortages.shortage(error)) is not None:
            raise shortage from error
        return None
