"""A folder with the small data set and the method of one's own, which is the current folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_case import METHOD, small

from clue_mobile.data import Dataset


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_data: Dataset) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(METHOD)
    small(digits_data, tmp_path / "small.npz")
    return tmp_path
