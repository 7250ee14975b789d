"""Whether a device computes rightly: the first part of `benchmarks.gpu`.

Losses and gradients of every method, of `tanh_scores` and of the head that reads some entries, in float32 without TF32,
are set beside float64 on the CPU; in bfloat16 it is seen that what must stay in 32 bits does. Dropout is off: devices
draw its masks differently, from a generator that cannot be replaced.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import head
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.attention import tanh_scores
from mlrpl_bench.models.layers.heads import GraphHead
from mlrpl_bench.models.method import Batch, Progress
from mlrpl_bench.models.registry import MethodEntry
from mlrpl_bench.tools.conformance.sample import NUM_CATEGORIES, PRESET, Sample
from mlrpl_bench.training.run import CellRun

LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Relative differences from float64: of a loss (or of 1e-3 if it is smaller), and of the norm of a gradient (to which a
thousandth of the whole gradient's norm is added, for parameters that hardly have one)."""

LATE = Progress(PRESET.epochs - 1, PRESET.epochs, 1, 4)
"""A step at which all that starts late has started."""

IN_32_BITS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "binary_cross_entropy_with_logits",
    "log_sigmoid_forward",
    "log",
    "log1p",
    "exp",
)
"""Operations that must not see bfloat16 in a loss; of `IN_16_BITS` one must, or autocast is off."""
IN_16_BITS = ("mm", "addmm", "bmm", "convolution")


class WrongError(Exception):
    """A device does not compute what it should."""


class SameDraws(TorchFunctionMode):
    """What is drawn from any generator comes from one on the CPU, in float32: devices draw differently.

    Args:
        wide: what is widened to 32 bits is widened to 64 instead: with a model of float64 all is float64 then.
    """

    def __init__(self, wide: bool) -> None:
        super().__init__()
        self.wide, self.generator = wide, torch.Generator().manual_seed(0)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            even = {"dtype": torch.float32} if func is torch.rand else {}
            drawn = func(*args, **{**kwargs, **even, "generator": self.generator, "device": "cpu"})
            dtype = torch.get_default_dtype() if even else drawn.dtype
            return drawn.to(kwargs.get("device", "cpu"), dtype)
        if self.wide and func is Tensor.float:
            func = Tensor.double
        return func(*args, **kwargs)


class DtypesSeen(TorchDispatchMode):
    """Which operations saw bfloat16, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.in_16_bits: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(isinstance(value, Tensor) and value.dtype == torch.bfloat16 for value in args):
            self.in_16_bits.add(func.overloadpacket.__name__.strip("_"))  # in place or not
        return func(*args, **(kwargs or {}))


def checks(methods: Sequence[MethodEntry], device: str) -> dict[str, Callable[[], dict[str, float]]]:
    """By name what gives the largest differences as shares of the tolerance, or raises what is wrong."""
    found: dict[str, Callable[[], dict[str, float]]] = {
        "tanh_scores": partial(product_differences, torch.device(device)),
        "head that reads some entries": partial(head_differences, torch.device(device)),
    }
    for entry in methods:
        found[entry.name] = partial(method_differences, entry, device)
        found[f"{entry.name}, bfloat16"] = partial(stays_in_32_bits, entry, device)
    return found


def product_differences(device: torch.device) -> dict[str, float]:
    """Of `tanh_scores`, value and gradients, over the tolerances; in portions, so that seams are seen."""
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=random) for shape in ((3, 49, 64), (11, 64), (64,))]

    def values(inputs: list[Tensor], form: Callable[..., Tensor]) -> dict[str, Tensor]:
        leaves = [value.detach().requires_grad_() for value in inputs]
        scores_BCP = form(*leaves)
        weights_BCP = torch.linspace(-1, 1, scores_BCP.numel()).view(scores_BCP.shape).to(scores_BCP)
        gradients = torch.autograd.grad((scores_BCP * weights_BCP).sum(), leaves)
        return {"value": scores_BCP.detach()} | {f"gradient {number}": g for number, g in enumerate(gradients)}

    found = values([value.to(device) for value in inputs], partial(tanh_scores, chunk=20_000))
    return shares(values([value.double() for value in inputs], head.plain), found)


def head_differences(device: torch.device) -> dict[str, float]:
    """Of the head on some entries, logits there and gradients, beside the head on all entries in float64."""
    torch.manual_seed(0)
    graph_head = GraphHead(32, 0.1 * torch.rand(7, 7).fill_diagonal_(10))
    features_BCD, read_BC = torch.randn(3, 7, 32), torch.rand(3, 7) < 0.5

    def values(kind: torch.dtype, where: torch.device, pruned: bool) -> dict[str, Tensor]:
        graph_head.to(where, kind).zero_grad()
        with SameDraws(wide=kind == torch.float64):
            logits_BC = graph_head(features_BCD.to(where, kind), read_BC=read_BC.to(where) if pruned else None)
        wanted_S = logits_BC[read_BC.to(where)]
        wanted_S.square().sum().backward()
        of_parameters = {name: parameter.grad for name, parameter in graph_head.named_parameters()}
        return {"value": wanted_S.detach()} | {name: g.clone() for name, g in of_parameters.items() if g is not None}

    with no_tf32():
        found = values(torch.float32, device, pruned=True)
    return shares(values(torch.float64, torch.device("cpu"), pruned=False), found)


def shares(expected: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, float]:
    """Relative differences in norm, over the tolerance of gradients."""
    return {name: apart(value, found[name], 0.0) / GRADIENT_TOLERANCE for name, value in expected.items()}


def method_differences(entry: MethodEntry, device: str) -> dict[str, float]:
    """Of a method's losses and gradients in one late step; the largest of each, over its tolerance."""
    with tempfile.TemporaryDirectory() as folder:
        state = late_state(entry, Path(folder))
        losses, gradients = outcome(Sample(entry, Path(folder), device), state, wide=False)
        exact_losses, exact_gradients = outcome(Sample(entry, Path(folder)), state, wide=True)
    if set(losses) != set(exact_losses) or set(gradients) != set(exact_gradients):
        raise WrongError("other losses, or other parameters have a gradient")
    floor = 1e-3 * float(torch.stack([gradient.norm() for gradient in exact_gradients.values()]).norm())
    of_losses = [apart(value, losses[name], 1e-3) for name, value in exact_losses.items()]
    of_gradients = [apart(value, gradients[name], floor) for name, value in exact_gradients.items()]
    return {"loss": max(of_losses) / LOSS_TOLERANCE, "gradient": max(of_gradients) / GRADIENT_TOLERANCE}


