"""The random numbers: known answers, an independent scalar reference, and statistics."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rng_reference import CONTRACT, Case, reference

from pi_runtime import augment, rng
from pi_runtime.errors import ClueError

KAT = json.loads((CONTRACT / "rng_kat.json").read_text())


# --- the known answers


def bits32(values: np.ndarray) -> list[str]:
    return [f"{v:08x}" for v in values.astype(np.float32, casting="no").reshape(-1).view(np.uint32).tolist()]


def bits64(values: np.ndarray) -> str:
    return f"{int(values.astype(np.float64, casting='no').view(np.uint64)[0]):016x}"


def package(kind: str, case: Case) -> Case:
    """The package's answers to a case in the member `kind` of the file."""
    seed, epoch = int(case.get("seed", "0"), 16), case.get("epoch", 0)
    where = seed, case.get("stream", 0), epoch, case.get("positions", [])
    shape, offset = case.get("shape", []), case.get("block_offset", 0)
    if kind == "philox":
        counter, key = ([int(w, 16) for w in case[name]] for name in ("counter", "key"))
        return {"words": [f"{w:08x}" for w in rng.philox4x32(counter, (key[0], key[1])).tolist()]}
    if kind == "words":
        return {"words": [f"{w:08x}" for w in rng.words(*where, case["count"], offset).reshape(-1).tolist()]}
    if kind == "uniform":
        return {"bits": bits32(rng.uniform(*where, shape, case["low"], case["high"], offset))}
    if kind == "integers":
        return {"values": rng.integers(*where, shape, case["n"], offset).reshape(-1).tolist()}
    if kind == "neg_log":
        return {"bits": bits64(rng.neg_log(np.array([case["k"]])))}
    if kind == "cos_sin":
        cosine, sine = rng.cos_sin(np.array([case["k"]]))
        return {"cos": bits64(cosine), "sin": bits64(sine)}
    if kind == "normal":
        return {"bits": bits32(rng.normal(*where, shape, offset))}
    if kind == "normal_sha256":
        values = rng.normal(*where, shape, offset).astype("<f4")
        return {"sha256": hashlib.sha256(values.tobytes()).hexdigest()}
    if kind == "permutation":
        return {"values": rng.permutation(seed, epoch, case["n"]).tolist()}
    if kind == "augmentation":
        dy, dx, flip = rng.augmentation(seed, epoch, case["positions"], case["pad"])
        return {"dy": dy.tolist(), "dx": dx.tolist(), "flip": flip.tolist()}
    assert kind == "crop_flip"
    images = np.array(case["input"], dtype=np.uint8).reshape(shape)
    shifts = np.array(case["dy"]), np.array(case["dx"]), np.array(case["flip"])
    return {"output": augment.crop_flip(images, *shifts, case["pad"]).reshape(-1).tolist()}


CASES = [
    pytest.param(kind, case, id=f"{kind}-{i}")
    for kind, cases in KAT.items()
    if kind != "version"
    for i, case in enumerate(cases)
]


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_known_answers(kind: str, case: Case) -> None:
    expected = reference(kind, case)
    assert expected.items() <= case.items(), "the scalar reference differs from the file"
    assert package(kind, case) == expected


def test_published_philox_vectors() -> None:
    """The answers that Random123 publishes (file kat_vectors), typed here independently of the file."""
    published = [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ]
    assert [(c["counter"], c["key"], c["words"]) for c in KAT["philox"][:3]] == [
        tuple(text.split() for text in vector) for vector in published
    ]


# --- the package against the reference, anywhere

u32 = st.integers(0, 2**32 - 1)
seeds = st.integers(0, 2**64 - 1)


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    u32,
    u32,
    st.lists(u32, max_size=4),
    st.lists(st.integers(0, 4), max_size=3),
    st.integers(0, 2**32 - 16),
)
def test_draws_equal_the_reference(
    seed: int, stream: int, epoch: int, positions: list[int], shape: list[int], block_offset: int
) -> None:
    case = {
        "seed": f"{seed:016x}",
        "stream": stream,
        "epoch": epoch,
        "positions": positions,
        "shape": shape,
        "block_offset": block_offset,
    }
    if positions and math.prod(shape):
        assert package("normal", case) == reference("normal", case)
        for extra in ({"low": -1.5, "high": 0.1}, {"low": 0.5, "high": 1.0}):
            assert package("uniform", case | extra) == reference("uniform", case | extra)
        for n in (1, 7, 2**32):
            assert package("integers", case | {"n": n}) == reference("integers", case | {"n": n})
    drawn = rng.normal(seed, stream, epoch, positions, shape, block_offset)
    assert drawn.shape == (len(positions), *shape)
    assert drawn.dtype == np.float32


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2**32))
def test_log_and_cos_sin_equal_the_reference(k: int) -> None:
    assert package("neg_log", {"k": k}) == reference("neg_log", {"k": k})
    assert package("cos_sin", {"k": k}) == reference("cos_sin", {"k": k})


