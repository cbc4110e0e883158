"""The file of results: whole lines, one writer, and what a killed run leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from clue_mobile.errors import ClueError
from clue_mobile.study.results import Results


def test_rows_are_lines_and_the_newest_of_a_key_counts(tmp_path: Path) -> None:
    results = Results(tmp_path / "new")
    assert results.rows() == []
    with results.opened():
        results.add({"key": "a", "n": 1})
        assert results.path.read_bytes() == b'{"key": "a", "n": 1}\n'  # there before the file is closed
        results.add({"key": "a", "n": 2})
    assert results.latest() == {"a": {"key": "a", "n": 2}}


def test_a_torn_line_is_no_row_and_is_cut_off(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.path.write_bytes(b'{"key": "a"}\n{"key": "b", "val')
    assert [row["key"] for row in results.rows()] == ["a"]
    with results.opened():
        results.add({"key": "c"})
    assert results.path.read_bytes() == b'{"key": "a"}\n{"key": "c"}\n'


@pytest.mark.parametrize("line", [b"{", b"3", b"\xff"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    results = Results(tmp_path)
    results.path.write_bytes(b'{"key": "a"}\n' + line + b'\n{"key": "b"}\n')
    with pytest.raises(ClueError, match="line 2 is damaged"):
        results.rows()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Results(tmp_path).opened() as first:
        with pytest.raises(ClueError, match="another run is writing"), Results(tmp_path).opened():
            pass
        first.add({"key": "a"})
    with Results(tmp_path).opened() as again:
        again.add({"key": "b"})
    assert len(again.rows()) == 2


def test_a_number_that_is_no_json_is_not_written(tmp_path: Path) -> None:
    with Results(tmp_path).opened() as results, pytest.raises(ValueError, match="not JSON compliant"):
        results.add({"key": "a", "value": float("nan")})
    assert results.rows() == []