def apart(expected: Tensor, found: Tensor, floor: float) -> float:
    """The norm of the difference beside the norm, or the floor: for a loss instead of it, for gradients added."""
    return float((found.cpu().double() - expected).norm() / (expected.norm() + floor))


def late_state(entry: MethodEntry, folder: Path) -> dict[str, Any]:
    """Weights, and what a pass over the training set leaves: made once, as clusters turn on the last digit."""
    run = Sample(entry, folder).run()
    run.look_at_training_set(LATE)
    return run.method.state_dict()


def outcome(sample: Sample, state: dict[str, Any], wide: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of one late step, in float32 or float64."""
    run, batch = late_run(sample, state)
    with widened() if wide else no_tf32():
        if wide:
            frozen = run.workbench.backbone.frozen.double()
            run.method.double()
            assert batch.strong_images_B3HW is not None
            views = [images_B3HW.double() for images_B3HW in (batch.images_B3HW, batch.strong_images_B3HW)]
            of_view = {"images_B3HW": views[0], "frozen_BDHW": frozen(views[0])}
            of_strong = {"strong_images_B3HW": views[1], "strong_BDHW": frozen(views[1])}
            batch = dataclasses.replace(batch, **of_view, **of_strong)
        with SameDraws(wide):
            losses = run.method.losses(batch, LATE)
            torch.stack(list(losses.values())).sum().backward()
    gradients = {name: value.grad for name, value in run.method.named_parameters() if value.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def late_run(sample: Sample, state: dict[str, Any]) -> tuple[CellRun, Batch]:
    """A method that is about to make a late step, and its batch; two in seven labels are unknown."""
    run = sample.run()
    run.method.load_state_dict(state)
    without_dropout(run.method)
    run.start_epoch(LATE)
    place_BC = torch.arange(PRESET.batch * NUM_CATEGORIES).view(PRESET.batch, NUM_CATEGORIES)
    labels_BC = torch.tensor([PRESENT, UNKNOWN, ABSENT, ABSENT, PRESENT, UNKNOWN, PRESENT])[place_BC % 7]
    with no_tf32():
        return run, sample.batch(labels_BC.to(torch.int8))


def without_dropout(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0


@contextmanager
def widened() -> Iterator[None]:
    """New tensors are float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def no_tf32() -> Iterator[None]:
    """On CUDA matrix products and convolutions in 32 bits keep 32 bits."""
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    matmul.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, convolutions.allow_tf32 = before


def stays_in_32_bits(entry: MethodEntry, device: str) -> dict[str, float]:
    """Nothing, or what is wrong with a method's losses under autocast to bfloat16."""
    with tempfile.TemporaryDirectory() as folder:
        state = late_state(entry, Path(folder))
        sample = Sample(entry, Path(folder), device, "bf16-mixed")
        run, batch = late_run(sample, state)
        with sample.fabric.autocast(), SameDraws(wide=False), DtypesSeen() as seen:
            losses = run.method.losses(batch, LATE)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    narrow = [name for name, loss in losses.items() if loss.dtype != torch.float32]
    narrow += sorted(seen.in_16_bits & set(IN_32_BITS))
    if narrow:
        raise WrongError(f"in 16 bits: {', '.join(narrow)}")
    if not seen.in_16_bits & set(IN_16_BITS):
        raise WrongError("nothing is computed in 16 bits")
    infinite = [name for name, value in run.method.named_parameters() if not is_finite(value.grad)]
    if infinite:
        raise WrongError(f"no finite gradient: {', '.join(infinite)}")
    return {}


def is_finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(gradient.isfinite().all())
