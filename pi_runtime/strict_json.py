"""JSON from files that may be hostile: one meaning only, and no depth, size or number to choke on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

MAX_DEPTH = 64
MOST = 2**53 - 1  # whole numbers beyond this are not the same in every language
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def loads(content: bytes, max_bytes: int) -> Any:
    """The value of a JSON text in UTF-8.

    Raises ValueError, in words: longer than `max_bytes`, not UTF-8, not JSON, nested deeper than 64, a key
    twice in one object, NaN or infinity, a whole number beyond 2^53 - 1, half a surrogate pair.
    """
    if len(content) > max_bytes:
        raise ValueError(f"it has {len(content):,} bytes, more than {max_bytes:,}")
    text = content.decode("utf-8")
    _check_depth(text)
    value = json.loads(
        text,
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=_float,
        parse_constant=_refuse_constant,
    )
    for string in strings(value):
        if any("\ud800" <= each <= "\udfff" for each in string):
            raise ValueError("a string has half a surrogate pair")
    return value


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def has_control(text: str) -> bool:
    """Whether a text has characters that a terminal would act on, or half a surrogate pair."""
    return _CONTROL.search(text) is not None


def _check_depth(text: str) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        first = match.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
        elif first in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:50]!r} is there twice")
    return found


def _integer(text: str) -> int:
    # int() of very many digits takes very long.
    if len(text) > 17 or abs(int(text)) > MOST:
        raise ValueError(f"the number {text[:20]} is beyond 2^53 - 1")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
