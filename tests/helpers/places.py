"""Where the tests find the clone and what they read from it."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
RECORDINGS = TESTS / "recordings"  # of the official model and its annotations
