import pytest
import torch

from mlrpl_bench.models.layers.epoch_means import EpochMeans


def test_means_run_over_an_epoch_and_start_anew_at_its_first_step():
    means = EpochMeans("share", "count")
    expected = [(0.5, 4.0), (0.25, 3.0), (0.25, 2.0)]
    steps = [(0.5, 4.0), (0.0, 2.0), (0.25, 0.0)]
    for _ in range(2):
        for step, ((share, count), (mean_share, mean_count)) in enumerate(zip(steps, expected, strict=True)):
            means.update(step, share=torch.tensor(share), count=torch.tensor(count))
            scalars = {name: float(value) for name, value in means.scalars().items()}
            assert scalars == {"share": pytest.approx(mean_share), "count": pytest.approx(mean_count)}


def test_means_are_state_without_a_gradient_whatever_the_type_of_the_values():
    means = EpochMeans("score")
    means.update(0, score=torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True))
    assert not means.means_K.requires_grad and means.means_K.dtype == torch.float32
    restored = EpochMeans("score")
    restored.load_state_dict(means.state_dict())
    assert float(restored.scalars()["score"]) == 0.5
