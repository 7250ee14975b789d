"""What the tests of methods with prototypes share, beside `loss_samples`. It has no tests."""

import torch

from mlrpl_bench.models.method import Batch
from tests.helpers.loss_samples import batch_of, generator


def after_a_pass(one, labels_NC, seed=0):
    """The method after one pass over its training set, in batches of five."""
    one.eval()
    whole = batch_of(labels_NC)
    with torch.no_grad():
        for start in range(0, len(labels_NC), 5):
            rows = slice(start, start + 5)
            maps_BDHW = whole.frozen_BDHW[rows]
            one.observe(Batch(maps_BDHW, maps_BDHW, labels_NC[rows], whole.index_B[rows], generator()))
    one.end_pass(generator(seed))
    return one.train()


def history_of(name, epochs=4):
    """What a short training run of a method writes down, one row an epoch."""
    import dataclasses
    import tempfile
    from pathlib import Path
    from unittest import mock

    from mlrpl_bench.models.registry import load_methods
    from mlrpl_bench.tools.conformance import sample

    preset = dataclasses.replace(sample.PRESET, epochs=epochs)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(sample, "PRESET", preset):
        return sample.Sample(load_methods()[name], Path(folder)).finished.history
