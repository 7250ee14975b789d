"""Where the tests find the checkout and its files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench.py"
TESTS = ROOT / "tests"
GOLDEN = TESTS / "golden"
