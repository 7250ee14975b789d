"""Counts equal slow loops over the label matrix."""

import json

import numpy as np
import pytest

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN, known_mask
from mlrpl_bench.tools.inspection.label_statistics import FEW, measure
from tests.helpers.made_up_labels import labels, split

N, C = 60, 7


@pytest.fixture(scope="module")
def train_NC():
    labels_NC = labels(N, C)
    labels_NC[3] = ABSENT
    labels_NC[5, :2] = UNKNOWN
    return labels_NC


@pytest.fixture(scope="module")
def statistics(train_NC):
    return measure({"train": split(train_NC), "test": split(labels(20, C, seed=1))})


def test_labels_of_a_split_are_those_of_a_loop(statistics, train_NC):
    per_image = [sum(int(state == PRESENT) for state in row) for row in train_NC]
    found = statistics.train.to_json()
    assert found["images"] == N and found["labels"] == sum(per_image)
    assert found["labels per image"] == {"mean": sum(per_image) / N, "min": min(per_image), "max": max(per_image)}
    assert found["images without labels"] == per_image.count(0) >= 1
    assert found["unknown labels"] == 2
    assert statistics.splits["test"].to_json()["images"] == 20


def test_categories_come_from_the_most_to_the_least_frequent(statistics, train_NC):
    counts = [sum(int(row[column] == PRESENT) for row in train_NC) for column in range(C)]
    assert statistics.train.positives_C.tolist() == counts
    assert [counts[column] for column in statistics.by_frequency()] == sorted(counts, reverse=True)


def test_known_labels_are_those_of_a_loop_over_the_protocols_mask(statistics, train_NC):
    assert [known.ratio for known in statistics.known] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for known in statistics.known:
        mask_NC = known_mask((N, C), known.ratio, 0)
        positives, blank, unlucky = [0] * C, 0, 0
        shares = {PRESENT: [], ABSENT: []}
        for row in range(N):
            seen = {column for column in range(C) if mask_NC[row, column] and train_NC[row, column] != UNKNOWN}
            blank += not seen
            unlucky += not any(train_NC[row, column] == PRESENT for column in seen)
            for column in range(C):
                positives[column] += column in seen and train_NC[row, column] == PRESENT
                if train_NC[row, column] != UNKNOWN:
                    shares[train_NC[row, column]].append(column in seen)
        assert known.positives_C.tolist() == positives
        assert (known.images_without_any, known.images_without_present) == (blank, unlucky)
        assert known.present_share == pytest.approx(np.mean(shares[PRESENT]))
        assert known.absent_share == pytest.approx(np.mean(shares[ABSENT]))
        found = known.to_json()
        assert found["fewest known positives"] == min(positives)
        assert found[f"categories with fewer than {FEW}"] == sum(count < FEW for count in positives)


def test_another_mask_seed_is_another_mask(train_NC, statistics):
    other = measure({"train": split(train_NC)}, mask_seed=1)
    assert other.known[0].positives_C.tolist() != statistics.known[0].positives_C.tolist()


def test_pairs_are_those_of_a_loop(statistics, train_NC):
    expected = {}
    for first in range(C):
        for second in range(first + 1, C):
            a, b = train_NC[:, first] == PRESENT, train_NC[:, second] == PRESENT
            both, either = int((a & b).sum()), int((a | b).sum())
            if both >= 2:
                expected[first, second] = (both, both / either, both * N / (int(a.sum()) * int(b.sum())))
    found = statistics.pairs(1000)
    assert {(one.first, one.second) for one in found} == set(expected)
    for one in found:
        assert (one.images, one.overlap, one.times_chance) == pytest.approx(expected[one.first, one.second])
    assert [one.overlap for one in found] == sorted((one.overlap for one in found), reverse=True)
    assert statistics.pairs(2) == found[:2]


def test_a_pair_seen_once_is_not_among_the_strongest():
    labels_NC = np.full((9, 2), ABSENT, dtype=np.int8)
    labels_NC[0] = PRESENT
    assert measure({"train": split(labels_NC)}).pairs(5) == []


def test_the_json_is_json_even_without_a_single_label():
    labels_NC = np.full((4, 2), ABSENT, dtype=np.int8)
    content = json.loads(json.dumps(measure({"train": split(labels_NC)}).to_json(), allow_nan=False))
    assert content["known"][0]["known share of present"] is None
    assert content["splits"]["train"]["labels per image"] == {"mean": 0.0, "min": 0, "max": 0}
    assert [one["name"] for one in content["categories"]] == ["thing 0", "thing 1"]
