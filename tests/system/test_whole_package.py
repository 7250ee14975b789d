"""What identifies the code looks at all of the package, not at the folder that it happens to lie in."""

from pathlib import Path

import torch

import mlrpl_bench
from mlrpl_bench.cli import leaderboard_cache
from mlrpl_bench.records import provenance
from mlrpl_bench.training import checkpoint

WHOLE = Path(mlrpl_bench.__file__).resolve().parent
MODULES = set(WHOLE.rglob("*.py"))


def test_a_checkpoint_belongs_to_the_whole_package(monkeypatch):
    read = []
    true_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or true_bytes(path))
    checkpoint.code_digest.__wrapped__()
    assert set(read) == MODULES


def test_git_is_asked_about_the_package_folder_itself(monkeypatch):
    asked = []
    monkeypatch.setattr(provenance, "git_state", lambda folder: asked.append(folder))
    provenance.provenance(torch.device("cpu"))
    assert asked == [WHOLE]


def test_a_leaderboard_is_made_again_after_a_change_of_any_module():
    looked_at = {path for folder in leaderboard_cache.CODE for path in folder.rglob("*.py")}
    assert looked_at >= MODULES
    assert looked_at >= set((WHOLE.parent / "methods").glob("*.py"))
