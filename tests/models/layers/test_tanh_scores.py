import pytest
import torch

from mlrpl_bench.models.layers.attention import tanh_scores

B, C, P, M = 3, 4, 5, 6


def written_down(positions_BPM, words_CM, direction_M):
    return torch.tanh(positions_BPM[:, None] * words_CM[:, None]) @ direction_M


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((B, P, M), (C, M), (M,))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


# A pair of image and category has 30 elements, an image 120: less than a pair, a pair, some categories, some images.
@pytest.mark.parametrize("chunk", [1, 30, 100, 120, 250, 10_000, None])
def test_equals_the_product_written_down_in_value_and_gradient(chunk):
    values = inputs()
    ours, theirs = tanh_scores(*values, chunk), written_down(*values)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction_BCP = torch.randn(B, C, P, dtype=torch.float64)
    for our, their in zip(
        torch.autograd.grad((ours * direction_BCP).sum(), values),
        torch.autograd.grad((theirs * direction_BCP).sum(), values),
        strict=True,
    ):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_that_of_small_differences():
    assert torch.autograd.gradcheck(lambda *values: tanh_scores(*values, 100), inputs())


def test_gradients_in_16_bits_add_up_in_32():
    values = inputs(torch.bfloat16)
    wide = [value.detach().double().requires_grad_() for value in values]
    ours = torch.autograd.grad(tanh_scores(*values, 1).sum(), values)
    theirs = torch.autograd.grad(written_down(*wide).sum(), wide)
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == torch.bfloat16
        torch.testing.assert_close(our.double(), their, rtol=0.03, atol=0.05)


def test_the_product_is_not_kept_for_the_gradient():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        tanh_scores(*inputs())
    assert sum(kept) == B * P * M + C * M + M


def test_a_compiler_is_given_the_same_in_a_form_that_it_can_fuse(monkeypatch):
    values = inputs()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(tanh_scores(*values), written_down(*values), rtol=1e-12, atol=1e-12)
