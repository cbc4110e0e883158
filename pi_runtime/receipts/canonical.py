"""JSON in its canonical form (RFC 8785), so that a hash or a signature over it means the same everywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from pi_runtime.errors import ClueError

MOST_BYTES = 1 << 20
"""No receipt comes near this; a larger file is refused before it is parsed."""
_EXACT = 1 << 53


def dumps(value: object) -> str:
    """The canonical text of None, booleans, numbers, strings, lists, tuples and mappings with string keys.

    Raises ClueError for what JSON has not: other types, numbers that are not finite, whole numbers that a
    double does not hold, text with half a surrogate pair.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return _whole(value)
        case float():
            return _number(value)
        case str():
            return _string(value)
        case Mapping():
            return "{" + ",".join(f"{_string(key)}:{dumps(value[key])}" for key in _sorted(value)) + "}"
        case list() | tuple():
            return "[" + ",".join(dumps(each) for each in value) + "]"
        case _:
            raise ClueError(f"canonical JSON has no {type(value).__name__}")


def encode(value: object) -> bytes:
    """`dumps` as UTF-8."""
    return dumps(value).encode()


def parse(content: bytes) -> Any:
    """The value of canonical JSON. Raises ClueError unless `content` is exactly the canonical form of it, so
    that two files with the same meaning have the same bytes."""
    if len(content) > MOST_BYTES:
        raise ClueError(f"it has {len(content)} bytes, more than any receipt ({MOST_BYTES})")
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_read_whole,
            parse_constant=_refuse_constant,
        )
        same = encode(value) == content
    except (ValueError, RecursionError) as error:
        raise ClueError(f"it is no JSON: {error}") from error
    if not same:
        raise ClueError("it is not in canonical form (RFC 8785): it was changed, or another program wrote it")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _sorted(value: Mapping[str, Any]) -> list[str]:
    """By UTF-16 code units, which is not the order of Python's strings beyond U+FFFF."""
    for key in value:
        if not isinstance(key, str):
            raise ClueError(f"a key of a JSON object must be a string, not {type(key).__name__}")
    return sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))


def _string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ClueError("canonical JSON has no text with half a surrogate pair") from error
    # Escapes " \ \b \t \n \f \r and, as \u00xx in lower case, the other control characters; nothing else.
    return json.dumps(text, ensure_ascii=False)


def _whole(value: int) -> str:
    if abs(value) > _EXACT:
        raise ClueError("canonical JSON has no whole number beyond 2^53: a double would not hold it exactly")
    return _number(float(value))


def _read_whole(text: str) -> int | float:
    """Digits beyond 2^53 stand for the nearest double, as in ECMAScript."""
    value = float(text)
    return int(value) if abs(value) <= _EXACT else value


def _number(value: float) -> str:
    """As ECMAScript's Number::toString writes a double; Python's repr has the same digits."""
    if not math.isfinite(value):
        raise ClueError(f"canonical JSON has no number {value}")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.digits times ten to the power of `point`.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"
