"""Reading classes, input shape, mean and std from options, model cards and metadata. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any

from clue_mobile.errors import ClueError, unknown

EXAMPLES = {"classes": "cat,dog", "input_shape": "3,32,32", "mean": "0.49,0.48,0.45", "std": "0.25,0.24,0.26"}


def read_json(path: Path, kind: str = "") -> Any:
    """What a user's JSON file holds. kind: put before its path in a ClueError, such as "the model card "."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClueError(f"cannot read {kind}{path}: {error.strerror}") from error
    except ValueError as error:
        raise ClueError(f"{kind}{path} is not valid JSON: {error}") from error


def read_card(path: Path) -> dict[str, Any]:
    """Return the fields of a model card: a JSON object with any of model, classes, input_shape, mean, std.

    Raises ClueError for a missing file, invalid JSON and other keys (a misspelt one would go unnoticed).
    """
    card = read_json(path, "the model card ")
    if not isinstance(card, dict):
        raise ClueError(f"the model card {path} must hold a JSON object, not a {type(card).__name__}")
    for key in card:
        if key != "model" and key not in EXAMPLES:
            raise unknown(f"key in the model card {path}", key, ["model", *EXAMPLES])
    return card


def parse_field(name: str, value: Any, source: str) -> tuple[Any, ...]:
    """Convert one field, a sequence or a JSON or comma-separated string, to a tuple of its type.

    Raises ClueError naming `source` where that is impossible.

    >>> parse_field("input_shape", "3, 32, 32", "the options")
    (3, 32, 32)
    >>> parse_field("classes", '["cat", "dog"]', "the options")
    ('cat', 'dog')
    """
    try:
        items = value
        if isinstance(value, str):
            items = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
        return tuple(_CONVERT[name](item) for item in items)
    except (TypeError, ValueError):
        raise ClueError(f"{name} in {source} is {value!r}; expected for example {EXAMPLES[name]!r}") from None


def _text(item: str | int) -> str:
    return item.strip() if isinstance(item, str) else str(index(item))


def _whole(item: str | int) -> int:
    return int(item) if isinstance(item, str) else index(item)


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "classes": _text,
    "input_shape": _whole,
    "mean": float,
    "std": float,
}
