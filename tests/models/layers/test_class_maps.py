import torch

from mlrpl_bench.models.layers.heads import ClassMaps, PooledClassifier


def test_each_position_is_classified_by_itself():
    torch.manual_seed(0)
    class_maps, maps_BDHW = ClassMaps(5, 3), torch.randn(2, 5, 4, 3)
    maps_BCHW = class_maps(maps_BDHW)
    assert maps_BCHW.shape == (2, 3, 4, 3)
    for n in range(2):
        for h in range(4):
            for w in range(3):
                expected_C = class_maps.weight.flatten(1) @ maps_BDHW[n, :, h, w] + class_maps.bias
                torch.testing.assert_close(maps_BCHW[n, :, h, w], expected_C, rtol=1e-5, atol=1e-6)


def test_their_mean_is_the_pooled_classifier_in_value_and_gradient():
    torch.manual_seed(0)
    class_maps, pooled = ClassMaps(5, 3), PooledClassifier(5, 3)
    pooled.weight.data, pooled.bias.data = class_maps.weight.data.flatten(1), class_maps.bias.data
    maps_BDHW = torch.randn(2, 5, 4, 3, requires_grad=True)
    logits = [class_maps(maps_BDHW).mean(dim=(2, 3)), pooled(maps_BDHW)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(x_BC.square().sum(), maps_BDHW)[0] for x_BC in logits))


def test_maps_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert ClassMaps(5, 3)(torch.randn(2, 5, 4, 3)).dtype == torch.float32
