"""Resources of a newer Android for an older aapt2: the same table, in the form that Android 10's tools know.

Since Android 14 a table may have offsets of 16 bits and entries of 8 bytes ("compact"). Debian's aapt2
refuses both, and links against no framework above API 33. `rewrite` spells such entries in the older form;
nothing else changes, so names, ids and values that an app's resources are checked against are those of the
new platform. Layout: ResTable_* in Android's ResourceTypes.h.
"""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

PACKAGE, TYPE, STAGED_ALIAS = 0x0200, 0x0201, 0x0206
SPARSE, OFFSET16 = 0x01, 0x02
COMPLEX, COMPACT = 0x0001, 0x0008
NO_ENTRY, NO_ENTRY16 = 0xFFFFFFFF, 0xFFFF
PLAIN_HEADER = 8


def rewrite(table: bytes) -> bytes:
    """A whole resources.arsc in the older form."""
    kind, header, size = struct.unpack_from("<HHI", table, 0)
    body = b"".join(
        _package(chunk) if _kind(chunk) == PACKAGE else chunk for chunk in _chunks(table, header, size)
    )
    return struct.pack("<HHI", kind, header, header + len(body)) + table[8:header] + body


def _kind(chunk: bytes) -> int:
    return int.from_bytes(chunk[:2], "little")


def _chunks(data: bytes, start: int, end: int) -> list[bytes]:
    found = []
    while start < end:
        size = struct.unpack_from("<I", data, start + 4)[0]
        found.append(data[start : start + size])
        start += size
    return found


def _package(chunk: bytes) -> bytes:
    kind, header, size = struct.unpack_from("<HHI", chunk, 0)
    # aliases of ids that were provisional in a preview; no id of a released platform needs them
    parts = [part for part in _chunks(chunk, header, size) if _kind(part) != STAGED_ALIAS]
    body = b"".join(_type(part) if _kind(part) == TYPE else part for part in parts)
    return struct.pack("<HHI", kind, header, header + len(body)) + chunk[8:header] + body


def _type(chunk: bytes) -> bytes:
    kind, header, _, identity, flags, reserved, count, start = struct.unpack_from("<HHIBBHII", chunk, 0)
    places: dict[int, int] = {}
    if flags & SPARSE:
        for index in range(count):
            entry, offset = struct.unpack_from("<HH", chunk, header + 4 * index)
            places[entry] = 4 * offset
    else:
        wide = not flags & OFFSET16
        for index, offset in enumerate(struct.unpack_from(f"<{count}{'I' if wide else 'H'}", chunk, header)):
            if offset != (NO_ENTRY if wide else NO_ENTRY16):
                places[index] = offset if wide else 4 * offset
    highest = max(places, default=-1) + 1 if flags & SPARSE else count
    offsets, entries = [NO_ENTRY] * highest, b""
    written: dict[int, int] = {}
    for index, offset in places.items():
        if offset not in written:  # equal entries may share their place
            written[offset] = len(entries)
            entries += _entry(chunk, start + offset)
        offsets[index] = written[offset]
    start = header + 4 * highest
    fixed = struct.pack(
        "<HHIBBHII", kind, header, start + len(entries), identity, 0, reserved, highest, start
    )
    return fixed + chunk[20:header] + struct.pack(f"<{highest}I", *offsets) + entries


def _entry(chunk: bytes, at: int) -> bytes:
    size, flags = struct.unpack_from("<HH", chunk, at)
    if flags & COMPACT:
        key, data = size, struct.unpack_from("<I", chunk, at + 4)[0]
        entry = struct.pack("<HHI", PLAIN_HEADER, flags & 0xFF & ~COMPACT, key)
        return entry + struct.pack("<HBBI", 8, 0, flags >> 8, data)
    if flags & COMPLEX:
        return chunk[at : at + size + 12 * struct.unpack_from("<I", chunk, at + 12)[0]]
    return chunk[at : at + size + 8]


def main(source: Path, out: Path) -> None:
    """Write an APK with the framework's resources alone, from a jar or APK that has them."""
    with zipfile.ZipFile(source) as jar, zipfile.ZipFile(out, "w") as apk:
        apk.writestr("AndroidManifest.xml", jar.read("AndroidManifest.xml"))
        apk.writestr("resources.arsc", rewrite(jar.read("resources.arsc")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
