"""Choices of where workers run that contradict each other are refused in a line."""

import pytest

from mlrpl_bench.launchers.placement import Placement
from tests.helpers.tiny_study import refusal


@pytest.mark.parametrize(
    ("placement", "device", "line"),
    [
        (Placement("slum"), "auto", "no launcher 'slum'; there are: local, print, ray, submitit"),
        (Placement(workers=4), "auto", "--workers is for --launcher local, print, ray or submitit; add it or leave"),
        (
            Placement("local", ray_address="auto"),
            "auto",
            "--ray-address is for --launcher ray; add it or leave this out",
        ),
        (Placement("local", accelerator="H100"), "auto", "--accelerator is for --launcher ray;"),
        (Placement("ray", partition="gpu"), "auto", "--partition is for --launcher submitit;"),
        (Placement("ray", time="90"), "auto", "--time is for --launcher submitit;"),
        (Placement("local", workers=0), "cpu", "--workers 0 must be between 1 and 10000"),
        (
            Placement("local"),
            "cuda:1",
            "--device cuda:1 names one GPU, but each worker gets its own; write --device cuda",
        ),
        (Placement("submitit", time="soon"), "auto", "--time soon is no time;"),
        (Placement("submitit", time="0"), "auto", "--time 0 is no time;"),
    ],
)
def test_contradictions_are_refused(placement, device, line):
    assert refusal(lambda: placement.check(device)).startswith(line)


@pytest.mark.parametrize(
    "placement",
    [
        Placement(),
        Placement("local", workers=2),
        Placement("ray", ray_address="local", accelerator="H100"),
        Placement("submitit", workers=8, partition="gpu", time="2:00:00"),
        Placement("print"),
    ],
)
def test_what_can_be_is_not_refused(placement):
    placement.check("auto")


@pytest.mark.parametrize(
    ("time", "minutes"), [("90", 90), ("4:00:00", 240), ("2-01:00:00", 2940), ("30:00", 30), ("0:01", 1), (None, None)]
)
def test_a_time_is_in_minutes_rounded_up(time, minutes):
    assert Placement("submitit", time=time).minutes() == minutes
