"""Loss terms are fetched as they are, and what is not finite is named."""

import pytest
import torch

from mlrpl_bench.training.parts.losses import NonFiniteLoss, fetched


def test_terms_keep_their_values_and_steps_their_terms():
    steps = [{"a": torch.tensor(0.5)}, {"a": torch.tensor(0.25), "b": torch.tensor(2.0, dtype=torch.bfloat16)}]
    assert fetched(steps, epoch=0) == [{"a": 0.5}, {"a": 0.25, "b": 2.0}]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_value_that_is_not_finite_is_named_with_its_place(value):
    steps = [{"a": torch.tensor(0.5)}, {"a": torch.tensor(float(value))}]
    with pytest.raises(NonFiniteLoss, match=f"loss term 'a' is {value} at epoch 3, step 1; nothing of this cell"):
        fetched(steps, epoch=3)
