"""A request is plain data: it can be pickled, and written as JSON and read back."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mlrpl_bench.api.request import Request
from mlrpl_bench.training.options import Options
from mlrpl_bench.utils.errors import UserError

FULL = Request(
    dataset="coco",
    methods=("sarb", "ssgrl"),
    overrides={"alpha": "0.3"},
    ratios=(0.1, 0.5),
    seeds=3,
    mask_seed=7,
    options=Options(
        data_root=Path("/data"), mask_file=Path("mask.npz"), epochs=5, data={"year": "2014"}, deterministic=True
    ),
    plugins=(Path("mine.py"),),
    results=(Path("a"), Path("b")),
    group=4,
    checkpoint_seconds=60.0,
    evaluate_every=5,
    keep_weights=False,
    train=False,
    only_these_rows=True,
    leaderboard=True,
    published=True,
    tuned=True,
    tuned_file=Path("tuned.json"),
    out=Path("tables"),
    shard=(2, 3),
)


def test_every_field_is_something_else_than_usual_here():
    same = [
        each.name for each in dataclasses.fields(Request) if getattr(FULL, each.name) == getattr(Request(), each.name)
    ]
    assert same == []


@pytest.mark.parametrize("request_", [Request(), FULL], ids=["usual", "full"])
def test_it_is_the_same_after_a_journey(request_):
    assert Request.from_json(json.loads(json.dumps(request_.to_json()))) == request_
    assert pickle.loads(pickle.dumps(request_)) == request_


def test_a_field_of_another_version_is_refused():
    with pytest.raises(UserError, match="a request has no colour; it was written by another version"):
        Request.from_json({**Request().to_json(), "colour": "red"})


@pytest.mark.parametrize("name", ["options", "methods", "group"])
def test_a_field_that_is_missing_is_not_guessed(name):
    content = Request().to_json()
    del content[name]
    with pytest.raises(UserError, match=f"the request lacks {name}; it was written by another version"):
        Request.from_json(content)


def test_a_seed_is_that_of_the_mask_too():
    assert Request(seeds=3).seed_pairs() == [(0, 0), (1, 1), (2, 2)]


def test_the_mask_can_be_held_fixed():
    assert Request(seeds=2, mask_seed=7).seed_pairs() == [(0, 7), (1, 7)]
    assert Request(seeds=2, options=Options(mask_file=Path("mask.npz"))).seed_pairs() == [(0, 0), (1, 0)]


@pytest.mark.parametrize(
    ("count", "mask_seed", "line"),
    [
        (0, None, "--seeds 0 must be at least 1"),
        (1_000_000, None, "--seeds 1000000 must be at most 1000"),
        (1, -1, "--mask-seed -1 must be between 0 and 4294967295"),
        (1, 2**32, "--mask-seed 4294967296 must be between 0 and 4294967295"),
    ],
)
def test_seeds_that_cannot_be_are_refused(count, mask_seed, line):
    with pytest.raises(UserError, match=line):
        Request(seeds=count, mask_seed=mask_seed).seed_pairs()


def test_it_imports_nothing_that_takes_long():
    code = "import sys; import mlrpl_bench.api.request; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
