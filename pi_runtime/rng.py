"""Counter-based random numbers that Python, Kotlin and Swift draw with the same bits.

The contract is contract/rng.md; the known answers that every implementation must give are in
contract/rng_kat.json. Any number is found from (seed, stream, epoch, position, block) alone, so a resumed
request needs no generator state and the order of the draws does not matter.

Philox 4x32-10 is from Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pi_runtime.errors import ClueError

Int64: TypeAlias = npt.NDArray[np.int64]
Float64: TypeAlias = npt.NDArray[np.float64]
UInt64: TypeAlias = npt.NDArray[np.uint64]
Positions: TypeAlias = npt.NDArray[np.integer] | Sequence[int]

STREAM_SHUFFLE: Final = 1
STREAM_AUGMENT: Final = 2
STREAM_PROBES: Final = 3
STREAM_HOLDOUT: Final = 4
STREAM_METHOD: Final = 16  # the first number that a method's named streams may have

_U32: Final = 0xFFFFFFFF
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10

_LN2: Final = float.fromhex("0x1.62e42fefa39efp-1")
_SQRT_HALF_BITS: Final = 0x3FE6A09E00000000  # the bits of sqrt(1/2), low word cut off
_MANTISSA: Final = 0x000FFFFFFFFFFFFF


def _doubles(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


# Near-minimax polynomials, lowest power first: Chebyshev interpolation in 60 digits, rounded to double.
_LOG: Final = _doubles(
    "0x1p+1 0x1.5555555555558p-1 0x1.99999999952e1p-2 0x1.2492492df1681p-2 "
    "0x1.c71c62e558272p-3 0x1.7462b4b689086p-3 0x1.39fe5eebedfa5p-3 0x1.2b585ce66ecd3p-3"
)
_SIN: Final = _doubles(
    "0x1.921fb54442d18p+0 -0x1.4abbce625be41p-1 0x1.466bc677587f8p-4 -0x1.32d2cce2e5b19p-8 "
    "0x1.50782fda12d96p-13 -0x1.e30071afc3e59p-19 0x1.e3f38399551bfp-25"
)
_COS: Final = _doubles(
    "0x1p+0 -0x1.3bd3cc9be45dep+0 0x1.03c1f081b5ac0p-2 -0x1.55d3c7e3cb241p-6 "
    "0x1.e1f5068688d5bp-11 -0x1.a6d1eef479be1p-16 0x1.f9ce245cada0bp-22 -0x1.b2f3eb054afcdp-28"
)

# Blocks worked on at once. One float64 temporary of two planes is then 128 KiB, all of them about 1 MiB:
# small enough for a core's caches, large enough that the cost of a numpy call does not show.
_TILE: Final = 8192


def philox4x32(counter: npt.ArrayLike, key: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Ten rounds of Philox 4x32.

    `counter` is [..., 4] of 32-bit words, `key` two 32-bit words. Returns uint32 [..., 4]. Raises ClueError
    for a word outside 32 bits.
    """
    raw = np.asarray(counter)
    if raw.ndim == 0 or raw.shape[-1] != 4 or raw.dtype.kind not in "iu":
        raise ClueError("a Philox counter must be an array of whole numbers whose last axis has 4 words.")
    if raw.size and (int(raw.min()) < 0 or int(raw.max()) > _U32):
        raise ClueError("the words of a Philox counter must fit 32 bits.")
    words = raw.astype(np.uint64)
    pair = (_whole("key[0]", key[0], 0, _U32), _whole("key[1]", key[1], 0, _U32))
    even, odd = _philox((words[..., 0], words[..., 1], words[..., 2], words[..., 3]), pair)
    return np.stack((even[0], odd[0], even[1], odd[1]), axis=-1).astype(np.uint32)


