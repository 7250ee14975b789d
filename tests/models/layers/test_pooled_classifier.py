import torch

from mlrpl_bench.models.layers.heads import PooledClassifier


def test_is_a_linear_layer_on_the_mean_position():
    torch.manual_seed(0)
    classifier, maps_BDHW = PooledClassifier(5, 3), torch.randn(2, 5, 4, 3)
    logits_BC = classifier(maps_BDHW)
    assert logits_BC.shape == (2, 3)
    for n in range(2):
        mean_D = sum(maps_BDHW[n, :, h, w] for h in range(4) for w in range(3)) / 12
        for c in range(3):
            expected = classifier.weight[c] @ mean_D + classifier.bias[c]
            torch.testing.assert_close(logits_BC[n, c], expected, rtol=1e-5, atol=1e-6)
