"""A scalar reference for contract/rng.md in Python integers and floats (IEEE doubles) only.

It also writes the answers in contract/rng_kat.json: add a case there, then run this file with --fill. Answers
that are already in the file never change without a new version of the contract, because devices in use draw
by them; --fill refuses to.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

CONTRACT = Path(__file__).parents[2] / "contract"
Case = dict[str, Any]


def coefficients(name: str) -> list[float]:
    """Read from the table of the contract, so that a typing error there shows; both columns must agree."""
    found = []
    for line in (CONTRACT / "rng.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and (cells[1] == name or cells[1].startswith(f"{name}[")):
            found.append(float.fromhex(cells[2]))
            assert double_bits(found[-1]) == cells[3], line
    return found


def double_bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def float_bits(value: float) -> str:
    return struct.pack(">f", value).hex()


LN2 = coefficients("LN2")[0]
LOG, SIN, COS = (coefficients(name) for name in ("LOG", "SIN", "COS"))


def ref_philox(counter: list[int], key: list[int]) -> list[int]:
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def ref_words(seed: int, stream: int, epoch: int, position: int, count: int, offset: int = 0) -> list[int]:
    key = [seed % 2**32, seed >> 32]
    blocks = range(offset, offset + (count + 3) // 4)
    drawn = [word for block in blocks for word in ref_philox([block, position, epoch, stream], key)]
    return drawn[:count]


def ref_horner(a: list[float], z: float) -> float:
    t = a[-1]
    for coefficient in reversed(a[:-1]):
        t = t * z
        t = t + coefficient
    return t


def ref_neg_log(k: int) -> float:
    d = struct.unpack(">Q", struct.pack(">d", float(k)))[0] - 0x3FE6A09E00000000
    e = d >> 52
    m = struct.unpack(">d", struct.pack(">Q", (d & (2**52 - 1)) + 0x3FE6A09E00000000))[0]
    assert k == m * 2.0**e
    s = (m - 1.0) / (m + 1.0)
    p = ref_horner(LOG, s * s) * s
    return float(32 - e) * LN2 - p


def ref_cos_sin(k: int) -> tuple[float, float]:
    q = (k + 2**29) // 2**30
    y = float(k - q * 2**30) * 2.0**-30
    c = ref_horner(COS, y * y)
    s = ref_horner(SIN, y * y) * y
    return ((c, s), (-s, c), (-c, -s), (s, -c))[q % 4]


def ref_normal(words: list[int]) -> list[float]:
    out = []
    for w, v in zip(words[0::2], words[1::2], strict=True):
        r = math.sqrt(2.0 * ref_neg_log(w + 1))
        c, s = ref_cos_sin(v + 1)
        out += [r * c, r * s]
    return out


def ref_permutation(seed: int, epoch: int, n: int) -> list[int]:
    a = list(range(n))
    for t, w in enumerate(ref_words(seed, 1, epoch, 0, n - 1)):
        i = n - 1 - t
        j = (w * (i + 1)) >> 32
        a[i], a[j] = a[j], a[i]
    return a


def ref_crop_flip(case: Case) -> list[int]:
    (_, height, width, channels), pad = case["shape"], case["pad"]
    out = []
    for b, i, j, c in itertools.product(*(range(size) for size in case["shape"])):
        column = width - 1 - j if case["flip"][b] else j
        y, x = i + case["dy"][b] - pad, column + case["dx"][b] - pad
        inside = 0 <= y < height and 0 <= x < width
        out.append(case["input"][((b * height + y) * width + x) * channels + c] if inside else 0)
    return out


def drawn_words(case: Case, count: int) -> list[int]:
    """`count` words of every sample of a case, one after the other; whole blocks if count is 0."""
    size = count or -(-math.prod(case["shape"]) // 4) * 4
    where = int(case["seed"], 16), case["stream"], case["epoch"]
    return [w for p in case["positions"] for w in ref_words(*where, p, size, case.get("block_offset", 0))]


def ref_normal_draw(case: Case) -> list[float]:
    size, values = math.prod(case["shape"]), ref_normal(drawn_words(case, 0))
    per = len(values) // len(case["positions"])
    return [v for b in range(len(case["positions"])) for v in values[b * per : b * per + size]]


def reference(kind: str, case: Case) -> Case:
    """The answers of a case in the member `kind` of the file."""
    if kind == "philox":
        counter, key = ([int(w, 16) for w in case[name]] for name in ("counter", "key"))
        return {"words": [f"{w:08x}" for w in ref_philox(counter, key)]}
    if kind == "words":
        return {"words": [f"{w:08x}" for w in drawn_words(case, case["count"])]}
    if kind == "uniform":
        low, high = case["low"], case["high"]
        drawn = drawn_words(case, math.prod(case["shape"]))
        return {"bits": [float_bits(low + (high - low) * ((w + 1) * 2.0**-32)) for w in drawn]}
    if kind == "integers":
        return {"values": [(w * case["n"]) >> 32 for w in drawn_words(case, math.prod(case["shape"]))]}
    if kind == "neg_log":
        return {"bits": double_bits(ref_neg_log(case["k"]))}
    if kind == "cos_sin":
        cosine, sine = ref_cos_sin(case["k"])
        return {"cos": double_bits(cosine), "sin": double_bits(sine)}
    if kind == "normal":
        return {"bits": [float_bits(v) for v in ref_normal_draw(case)]}
    if kind == "normal_sha256":
        values = ref_normal_draw(case)
        return {"sha256": hashlib.sha256(struct.pack(f"<{len(values)}f", *values)).hexdigest()}
    if kind == "permutation":
        return {"values": ref_permutation(int(case["seed"], 16), case["epoch"], case["n"])}
    if kind == "augmentation":
        drawn = [ref_words(int(case["seed"], 16), 2, case["epoch"], p, 3) for p in case["positions"]]
        span = 2 * case["pad"] + 1
        return {
            "dy": [(w[0] * span) >> 32 for w in drawn],
            "dx": [(w[1] * span) >> 32 for w in drawn],
            "flip": [w[2] >> 31 == 1 for w in drawn],
        }
    assert kind == "crop_flip"
    return {"output": ref_crop_flip(case)}


def fill() -> None:
    """Write the answers that are missing into contract/rng_kat.json, one case a line."""
    file = CONTRACT / "rng_kat.json"
    known = json.loads(file.read_text())
    lines = [f'  "version": {known.pop("version")}']
    for kind, cases in known.items():
        rows = []
        for case in cases:
            answers = reference(kind, case)
            if any(case.get(name, answer) != answer for name, answer in answers.items()):
                sys.exit(
                    f"{kind}: {json.dumps(case)} has other answers than the reference; nothing was written"
                )
            rows.append(f"    {json.dumps(case | answers)}")
        lines.append(f'  "{kind}": [\n' + ",\n".join(rows) + "\n  ]")
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--fill"]:
        sys.exit("usage: rng_reference.py --fill")
    fill()