def words(
    seed: int, stream: int, epoch: int, positions: Positions, count: int, block_offset: int = 0
) -> npt.NDArray[np.uint32]:
    """The first `count` raw words of each sample, uint32 [B, count]. Arguments and errors as for `normal`."""

    def convert(even: UInt64, odd: UInt64, out: npt.NDArray[Any]) -> None:
        out[..., 0::2] = np.moveaxis(even, 0, -1)
        out[..., 1::2] = np.moveaxis(odd, 0, -1)

    return _draw(seed, stream, epoch, positions, (count,), block_offset, np.dtype(np.uint32), convert)


def normal(
    seed: int,
    stream: int,
    epoch: int,
    positions: Positions,
    shape: Sequence[int],
    block_offset: int = 0,
) -> npt.NDArray[np.float32]:
    """Standard normal numbers, float32 [B, *shape].

    Sample b uses position `positions[b]` (int [B], each in 0 .. 2^32 - 1; repeats give equal numbers) and the
    blocks from `block_offset` on; element e of its row-major shape comes from block e // 4. No value is
    larger than 6.67 in size. Raises ClueError if an argument is out of range (contract/rng.md, section 2).
    """

    def convert(even: UInt64, odd: UInt64, out: npt.NDArray[Any]) -> None:
        even += np.uint64(1)
        odd += np.uint64(1)
        radius = neg_log(even.view(np.int64))
        radius *= 2.0
        np.sqrt(radius, out=radius)
        cosine, sine = cos_sin(odd.view(np.int64))
        cosine *= radius
        sine *= radius
        out[..., 0::2] = np.moveaxis(cosine, 0, -1)
        out[..., 1::2] = np.moveaxis(sine, 0, -1)

    return _draw(seed, stream, epoch, positions, shape, block_offset, np.dtype(np.float32), convert)


def uniform(
    seed: int,
    stream: int,
    epoch: int,
    positions: Positions,
    shape: Sequence[int],
    low: float,
    high: float,
    block_offset: int = 0,
) -> npt.NDArray[np.float32]:
    """Uniform numbers in (low, high], rounded to float32 (so a value may equal low), float32 [B, *shape].

    Element e uses word e % 4 of block `block_offset` + e // 4. Raises ClueError if low > high, if one of them
    is no finite float32, or if another argument is out of its range.
    """
    low, high = float(low), float(high)
    limit = float(np.finfo(np.float32).max)
    if not (-limit <= low <= high <= limit):
        raise ClueError(
            f"a uniform draw needs finite bounds with low <= high, but they are {low} and {high}."
        )
    width = high - low

    def convert(even: UInt64, odd: UInt64, out: npt.NDArray[Any]) -> None:
        for first, plane in ((0, even), (1, odd)):
            plane += np.uint64(1)
            value = plane.view(np.int64).astype(np.float64)
            value *= 2.0**-32
            value *= width
            value += low
            out[..., first::2] = np.moveaxis(value, 0, -1)

    return _draw(seed, stream, epoch, positions, shape, block_offset, np.dtype(np.float32), convert)


def integers(
    seed: int,
    stream: int,
    epoch: int,
    positions: Positions,
    shape: Sequence[int],
    n: int,
    block_offset: int = 0,
) -> Int64:
    """Whole numbers in 0 .. n - 1, int64 [B, *shape]; 1 <= n <= 2^32.

    Element e is (word * n) >> 32 of its word (Lemire, "Fast random integer generation in an interval", 2019,
    without the rejection): the probability of a value differs from 1 / n by less than n / 2^32 of it. Raises
    ClueError as `normal` does.
    """
    factor = np.uint64(_whole("n", n, 1, _U32 + 1))

    def convert(even: UInt64, odd: UInt64, out: npt.NDArray[Any]) -> None:
        for first, plane in ((0, even), (1, odd)):
            plane *= factor
            plane >>= np.uint64(32)
            out[..., first::2] = np.moveaxis(plane, 0, -1)

    return _draw(seed, stream, epoch, positions, shape, block_offset, np.dtype(np.int64), convert)


