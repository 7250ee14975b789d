"""A state that a cell can have is let through; what no cell can have is named."""

import pytest

from mlrpl_bench.training.parts.position import refuse_impossible

STATE = {"epoch": 1, "step": 2, "terms": [{}] * 2, "history": [{}], "steps": [{}] * 3}
STATE |= {"training_seconds": 1.0, "epoch_seconds": 0, "threads": [1, 2]}


def test_a_state_between_two_steps_is_possible():
    refuse_impossible(STATE, epochs=2, steps_per_epoch=3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epoch": 2}, "epoch 2, step 2 of 2 epochs with 3 steps"),
        ({"step": 4}, "epoch 1, step 4 of 2 epochs with 3 steps"),
        ({"step": -1}, "epoch 1, step -1 of"),
        ({"terms": []}, "history and position disagree"),
        ({"history": []}, "history and position disagree"),
        ({"steps": []}, "history and position disagree"),
        ({"seconds": -1.0}, "a time is none"),
        ({"training_seconds": float("nan")}, "a time is none"),
        ({"epoch_seconds": float("inf")}, "a time is none"),
        ({"threads": [0]}, "a number of threads is none"),
        ({"threads": [True]}, "a number of threads is none"),
    ],
)
def test_an_impossible_state_is_refused_with_the_reason(change, reason):
    with pytest.raises(ValueError, match=reason):
        refuse_impossible(STATE | change, epochs=2, steps_per_epoch=3)
