"""What a method is tried on is the same each time, and large where that matters."""

import numpy as np

from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.models.registry import load_methods
from mlrpl_bench.tools.conformance.sample import LARGE, NUM_TEST, NUM_TRAIN, Sample


def test_a_sample_is_complete_and_the_same_each_time(tmp_path_factory):
    one, other = (Sample(load_methods()["ssgrl"], tmp_path_factory.mktemp(name)) for name in "ab")
    for name, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        labels_NC = one.splits[name].labels_NC
        assert len(labels_NC) == count and set(np.unique(labels_NC)) == {PRESENT, ABSENT}
        np.testing.assert_array_equal(labels_NC, other.splits[name].labels_NC)
        pairs = zip(one.splits[name].image_paths, other.splits[name].image_paths, strict=True)
        assert all(a.read_bytes() == b.read_bytes() for a, b in pairs)


def test_a_large_sample_is_past_the_size_from_which_torch_adds_in_parallel():
    assert LARGE.batch * LARGE.categories * 64 > 2 * 32_768
