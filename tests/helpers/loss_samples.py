"""What the tests of methods that differ only in their losses share: small methods, batches, given logits.

Test modules import this; it has no tests.
"""

import torch
from torch import nn

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.backbones import Backbone
from mlrpl_bench.models.method import Batch, Progress, Task
from mlrpl_bench.models.registry import load_methods

N, C = 12, 4
LATE = Progress(epoch=15, epochs=20, step=3, steps_per_epoch=10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(rows=N, seed=0, unknown=0.5):
    draws = torch.rand(rows, C, generator=generator(seed))
    return torch.where(draws < unknown, UNKNOWN, torch.where(draws < (1 + unknown) / 2, PRESENT, ABSENT)).to(torch.int8)


def random_logits(rows=N, seed=0, spread=3.0):
    return (spread * torch.randn(rows, C, generator=generator(seed))).requires_grad_()


def method(name, labels_NC=None, known_ratio=0.5, **overrides):
    torch.manual_seed(0)
    backbone = Backbone(nn.Identity(), nn.Conv2d(3, 6, 1), channels=6, feature_width=5, attention_width=4, pool=True)
    entry = load_methods()[name]
    labels_NC = random_labels() if labels_NC is None else labels_NC
    num_categories = labels_NC.shape[1]
    words_CE = torch.randn(num_categories, 7, generator=generator())
    task = Task(tuple(map(str, range(num_categories))), labels_NC, known_ratio, words_CE)
    return entry.cls(backbone, task, entry.hyperparameters(overrides))


def batch_of(labels_BC, seed=0):
    """The first rows of a training set; what is frozen is nothing, and the strong view is the mirror image."""
    maps_BDHW = torch.randn(len(labels_BC), 3, 6, 6, generator=generator(seed))
    plain = (maps_BDHW, maps_BDHW, labels_BC, torch.arange(len(labels_BC)), generator(seed))
    return Batch(*plain, maps_BDHW.flip(3), maps_BDHW.flip(3))


def losses_of(logits_BC, labels_BC, one, progress=LATE):
    """The loss terms of a method whose network gives these logits."""
    one.forward = lambda frozen_BDHW: logits_BC
    return one.losses(batch_of(labels_BC), progress)


def assert_same(ours, theirs, *inputs):
    """Two dictionaries of terms are equal, and so are the gradients of their sums; twins may count in float64."""
    assert set(ours) == set(theirs)
    for name, loss in ours.items():
        torch.testing.assert_close(loss, theirs[name].float(), rtol=1e-5, atol=1e-5)
    # A twin without any entry has no gradient at all: nothing is added to it.
    totals = [sum(terms.values()) + sum(0 * value.sum() for value in inputs) for terms in (ours, theirs)]
    gradients = [torch.autograd.grad(total, inputs) for total in totals]
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-5)
