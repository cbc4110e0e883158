"""Model cards and the fields of options, cards and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clue_mobile.errors import ClueError
from clue_mobile.models.card import parse_field, read_card


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("classes", "cat, dog ", ("cat", "dog")),
        ("classes", '["cat, big", "dog"]', ("cat, big", "dog")),
        ("classes", [0, 1], ("0", "1")),
        ("input_shape", " [3, 32, 32]", (3, 32, 32)),
        ("input_shape", (1, 8, 8), (1, 8, 8)),
        ("mean", "0.5", (0.5,)),
        ("std", [1, 0.5], (1.0, 0.5)),
    ],
)
def test_reads_sequences_and_both_kinds_of_string(name: str, value: Any, expected: tuple[Any, ...]) -> None:
    parsed = parse_field(name, value, "a test")

    assert parsed == expected
    assert [type(item) for item in parsed] == [type(item) for item in expected]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", 10),
        ("classes", [0.5, 1.5]),
        ("input_shape", "3x32x32"),
        ("input_shape", [3, 32.5, 32]),
        ("mean", 0.5),
        ("std", "[0.5"),
        ("std", [None]),
    ],
)
def test_names_the_source_of_what_it_cannot_read(name: str, value: Any) -> None:
    with pytest.raises(ClueError, match=f"{name} in the options is .*; expected for example '"):
        parse_field(name, value, "the options")


def test_reads_a_card(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text('{"model": "digits_cnn", "mean": [0.3]}')

    assert read_card(path) == {"model": "digits_cnn", "mean": [0.3]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"clases": ["a", "b"]}', "unknown key in the model card .*: did you mean 'classes'"),
        ("{", "is not valid JSON"),
        ("[1]", "must hold a JSON object, not a list"),
        (b"\xff", "is not valid JSON"),
        (None, "cannot read the model card"),
    ],
)
def test_refuses_a_bad_card(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    path = tmp_path / "card.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ClueError, match=message):
        read_card(path)
