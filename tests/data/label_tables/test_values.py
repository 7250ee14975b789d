"""A value means one thing, and -1 means nothing until it is told."""

import pytest

from mlrpl_bench.data.label_tables.values import LabelValues, NoLabel
from mlrpl_bench.data.protocol import ABSENT, PRESENT, UNKNOWN
from tests.helpers.tiny_study import refusal


def state(value, **meanings):
    return int.from_bytes(LabelValues(**meanings)[value], "little", signed=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, PRESENT) for value in ("1", "1.0", "+1", " 1 ", "01", "1.")),
        *((value, ABSENT) for value in ("0", "0.00", "-0")),
        *((value, UNKNOWN) for value in ("", "  ")),
    ],
)
def test_one_zero_and_nothing_have_their_meaning_however_they_are_written(value, expected):
    assert state(value) == expected


@pytest.mark.parametrize(
    "value", ["-1", "2", "10", "0.5", "1.01", "0.9999999999999999999", "nan", "NA", "yes", "١", "1_0", "1e0"]
)
def test_other_values_are_no_labels(value):
    with pytest.raises(NoLabel):
        LabelValues()[value]


@pytest.mark.parametrize(
    ("meanings", "expected"),
    [
        ({"absent": "-1", "unknown": "0"}, {"1": PRESENT, "-1": ABSENT, "0": UNKNOWN, "": UNKNOWN}),
        ({"unknown": "-1"}, {"1": PRESENT, "0": ABSENT, "-1.0": UNKNOWN}),
        ({"absent": "-1,0"}, {"-1": ABSENT, "0": ABSENT}),
        (
            {"present": "yes", "absent": "no", "unknown": "NA,?"},
            {"yes": PRESENT, "no": ABSENT, "?": UNKNOWN, "NA": UNKNOWN},
        ),
    ],
)
def test_the_user_says_what_values_mean(meanings, expected):
    assert {value: state(value, **meanings) for value in expected} == expected


def test_where_minus_one_is_absent_zero_is_no_label_until_it_is_told_too():
    with pytest.raises(NoLabel) as caught:
        LabelValues(absent="-1")["0"]
    assert "--set-data unknown=0" in caught.value.args[1]


def test_the_advice_for_minus_one_names_both_readings():
    with pytest.raises(NoLabel) as caught:
        LabelValues()["-1"]
    assert "absent=-1" in caught.value.args[1] and "unknown=-1" in caught.value.args[1]


def test_a_value_with_two_meanings_is_refused():
    assert "'0' would mean absent and unknown" in refusal(lambda: LabelValues(unknown="0"))
    assert "would mean unknown and present" in refusal(lambda: LabelValues(present="1,"))
