import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.graphs import cooccurrence


def slow(labels_NC, estimator):
    num_categories = labels_NC.shape[1]
    graph_CC = torch.eye(num_categories)
    for i in range(num_categories):
        rows = [row for row in labels_NC.tolist() if row[i] == PRESENT]
        for j in range(num_categories):
            trials = [row for row in rows if estimator == "reference" or row[j] != UNKNOWN]
            if i != j and trials:
                graph_CC[i, j] = sum(row[j] == PRESENT for row in trials) / len(trials)
    return graph_CC


@settings(deadline=None)  # the first call pays for start-up
@given(
    seed=st.integers(0, 2**31 - 1),
    rows=st.integers(1, 12),
    columns=st.integers(1, 5),
    estimator=st.sampled_from(["reference", "unbiased"]),
)
def test_equals_counting_by_hand(seed, rows, columns, estimator):
    labels_NC = torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, (rows, columns))).to(torch.int8)
    graph_CC = cooccurrence(labels_NC, estimator)
    assert graph_CC.dtype == torch.float32
    torch.testing.assert_close(graph_CC, slow(labels_NC, estimator))


@pytest.mark.parametrize("estimator", ["reference", "unbiased"])
def test_a_category_without_a_known_positive_gets_the_row_of_the_identity(estimator):
    labels_NC = torch.tensor([[PRESENT, UNKNOWN, ABSENT], [PRESENT, PRESENT, UNKNOWN]])
    assert cooccurrence(labels_NC, estimator)[2].tolist() == [0, 0, 1]


def test_both_estimators_agree_when_everything_is_known():
    labels_NC = torch.where(torch.rand(50, 4) < 0.5, PRESENT, ABSENT)
    torch.testing.assert_close(cooccurrence(labels_NC), cooccurrence(labels_NC, "unbiased"))


def test_only_the_unbiased_estimator_keeps_its_level_when_labels_are_hidden():
    generator = torch.Generator().manual_seed(0)
    first_N = torch.rand(20_000, generator=generator) < 0.5
    second_N = first_N & (torch.rand(20_000, generator=generator) < 0.6)  # P(second | first) = 0.6
    labels_NC = torch.where(torch.stack([first_N, second_N], dim=1), PRESENT, ABSENT)
    labels_NC = torch.where(torch.rand(labels_NC.shape, generator=generator) < 0.2, labels_NC, UNKNOWN)
    assert abs(cooccurrence(labels_NC, "unbiased")[0, 1] - 0.6) < 0.05
    assert abs(cooccurrence(labels_NC, "reference")[0, 1] - 0.6 * 0.2) < 0.02


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="reference, unbiased"):
        cooccurrence(torch.zeros(2, 2), "biased")