def permutation(seed: int, epoch: int, n: int, stream: int = STREAM_SHUFFLE) -> Int64:
    """The order in which an epoch visits its n samples: a Fisher-Yates shuffle of 0 .. n - 1, int64 [n].

    Step t = 0, 1, ... swaps place i = n - 1 - t with place (word * (i + 1)) >> 32, where word is number t of
    the stream ("order" unless another is given) at position 0. Raises ClueError if n is not in
    1 .. 2^32 - 1, or if seed or epoch is out of range.
    """
    n = _whole("n", n, 1, _U32)
    drawn = words(seed, stream, epoch, [0], n - 1)[0].astype(np.uint64)
    last = np.arange(n - 1, 0, -1, dtype=np.uint64)
    partners = (drawn * (last + np.uint64(1))) >> np.uint64(32)
    order = list(range(n))
    for i, j in zip(last.tolist(), partners.tolist(), strict=True):
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def augmentation(
    seed: int, epoch: int, positions: Positions, pad: int = 4
) -> tuple[Int64, Int64, npt.NDArray[np.bool_]]:
    """The crop and the flip of each sample in an epoch: (dy, dx, flip), each [B].

    dy and dx are the top and left edge of the crop in the image padded by `pad` pixels, 0 .. 2 * pad. They
    come from words 0 and 1 of block 0 of stream 2, the flip from the top bit of word 2. Raises ClueError as
    `normal` does, and if pad is not in 0 .. 2^31 - 1.
    """
    span = np.uint64(2 * _whole("pad", pad, 0, 2**31 - 1) + 1)
    drawn = words(seed, STREAM_AUGMENT, epoch, positions, 3).astype(np.uint64)
    shift = ((drawn[:, :2] * span) >> np.uint64(32)).astype(np.int64)
    return shift[:, 0].copy(), shift[:, 1].copy(), drawn[:, 2] >= np.uint64(2**31)


def neg_log(k: Int64) -> Float64:
    """-ln(k / 2^32) in float64 for whole k in 1 .. 2^32, by the steps of contract/rng.md, section 5."""
    bits = k.astype(np.float64).view(np.int64)
    bits -= _SQRT_HALF_BITS
    exponent = bits >> 52
    bits &= _MANTISSA
    bits += _SQRT_HALF_BITS
    s = bits.view(np.float64)
    scratch = s + 1.0
    s -= 1.0
    s /= scratch
    np.multiply(s, s, out=scratch)
    tail = _horner(_LOG, scratch)
    tail *= s
    result = (32 - exponent).astype(np.float64)
    result *= _LN2
    result -= tail
    return result


def cos_sin(k: Int64) -> tuple[Float64, Float64]:
    """cos and sin of 2 pi k / 2^32 in float64 for whole k in 1 .. 2^32 (contract/rng.md, section 6)."""
    shifted = k + 2**29
    quarter = shifted >> 30
    shifted &= 2**30 - 1
    shifted -= 2**29
    y = shifted.astype(np.float64)
    y *= 2.0**-30
    z = y * y
    cosine = _horner(_COS, z)
    sine = _horner(_SIN, z)
    sine *= y
    # An odd quarter swaps the two, quarters 1 and 2 negate the cosine, 2 and 3 the sine. Bit operations do so
    # without a branch or a masked copy, and exactly as a negation would: they only move bits and flip signs.
    cos_bits, sin_bits = cosine.view(np.int64), sine.view(np.int64)
    swap = -(quarter & 1)
    swap &= cos_bits ^ sin_bits
    cos_bits ^= swap
    sin_bits ^= swap
    sin_bits ^= (quarter & 2) << 62
    quarter += 1
    quarter &= 2
    quarter <<= 62
    cos_bits ^= quarter
    return cosine, sine


def _horner(coefficients: Sequence[float], z: Float64) -> Float64:
    """The polynomial in z (lowest power first) by a rounded product and a rounded sum a step."""
    result = z * coefficients[-1]
    result += coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        result *= z
        result += coefficient
    return result


