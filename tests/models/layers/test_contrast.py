import torch

from mlrpl_bench.models.layers.contrast import contrast, warm_up
from mlrpl_bench.models.losses import contrastive
from mlrpl_bench.models.method import Batch, Progress


def sample():
    generator = torch.Generator().manual_seed(0)
    features_BCD, labels_BC = torch.randn(6, 3, 4), torch.randint(-1, 2, (6, 3), generator=generator)
    return features_BCD, Batch(features_BCD, features_BCD, labels_BC, torch.arange(6), generator.manual_seed(0))


def test_rises_within_the_first_epoch_only():
    steps = [Progress(epoch, 20, step, 4) for epoch in (0, 1) for step in range(4)]
    assert [warm_up(progress) for progress in steps] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_is_the_weighted_contrastive_loss():
    features_BCD, batch = sample()
    for absent_pairs in (True, False):
        terms = contrast(features_BCD, batch, Progress(0, 20, 1, 4), weight=0.4, absent_pairs=absent_pairs)
        generator = torch.Generator().manual_seed(0)
        expected = contrastive(features_BCD, batch.labels_BC, generator, absent_pairs)
        torch.testing.assert_close(terms, {"contrastive": 0.4 * 0.25 * expected})
        batch.generator.manual_seed(0)


def test_a_weight_of_zero_leaves_the_term_out():
    features_BCD, batch = sample()
    assert contrast(features_BCD, batch, Progress(5, 20), weight=0, absent_pairs=True) == {}
