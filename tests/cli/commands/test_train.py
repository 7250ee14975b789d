"""``run`` and ``leaderboard`` turn options into a request; what it does is tested with the API."""

import pytest

from mlrpl_bench.api.request import Request
from mlrpl_bench.cli import app
from mlrpl_bench.cli.commands import train


@pytest.fixture
def asked(monkeypatch):
    """Call the command line; the request that it makes is returned and not carried out."""
    found = []
    monkeypatch.setattr(
        train, "_carry_out", lambda request, asked: found.append((request, asked.as_json, asked.dry_run))
    )

    def asked(*arguments):
        found.clear()
        app.app(list(arguments), standalone_mode=False)
        return found[0]

    return asked


def test_a_run_without_options_asks_for_what_is_usual(asked):
    assert asked("run", "sarb") == (Request(methods=("sarb",)), False, False)


def test_options_of_a_run_are_in_the_request(asked):
    request, as_json, dry_run = asked(
        *("run", "sarb", "--dataset", "coco", "--ratios", "0.5,0.1", "--seeds", "3", "--mask-seed", "7"),
        *("--set", "alpha=0.3", "--group", "4", "--checkpoint-every", "2", "--keep-weights", "none"),
        *("--epochs", "5", "--results-dir", "a", "--results-dir", "b", "--json", "--dry-run"),
    )
    assert (as_json, dry_run) == (True, True)
    assert (request.dataset, request.ratios, request.seeds, request.mask_seed) == ("coco", (0.1, 0.5), 3, 7)
    assert (request.overrides, request.group, request.checkpoint_seconds) == ({"alpha": "0.3"}, 4, 120.0)
    assert (request.keep_weights, request.options.epochs) == (False, 5)
    assert [str(path) for path in request.results] == ["a", "b"]
    assert (request.leaderboard, request.train) == (False, True)


def test_options_of_a_leaderboard_are_in_the_request(asked):
    request, *_ = asked("leaderboard", "--methods", "sarb, ssgrl", "--no-train", "--published", "--out", "tables")
    assert request.methods == ("sarb", "ssgrl")
    assert (request.leaderboard, request.only_these_rows, request.train, request.published) == (True, True, False, True)
    assert str(request.out) == "tables"
    usual, *_ = asked("leaderboard")
    assert (usual.methods, usual.only_these_rows, usual.train, usual.out) == (None, False, True, None)
