"""A table of resources with the entries of newer Androids, rewritten for older tools."""

from __future__ import annotations

import struct

import framework
import pytest

HEADER = 20 + 4  # of a type: fixed part and the shortest configuration there is
PLAIN = struct.pack("<HHIHBBI", 8, 4, 7, 8, 0, 0x10, 1234)
"""An entry of key 7 whose value is the number 1234; weak (flag 4)."""
COMPACT = struct.pack("<HHI", 7, 0x1000 | 8 | 4, 1234)
BAG = struct.pack("<HHIIIIHBBI", 16, 1, 9, 0, 1, 0x01010000, 8, 0, 0x10, 5)
"""An entry of one pair, as styles have."""


def of_type(flags: int, offsets: bytes, count: int, entries: bytes) -> bytes:
    start = HEADER + len(offsets)
    size = start + len(entries)
    head = struct.pack("<HHIBBHIII", framework.TYPE, HEADER, size, 3, flags, 0, count, start, 4)
    return head + offsets + entries


def table(*parts: bytes) -> bytes:
    body = b"".join(parts)
    package = struct.pack("<HHII", framework.PACKAGE, 12, 12 + len(body), 1) + body
    return struct.pack("<HHII", 2, 12, 12 + len(package), 1) + package


def entries(rewritten: bytes) -> list[bytes | None]:
    """The entries of the one type, as an old reader finds them."""
    at = 24
    kind, header, size, identity, flags, _, count, start = struct.unpack_from("<HHIBBHII", rewritten, at)
    assert (kind, header, identity, flags) == (framework.TYPE, HEADER, 3, 0)
    assert at + size == len(rewritten)
    found: list[bytes | None] = []
    for offset in struct.unpack_from(f"<{count}I", rewritten, at + header):
        if offset == framework.NO_ENTRY:
            found.append(None)
            continue
        place = at + start + offset
        bag = struct.unpack_from("<H", rewritten, place + 2)[0] & framework.COMPLEX
        found.append(rewritten[place : place + (28 if bag else 16)])
    return found


@pytest.mark.parametrize("of_small", [COMPACT, PLAIN])
def test_offsets_of_16_bits_and_compact_entries(of_small: bytes) -> None:
    offsets = struct.pack("<HHHH", 0, 0xFFFF, len(of_small) // 4, 0)
    found = entries(framework.rewrite(table(of_type(framework.OFFSET16, offsets, 4, of_small + BAG))))
    assert found == [PLAIN, None, BAG, PLAIN]


def test_sparse_entries_become_dense() -> None:
    offsets = struct.pack("<HHHH", 1, 0, 3, len(BAG) // 4)
    found = entries(framework.rewrite(table(of_type(framework.SPARSE, offsets, 2, BAG + COMPACT))))
    assert found == [None, BAG, None, PLAIN]


def test_what_is_plain_stays() -> None:
    plain = table(of_type(0, struct.pack("<II", 0, len(PLAIN)), 2, PLAIN + BAG))
    assert framework.rewrite(plain) == plain


def test_provisional_ids_are_left_out() -> None:
    alias = struct.pack("<HHII", framework.STAGED_ALIAS, 12, 12, 0)
    of_plain = of_type(0, struct.pack("<I", 0), 1, PLAIN)
    assert framework.rewrite(table(alias, of_plain)) == table(of_plain)