@pytest.mark.parametrize("blocks", [rng._TILE - 1, rng._TILE, 2 * rng._TILE + 1])
def test_tiles_do_not_show(blocks: int) -> None:
    """A sample larger than a tile, and a batch larger than one, give what small draws give."""
    size = 4 * blocks - 3
    whole = rng.normal(5, 16, 2, [9, 4], (size,))
    last = blocks - 1
    assert np.array_equal(whole[:, 4 * last :], rng.normal(5, 16, 2, [9, 4], (1,), last))
    middle = blocks // 2
    assert np.array_equal(whole[:, 4 * middle : 4 * middle + 4], rng.normal(5, 16, 2, [9, 4], (4,), middle))
    many = rng.normal(5, 16, 2, np.arange(blocks), (2,))
    assert np.array_equal(many[[0, 4, last]], rng.normal(5, 16, 2, [0, 4, last], (2,)))


def test_draws_depend_on_the_position_alone() -> None:
    one = rng.normal(1, 16, 0, [0, 1, 2, 1], (3, 4))
    assert np.array_equal(one[1], one[3])
    assert np.array_equal(one[::-1], rng.normal(1, 16, 0, [1, 2, 1, 0], (3, 4)))


def test_position_types() -> None:
    expected = rng.words(1, 16, 0, [3, 1], 2)
    for dtype in (np.int32, np.int64, np.uint8, np.uint64):
        assert np.array_equal(rng.words(1, 16, 0, np.array([3, 1], dtype), 2), expected)
    assert rng.normal(1, 16, 0, [], (2,)).shape == (0, 2)
    assert rng.normal(1, 16, 0, [1, 2], ()).shape == (2,)


# --- accuracy and statistics; the seeds are fixed, so these cannot fail by chance


def test_accuracy_against_the_library() -> None:
    k = np.concatenate(
        [
            np.arange(1, 4000),
            2**32 - np.arange(0, 4000),
            rng.integers(3, 16, 0, [0], (200_000,), 2**32)[0] + 1,
        ]
    )
    u = k * 2.0**-32
    ours, library = rng.neg_log(k), -np.log(u)
    assert ours[k == 2**32].tolist() == [0.0] * int((k == 2**32).sum())
    inside = k < 2**32
    assert np.max(np.abs(ours - library)[inside] / library[inside]) < 1e-15
    cosine, sine = rng.cos_sin(k)
    assert np.max(np.abs(cosine - np.cos(2 * np.pi * u))) < 1.5e-15
    assert np.max(np.abs(sine - np.sin(2 * np.pi * u))) < 1.5e-15
    assert np.max(np.abs(cosine * cosine + sine * sine - 1)) < 1e-15


def test_normal_statistics() -> None:
    drawn = rng.normal(20, 16, 1, np.arange(40), (3, 16, 16)).astype(np.float64)
    n = drawn.size
    assert abs(drawn.mean()) < 4 / math.sqrt(n)
    assert abs(drawn.std() - 1) < 4 / math.sqrt(2 * n)
    assert abs(np.mean(drawn**3)) < 4 * math.sqrt(15 / n)
    assert abs(np.mean(drawn**4) - 3) < 4 * math.sqrt(96 / n)
    # Kolmogorov-Smirnov at a significance of 0.1 %.
    exact = np.array([NormalDist().cdf(v) for v in np.sort(drawn.reshape(-1)).tolist()])
    steps = np.arange(n + 1) / n
    assert max(np.max(steps[1:] - exact), np.max(exact - steps[:-1])) < 1.95 / math.sqrt(n)
    # Neighbours come from one block, or from one position and the next: neither may show.
    flat = drawn.reshape(40, -1)
    for left, right in ((flat[:, :-1], flat[:, 1:]), (flat[:, :-2], flat[:, 2:]), (flat[:-1], flat[1:])):
        assert abs(np.mean(left * right)) < 4 / math.sqrt(left.size)


