import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.models.layers.prototypes import KnownPositives, Prototypes, cluster, mean_cosine

N, C, D, K = 9, 4, 5, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_labels(seed=0):
    return torch.randint(-1, 2, (N, C), generator=generator(seed), dtype=torch.int8)


def random_features(seed=0):
    return torch.randn(N, C, D, generator=generator(seed))


def after_a_pass(prototypes, features_NCD, labels_NC, batch=4):
    for start in range(0, len(labels_NC), batch):
        rows = slice(start, start + batch)
        prototypes.observe(features_NCD[rows], labels_NC[rows])
    prototypes.cluster(generator())
    return prototypes


def test_known_positives_come_back_in_order_with_their_values_and_only_once():
    labels_NC, features_NCD, numbers_NC = random_labels(), random_features(), torch.arange(N * C).view(N, C)
    positives = KnownPositives()
    for _ in range(2):
        for rows in (slice(0, 5), slice(5, N)):
            positives.add(labels_NC[rows], features_NCD[rows], numbers_NC[rows])
        expected = [(n, c) for n in range(N) for c in range(C) if labels_NC[n, c] == PRESENT]
        categories_S, features_SD, numbers_S = positives.take()
        assert categories_S.tolist() == [c for _, c in expected]
        assert numbers_S.tolist() == [n * C + c for n, c in expected]
        assert torch.equal(features_SD, torch.stack([features_NCD[n, c] for n, c in expected]))


def test_one_centre_is_the_mean_of_all_batches():
    labels_NC, features_NCD = random_labels(), random_features()
    prototypes = after_a_pass(Prototypes(C, 1, D, 1000), features_NCD, labels_NC)
    for c in range(C):
        rows = [n for n in range(N) if labels_NC[n, c] == PRESENT]
        expected_D = sum(features_NCD[n, c] for n in rows) / len(rows)
        torch.testing.assert_close(prototypes.centres_CKD[c, 0], expected_D, rtol=1e-4, atol=1e-5)


def test_a_category_has_no_more_prototypes_than_known_positives():
    labels_NC = torch.full((N, C), ABSENT, dtype=torch.int8)
    labels_NC[:2, 0], labels_NC[:, 1], labels_NC[:, 2] = PRESENT, UNKNOWN, PRESENT
    features_NCD = random_features()
    prototypes = after_a_pass(Prototypes(C, K, D, 1000), features_NCD, labels_NC)
    assert prototypes.num_C.tolist() == [2, 0, K, 0]
    close_K = torch.cdist(features_NCD[:2, 0], prototypes.centres_CKD[0, :2]).amin(dim=0)
    torch.testing.assert_close(close_K, torch.zeros(2), rtol=0, atol=2e-3)  # two points, two centres: the points
    assert (prototypes.centres_CKD[[1, 3]] == 0).all() and (prototypes.centres_CKD[0, 2:] == 0).all()


def test_a_second_pass_replaces_the_first():
    labels_NC = random_labels()
    prototypes = after_a_pass(Prototypes(C, K, D, 1000), random_features(), labels_NC)
    assert (prototypes.num_C > 0).all()
    labels_NC[:, 0] = UNKNOWN
    after_a_pass(prototypes, random_features(), labels_NC)
    assert prototypes.num_C[0] == 0 and (prototypes.centres_CKD[0] == 0).all()


def test_a_pass_without_any_known_positive_leaves_no_prototype():
    prototypes = after_a_pass(Prototypes(C, K, D, 1000), random_features(), torch.full((N, C), UNKNOWN))
    assert (prototypes.num_C == 0).all() and (prototypes.centres_CKD == 0).all()


def test_prototypes_are_saved_and_not_trained():
    prototypes = Prototypes(C, K, D, 1000)
    assert set(prototypes.state_dict()) == {"centres_CKD", "num_C"} and not list(prototypes.parameters())


def test_clustering_depends_on_the_seed_alone():
    features_SD = torch.randn(200, D, generator=generator(1))
    first, again, other = (cluster(features_SD, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_categories_side_by_side_give_what_they_give_one_by_one(monkeypatch):
    features_NCD, labels_NC = random_features(), random_labels()
    found = []
    for threads in (1, 4, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(after_a_pass(Prototypes(C, K, D, 1000), features_NCD, labels_NC).centres_CKD)
    assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])


SPY = """
import torch
from threadpoolctl import threadpool_info
from mlrpl_bench.models.layers import prototypes

plain = prototypes.cluster

def spy(features_SD, num_centres, seed):
    plain(features_SD, num_centres, seed)  # as in training, scikit-learn and its BLAS are first needed here
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
    print(_openmp_effective_n_threads(), *{p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"})
    return features_SD[:0]

torch.set_num_threads(4)
prototypes.cluster = spy
of = prototypes.Prototypes(5, 3, 2, 10)
of.observe(torch.rand(9, 5, 2), torch.ones(9, 5))
of.cluster(torch.Generator())
"""


def test_every_k_means_has_one_thread_where_there_are_four():
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", SPY], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == 5 * ["1", "1"], done.stderr


def test_clustering_looks_at_no_more_than_the_cap():
    features_NCD, labels_NC = torch.arange(100.0).view(100, 1, 1), torch.full((100, 1), PRESENT)
    centres = after_a_pass(Prototypes(1, 10, 1, 10), features_NCD, labels_NC).centres_CKD.flatten()
    assert len(centres.unique()) == 10
    torch.testing.assert_close(centres, centres.round())  # ten samples, ten centres: each is one of the features


def slow_mean_cosine(features_BCD, references_CKD, num_C):
    values = []
    for feature_CD in features_BCD:
        for c in range(len(references_CKD)):
            total = torch.zeros(())
            for reference_D in references_CKD[c]:
                if reference_D.any():
                    total = total + feature_CD[c] @ reference_D / (feature_CD[c].norm() * reference_D.norm())
            values.append(total / max(1, int(num_C[c])))
    return torch.stack(values).view(features_BCD.shape[:2])


@given(seed=st.integers(0, 2**31 - 1), counts=st.lists(st.integers(0, K), min_size=C, max_size=C))
def test_the_mean_cosine_equals_the_loops_in_value_and_gradient(seed, counts):
    features_BCD = random_features(seed).requires_grad_()
    references_CKD = torch.randn(C, K, D, generator=generator(seed + 1))
    for c, count in enumerate(counts):
        references_CKD[c, count:] = 0
    ours = mean_cosine(features_BCD, references_CKD, torch.tensor(counts))
    theirs = slow_mean_cosine(features_BCD, references_CKD, counts)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    if any(counts):
        direction = torch.randn(ours.shape, generator=generator())
        gradients = [torch.autograd.grad((values * direction).sum(), features_BCD)[0] for values in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_places_that_are_empty_count_where_the_number_says_so():
    references_CKD = torch.zeros(1, 4, D)
    references_CKD[0, 0] = 3.0
    features_BCD = torch.ones(1, 1, D)
    assert float(mean_cosine(features_BCD, references_CKD, 4)) == pytest.approx(0.25)
    assert float(mean_cosine(features_BCD, references_CKD, torch.tensor([1]))) == pytest.approx(1)


def test_the_mean_cosine_is_computed_in_float32_under_autocast():
    features_BCD, references_CKD = 1e4 * random_features(), torch.randn(C, K, D)
    expected = mean_cosine(features_BCD, references_CKD, K)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mean_cosine(features_BCD, references_CKD, K), expected, rtol=0, atol=0)
