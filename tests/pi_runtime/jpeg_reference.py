"""A baseline JPEG decoder by the formulas of ITU-T T.81 and JFIF in float64, to compare real decoders with.

The inverse transform and the colours are exact up to their last rounding; chroma planes are enlarged by
repeating, the plainest of the ways that the standard leaves open.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

ZIGZAG = sorted(range(64), key=lambda k: (k // 8 + k % 8, (k // 8) if (k // 8 + k % 8) % 2 else (k % 8)))
BASIS = np.array(
    [
        [math.cos((2 * x + 1) * u * math.pi / 16) * (math.sqrt(0.5) if u == 0 else 1) / 2 for u in range(8)]
        for x in range(8)
    ]
)


class Bits:
    """The bits of the scan, stuffed zeros taken out."""

    def __init__(self, data: bytes) -> None:
        self.bits = "".join(f"{byte:08b}" for byte in data.replace(b"\xff\x00", b"\xff"))
        self.at = 0

    def take(self, count: int) -> int:
        self.at += count
        return int(self.bits[self.at - count : self.at] or "0", 2)

    def symbol(self, table: dict[str, int]) -> int:
        start = self.at
        while self.bits[start : self.at] not in table:
            self.at += 1
        return table[self.bits[start : self.at]]

    def signed(self, size: int) -> int:
        value = self.take(size) if size else 0
        return value if not size or value >> (size - 1) else value - (1 << size) + 1


def huffman(content: bytes) -> dict[str, int]:
    table, code, at = {}, 0, 16
    for length in range(1, 17):
        for _ in range(content[length - 1]):
            table[f"{code:0{length}b}"] = content[at]
            code, at = code + 1, at + 1
        code <<= 1
    return table


def decode(content: bytes) -> Any:
    """uint8 [H, W, 3] of a baseline JPEG with three components and no restarts."""
    quantisers: dict[int, Any] = {}
    tables: dict[int, dict[str, int]] = {}
    components: list[Any] = []
    height = width = 0
    at = 2
    while True:
        marker, length = content[at + 1], struct.unpack(">H", content[at + 2 : at + 4])[0]
        body = content[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            for start in range(0, len(body), 65):
                quantisers[body[start]] = np.frombuffer(body[start + 1 : start + 65], np.uint8)
        elif marker == 0xC0:
            height, width = struct.unpack(">HH", body[1:5])
            components = [(body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, len(body), 3)]
        elif marker == 0xC4:
            start = 0
            while start < len(body):
                size = 17 + sum(body[start + 1 : start + 17])
                tables[body[start]] = huffman(body[start + 1 : start + size])
                start += size
        elif marker == 0xDA:
            chosen = [body[i + 1] for i in range(1, 1 + 2 * body[0], 2)]
            break
    planes = _planes(Bits(content[at:-2]), height, width, components, chosen, quantisers, tables)
    y, cb, cr = (plane[:height, :width] for plane in planes)
    rgb = [y + 1.402 * (cr - 128), y - 0.344136286 * (cb - 128) - 0.714136286 * (cr - 128),
           y + 1.772 * (cb - 128)]  # fmt: skip
    return np.clip(np.floor(np.dstack(rgb) + 0.5), 0, 255).astype(np.uint8)


def _planes(
    bits: Bits, height: int, width: int, components: Any, chosen: Any, quantisers: Any, tables: Any
) -> list[Any]:
    across, down = max(c[0] for c in components), max(c[1] for c in components)
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    planes = [np.zeros((rows * 8 * v, columns * 8 * h)) for h, v, _ in components]
    last = [0] * len(components)
    for row in range(rows):
        for column in range(columns):
            for number, (h, v, quantiser) in enumerate(components):
                for i in range(v):
                    for j in range(h):
                        dc, ac = tables[chosen[number] >> 4], tables[16 + (chosen[number] & 15)]
                        values = np.zeros(64)
                        last[number] += bits.signed(bits.symbol(dc))
                        values[0] = last[number]
                        k = 1
                        while k < 64:
                            run, size = divmod(bits.symbol(ac), 16)
                            if not size and run < 15:
                                break
                            k += run
                            if k < 64:
                                values[k] = bits.signed(size)
                            k += 1
                        block = np.zeros(64)
                        block[ZIGZAG] = values * quantisers[quantiser]
                        samples = np.floor(BASIS @ block.reshape(8, 8) @ BASIS.T + 128.5)
                        top, left = 8 * (row * v + i), 8 * (column * h + j)
                        planes[number][top : top + 8, left : left + 8] = np.clip(samples, 0, 255)
    return [
        np.repeat(np.repeat(plane, down // v, axis=0), across // h, axis=1)
        for plane, (h, v, _) in zip(planes, components, strict=True)
    ]
