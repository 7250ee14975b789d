"""What holds for every registered method, whatever its idea: the checks that a user's own method gets too, and more."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from mlrpl_bench.data.protocol import UNKNOWN
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.tools.conformance import checks
from tests.helpers.loss_samples import LATE, batch_of, generator, method, random_labels
from tests.helpers.prototype_samples import after_a_pass

METHODS = load_methods()
VARIANTS = {variant.name for variant in METHODS.variants}
"""These are other methods' classes under another recipe: of their checks the everyday suite makes one row's."""
NAMES = [name for name in METHODS if name not in VARIANTS]
ONE_VARIANT = "csl_ema"  # it also looks at the training set


def wants_a_pass(one):
    return any(one.passes(Progress(epoch, 20)) for epoch in range(20))


def test_a_variant_has_its_methods_losses_and_hooks():
    for variant in METHODS.variants:
        (base,) = METHODS[variant.name].cls.__bases__
        own = {name for name in vars(METHODS[variant.name].cls) if not name.startswith("__")}
        assert base is METHODS[variant.method].cls and own == {"recipe"}


@pytest.mark.parametrize(
    "name",
    [*NAMES, ONE_VARIANT, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(VARIANTS - {ONE_VARIANT}))],
)
def test_it_passes_every_check(name, monkeypatch):
    """The check of threads with four alone: two, which find less, are tried in the slow test below."""
    monkeypatch.setattr(checks, "THREADS", (4,))
    assert {check: problem for check, problem in checks.run(METHODS[name]) if problem is not None} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, ONE_VARIANT])
def test_two_threads_give_the_same_bits_too(name, monkeypatch):
    monkeypatch.setattr(checks, "CHECKS", (checks.gives_the_same_bits_on_several_threads,))
    assert [problem for _, problem in checks.run(METHODS[name])] == [None]


@pytest.mark.parametrize("name", NAMES)
def test_hard_batches_give_finite_losses_and_gradients(name):
    """In bfloat16 too, whatever is known of however many images, with a category that is never known to be present.

    Before a pass over the training set and after one, if the method wants any.
    """
    labels_NC = random_labels()
    labels_NC[:, 1] = UNKNOWN
    moments = ("before", "after") if wants_a_pass(method(name, labels_NC)) else ("before",)
    nothing, everything = torch.full_like(labels_NC, UNKNOWN), random_labels(unknown=0)
    batches = [batch_of(source_NC[:rows]) for source_NC in (labels_NC, nothing, everything) for rows in (1, 3, 6)]
    for batch, bfloat16, moment in itertools.product(batches, (False, True), moments):
        one = method(name, labels_NC)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            if moment == "after":
                after_a_pass(one, labels_NC)
            assert_survives(one, replace(batch, generator=generator()))


def assert_survives(one, batch):
    """Losses are finite and float32, and gradients are finite."""
    if len(batch.labels_BC) == 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in one.modules()):
        one.eval()  # one image has no batch statistics
    losses = one.losses(batch, LATE)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    with torch.autocast("cpu", enabled=False):
        sum(losses.values()).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in one.parameters())