def test_streams_epochs_and_seeds_are_unrelated() -> None:
    base = rng.normal(7, 16, 0, np.arange(20), (500,))
    others = [
        rng.normal(7, 17, 0, np.arange(20), (500,)),
        rng.normal(7, 16, 1, np.arange(20), (500,)),
        rng.normal(8, 16, 0, np.arange(20), (500,)),
        rng.normal(7 + 2**32, 16, 0, np.arange(20), (500,)),
    ]
    for other in others:
        assert abs(np.mean(base * other)) < 4 / math.sqrt(base.size)


def test_uniform_statistics() -> None:
    drawn = rng.uniform(4, 16, 0, np.arange(20_000), (), 0.5, 1.0)
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0.5
    assert drawn.max() <= 1.0
    counts, _ = np.histogram(drawn, bins=20, range=(0.5, 1.0))
    assert np.sum((counts - 1000) ** 2 / 1000) < 43.8  # chi-square with 19 degrees of freedom at 0.1 %


def test_uniform_of_equal_bounds() -> None:
    assert np.array_equal(rng.uniform(4, 16, 0, [1], (5,), 0.3, 0.3), np.full((1, 5), 0.3, np.float32))


def test_permutation_is_uniform() -> None:
    orders = [tuple(rng.permutation(11, epoch, 4).tolist()) for epoch in range(4800)]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 4800
    assert sum((c - 200) ** 2 / 200 for c in counts) < 49.7  # 23 degrees of freedom at 0.1 %


def test_augmentation_statistics() -> None:
    dy, dx, flip = rng.augmentation(2, 0, np.arange(18_000))
    for shift in (dy, dx):
        counts = np.bincount(shift, minlength=9)
        assert len(counts) == 9
        assert np.sum((counts - 2000) ** 2 / 2000) < 26.1  # 8 degrees of freedom at 0.1 %
    assert abs(flip.mean() - 0.5) < 2 / math.sqrt(len(flip))
    assert flip.dtype == np.bool_
    assert [a.tolist() for a in rng.augmentation(2, 0, [5], pad=0)[:2]] == [[0], [0]]


# --- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be a whole number from 0 to 18446744073709551615"),
        ({"seed": 2**64}, "seed must be"),
        ({"seed": 1.0}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"stream": 2**32}, "stream must be"),
        ({"epoch": -1}, "epoch must be"),
        ({"positions": [-1]}, "positions must be from 0 to 4294967295"),
        ({"positions": [2**32]}, "positions must be from 0"),
        ({"positions": [[1]]}, "positions must be a one-dimensional array"),
        ({"positions": [0.5]}, "positions must be a one-dimensional array of whole numbers"),
        ({"positions": [True]}, "positions must be a one-dimensional array of whole numbers"),
        ({"shape": (-1,)}, "a size in shape must be"),
        ({"shape": (2.5,)}, "a size in shape must be"),
        ({"block_offset": -1}, "block_offset must be"),
        ({"shape": (5,), "block_offset": 2**32 - 1}, "2\\^32 blocks"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"seed": 1, "stream": 16, "epoch": 0, "positions": [0], "shape": (4,)}
    rng.normal(**good)
    with pytest.raises(ClueError, match=message):
        rng.normal(**(good | change))


def test_bad_bounds_and_counts() -> None:
    for low, high in ((1.0, 0.0), (math.nan, 1.0), (0.0, math.inf), (0.0, 1e39)):
        with pytest.raises(ClueError, match="finite bounds with low <= high"):
            rng.uniform(1, 16, 0, [0], (1,), low, high)
    for n in (0, 2**32 + 1):
        with pytest.raises(ClueError, match="n must be a whole number from 1"):
            rng.integers(1, 16, 0, [0], (1,), n)
    with pytest.raises(ClueError, match="n must be a whole number from 1"):
        rng.permutation(1, 0, 0)
    with pytest.raises(ClueError, match="pad must be a whole number from 0"):
        rng.augmentation(1, 0, [0], pad=-1)


def test_bad_philox_arguments() -> None:
    for counter in ([1, 2, 3], [0.0] * 4, 5):
        with pytest.raises(ClueError, match="whose last axis has 4 words"):
            rng.philox4x32(counter, (0, 0))
    with pytest.raises(ClueError, match="must fit 32 bits"):
        rng.philox4x32([0, 0, 0, 2**32], (0, 0))
    with pytest.raises(ClueError, match=r"key\[1\] must be"):
        rng.philox4x32([0, 0, 0, 0], (0, -1))
