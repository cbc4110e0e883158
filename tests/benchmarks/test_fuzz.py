"""A short, seeded run of benchmarks/fuzz: the long one is recorded there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "pi_runtime"))

import fuzz  # noqa: E402
import targets  # noqa: E402


@pytest.mark.parametrize(
    ("target", "inputs"),
    [("manifest", 60), ("safetensors", 300), ("image", 200), ("npz", 200), ("keys", 100)],
)
def test_nothing_but_clue_errors_come_out(target: str, inputs: int, tmp_path: Path) -> None:
    found = fuzz.run(target, inputs, 1, tmp_path)
    assert found["failures"] == {}
    assert found["refused"] > inputs // 10
    assert found["inputs"] >= inputs // 2  # Hypothesis stops early where it would repeat itself


def test_whatever_else_comes_out_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: a reader that trusts its input is caught, with an input that shows it."""
    from hypothesis import strategies as st

    def reader(content: bytes) -> None:
        content.decode("ascii")

    broken = targets.Target(st.binary(max_size=3), reader)
    monkeypatch.setitem(targets.TARGETS, "broken", lambda bundle, folder: broken)
    found = fuzz.run("broken", 100, 0, tmp_path)
    ((error, (count, shown)),) = found["failures"].items()
    assert error.startswith("UnicodeDecodeError in test_fuzz.py, line ")
    assert count > 0
    with pytest.raises(UnicodeDecodeError):
        reader(bytes.fromhex(shown))
