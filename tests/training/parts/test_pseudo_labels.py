"""What was filled in is counted against the labels before hiding, and known labels never are."""

import numpy as np

from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from mlrpl_bench.training.parts.pseudo_labels import counts


def labels(*rows):
    return np.array(rows, dtype=np.int8)


def test_right_and_wrong_by_state():
    truth_NC = labels([PRESENT, PRESENT, ABSENT, ABSENT, ABSENT, PRESENT])
    seen_NC = labels([UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, PRESENT])
    pseudo_NC = labels([PRESENT, ABSENT, PRESENT, ABSENT, ABSENT, PRESENT])
    present = {"pseudo.present_right": 1, "pseudo.present_wrong": 1}
    assert counts(pseudo_NC, seen_NC, truth_NC) == present | {
        "pseudo.absent_right": 2,
        "pseudo.absent_wrong": 1,
    }


def test_what_nobody_labelled_is_counted_apart_and_only_where_there_is_any():
    truth_NC, seen_NC = labels([UNKNOWN, PRESENT]), labels([UNKNOWN, UNKNOWN])
    found = counts(labels([PRESENT, PRESENT]), seen_NC, truth_NC)
    assert found["pseudo.truth_unknown"] == 1 == found["pseudo.present_right"] and found["pseudo.present_wrong"] == 0
    assert "pseudo.truth_unknown" not in counts(seen_NC, seen_NC, labels([PRESENT, ABSENT]))


def test_a_method_that_fills_in_nothing_has_no_columns():
    assert counts(None, labels([UNKNOWN]), labels([PRESENT])) == {}
