from __future__ import annotations

import json
import struct
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_runtime.errors import ClueError
from pi_runtime.receipts import canonical

KNOWN: dict[str, Any] = json.loads(
    resources.files("contract").joinpath("receipts/canonical.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", KNOWN["numbers"], ids=lambda case: case["bits"])
def test_numbers_are_those_of_rfc_8785(case: dict[str, Any]) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(case["bits"]))
    if case["text"] is None:
        with pytest.raises(ClueError, match="no number"):
            canonical.dumps(number)
    else:
        assert canonical.dumps(number) == case["text"]
        assert canonical.parse(case["text"].encode()) == number


def test_documents_are_those_of_rfc_8785() -> None:
    for case in KNOWN["documents"]:
        found = canonical.encode(json.loads(case["json"]))
        if "utf8" in case:
            assert found.hex() == case["utf8"]
        if "order" in case:
            assert list(json.loads(found).values()) == case["order"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_is_read_back_and_is_canonical(value: Any) -> None:
    try:
        content = canonical.encode(value)
    except ClueError:  # keys with half a surrogate pair
        return
    assert canonical.parse(content) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_shortest_text_that_gives_it_back(number: float) -> None:
    text = canonical.dumps(number)
    assert float(text) == number
    digits = text.lstrip("-0.").partition("e")[0].replace(".", "").strip("0")
    assert len(digits) <= 17
    assert len(digits) == len(repr(number).lstrip("-0.").partition("e")[0].replace(".", "").strip("0"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"b":1,"a":2}',  # keys out of order
        b'{"a": 1}',  # a space
        b'{"a":1}\n',
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":1E3}',
        b'"\\u0041"',  # an escape that is not needed
        b'"\\u001F"',  # upper case
        b'"\\/"',
    ],
)
def test_another_spelling_of_the_same_value_is_refused(content: bytes) -> None:
    with pytest.raises(ClueError, match="canonical form"):
        canonical.parse(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b"NaN",
        b"\xff",
        b"[" * 100_000,
        b"9" * 5000,
    ],
    ids=["empty", "half", "twice", "NaN", "no UTF-8", "deep", "5000 digits"],
)
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ClueError, match=r"no JSON|no number inf"):
        canonical.parse(content)


def test_what_json_has_not_is_refused() -> None:
    for value, says in (
        (2**53 + 1, "beyond 2\\^53"),
        (-(10**400), "beyond 2\\^53"),
        (object(), "no object"),
        ({1: 2}, "must be a string"),
        ("\ud800", "surrogate"),
        (b"bytes", "bytes"),
    ):
        with pytest.raises(ClueError, match=says):
            canonical.dumps(value)


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ClueError, match="more than any receipt"):
        canonical.parse(b" " * (canonical.MOST_BYTES + 1))
