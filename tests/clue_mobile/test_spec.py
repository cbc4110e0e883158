"""ModelSpec: what it refuses, and that its metadata form loses nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clue_mobile.errors import ClueError
from clue_mobile.models.card import EXAMPLES, parse_field
from clue_mobile.spec import ModelSpec

VALID: dict[str, Any] = {
    "model": "net.py:make",
    "classes": ("cat", "dog"),
    "input_shape": (3, 8, 8),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}


def test_counts_the_classes() -> None:
    assert ModelSpec(**VALID).num_classes == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "name is empty"),
        ({"classes": ("cat",)}, "at least 2 classes, not 1"),
        ({"classes": ("cat", " ")}, "class 1 has no name"),
        ({"classes": ("cat", "dog", "cat")}, "more than once: cat"),
        ({"input_shape": (3, 8)}, r"not \(3, 8\)"),
        ({"input_shape": (3, 0, 8)}, "at least 1"),
        ({"mean": (0.5,)}, "mean has 1 values but the input has 3 channels"),
        ({"std": (0.25, 0.25)}, "std has 2 values but the input has 3 channels"),
        ({"mean": (125.3, 123.0, 113.9)}, "pixels / 255"),
        ({"mean": (0.5, math.nan, 0.5)}, r"mean must lie in \[0, 1\]"),
        ({"std": (0.25, 0.0, 0.25)}, "std must be greater than 0"),
        ({"std": (0.25, -1.0, 0.25)}, "std must be greater than 0"),
        ({"std": (0.25, math.inf, 0.25)}, "finite"),
    ],
)
def test_refuses_what_contradicts(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClueError, match=message):
        ModelSpec(**{**VALID, **change})


@given(
    classes=st.lists(
        st.text(min_size=1).filter(lambda name: name == name.strip() != ""),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    mean=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_metadata_reads_back_unchanged(classes: list[str], mean: list[float]) -> None:
    std = tuple(value + 0.1 for value in mean)
    spec = ModelSpec("net.py:make", tuple(classes), (len(mean), 8, 9), tuple(mean), std)

    metadata = spec.to_metadata()

    assert all(isinstance(value, str) for value in metadata.values())
    assert {name: parse_field(name, metadata[name], "a test") for name in EXAMPLES} == {
        name: getattr(spec, name) for name in EXAMPLES
    }