def _philox(
    counter: tuple[npt.NDArray[np.uint64] | np.uint64, ...], key: tuple[int, int]
) -> tuple[UInt64, UInt64]:
    """Philox of four counter words that broadcast; returns the words (0, 2) and (1, 3), each [2, *shape]."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    m0, m1 = (np.uint64(m) for m in _MULTIPLIERS)
    half, low = np.uint64(32), np.uint64(_U32)
    # In the first two rounds most words depend on the block or on the position only: left unbroadcast, they
    # cost next to nothing.
    for _ in range(2):
        p0, p1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (
            (p1 >> half) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> half) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + _WEYL[0]) & _U32, (k1 + _WEYL[1]) & _U32
    shape = np.broadcast_shapes(*(np.shape(c) for c in (c0, c1, c2, c3)))
    even, odd, product = (np.empty((2, *shape), np.uint64) for _ in range(3))
    even[0], even[1], odd[0], odd[1] = c0, c2, c1, c3
    swapped = product[::-1]  # word 0 takes the product of word 2, and the other way round
    column = (2,) + (1,) * len(shape)
    multipliers = np.array(_MULTIPLIERS, np.uint64).reshape(column)
    for _ in range(_ROUNDS - 2):
        np.multiply(even, multipliers, out=product)
        np.right_shift(swapped, half, out=even)
        even ^= odd
        even ^= np.array((k0, k1), np.uint64).reshape(column)
        np.bitwise_and(swapped, low, out=odd)
        k0, k1 = (k0 + _WEYL[0]) & _U32, (k1 + _WEYL[1]) & _U32
    return even, odd


def _draw(
    seed: int,
    stream: int,
    epoch: int,
    positions: Positions,
    shape: Sequence[int],
    block_offset: int,
    dtype: np.dtype[Any],
    convert: Callable[[UInt64, UInt64, npt.NDArray[Any]], None],
) -> npt.NDArray[Any]:
    """Check the arguments, then fill [B, *shape] tile by tile.

    `convert` gets the words (0, 2) and (1, 3) of R x N blocks, uint64 [2, R, N] each, which it may overwrite,
    and writes an array [R, N, 4] of `dtype`.
    """
    seed = _whole("seed", seed, 0, 2**64 - 1)
    stream = _whole("stream", stream, 0, _U32)
    epoch = _whole("epoch", epoch, 0, _U32)
    where = _positions(positions)
    sizes = tuple(_whole("a size in shape", size, 0, 2**34) for size in shape)
    count = math.prod(sizes)
    blocks = -(-count // 4)
    start = _whole("block_offset", block_offset, 0, _U32)
    if start + blocks > _U32 + 1:
        raise ClueError(f"a sample has 2^32 blocks of 4 numbers, too few for {count} from block {start}.")
    out = np.empty((len(where), count), dtype)
    key = (seed & _U32, seed >> 32)
    for rows, columns in _tiles(len(where), blocks):
        block = np.arange(start + columns.start, start + columns.stop, dtype=np.uint64)
        even, odd = _philox((block, where[rows, None], np.uint64(epoch), np.uint64(stream)), key)
        part = np.empty((*even.shape[1:], 4), dtype)
        convert(even, odd, part)
        target = out[rows, 4 * columns.start : 4 * columns.stop]
        target[:] = part.reshape(len(part), -1)[:, : target.shape[1]]
    return out.reshape((len(where), *sizes))


def _tiles(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Cut rows x columns into rectangles of at most _TILE blocks, whole rows where they fit."""
    width = min(max(columns, 1), _TILE)
    height = max(1, _TILE // width)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))


def _positions(positions: Positions) -> UInt64:
    given = np.asarray(positions)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ClueError("positions must be a one-dimensional array of whole numbers.")
    if given.size and (int(given.min()) < 0 or int(given.max()) > _U32):
        raise ClueError(
            f"positions must be from 0 to {_U32}, but they go from {given.min()} to {given.max()}."
        )
    return given.astype(np.uint64)


def _whole(name: str, value: int, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool | np.bool_) or not low <= number <= high:
        raise ClueError(f"{name} must be a whole number from {low} to {high}, but it is {value!r}.")
    return number
