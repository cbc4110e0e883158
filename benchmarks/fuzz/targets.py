"""What is fuzzed: for each reader, files to start from and the call that may only raise ClueError."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from mutations import mutated, mutated_json
from PIL import Image

from pi_runtime import trust
from pi_runtime.bundle import Bundle
from pi_runtime.images import archive, decode
from pi_runtime.images.resize import fit
from pi_runtime.weights import WeightsFile, write


@dataclass(frozen=True)
class Target:
    """`inputs` draws a file's content, `read` reads it as the runtime does."""

    inputs: st.SearchStrategy[bytes]
    read: Callable[[bytes], object]


def manifest(bundle: Path, folder: Path) -> Target:
    """Whole bundles opened (without the hashes of the files), their manifest changed and hashed anew."""
    del folder
    place = bundle / "manifest.json"
    seed = place.read_bytes()
    compact = json.dumps(json.loads(seed)).encode()

    def read(content: bytes) -> None:
        place.write_bytes(content)
        (bundle / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest())
        Bundle.open(bundle, verify=False)

    return Target(st.one_of(mutated_json(json.loads(seed)), mutated([seed, compact])), read)


def safetensors(bundle: Path, folder: Path) -> Target:
    """Weights files; every array of one with a sound header is read."""
    place = folder / "a.safetensors"
    write(place, {"params": np.arange(60, dtype=np.float32), "frozen": np.ones((2, 3), np.float32)})
    seeds = [place.read_bytes(), (bundle / "weights.safetensors").read_bytes()]
    seeds += [(bundle / "golden" / "step.safetensors").read_bytes()]
    length = int.from_bytes(seeds[0][:8], "little")
    header, data = json.loads(seeds[0][8 : 8 + length]), seeds[0][8 + length :]

    def framed(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + data

    def read(content: bytes) -> None:
        place.write_bytes(content)
        arrays = WeightsFile(place)
        for name in arrays:
            arrays.shape(name)
            arrays[name].sum()

    return Target(st.one_of(mutated(seeds), mutated_json(header).map(framed)), read)


def _pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 4), np.uint8)
    grey16 = np.random.default_rng(1).integers(0, 65_536, (5, 7), np.uint16)
    rgb, rgba = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "PNG", {"exif": exif}), (rgba, "PNG", {}), (rgb.quantize(16), "PNG", {"transparency": 3}),
        (Image.fromarray(grey16), "PNG", {}), (rgb.convert("1"), "PNG", {}), (rgba.convert("LA"), "PNG", {}),
        (rgb, "JPEG", {"exif": exif}), (rgb, "JPEG", {"progressive": True, "subsampling": 2}),
        (rgb.convert("CMYK"), "JPEG", {}), (rgb.convert("L"), "JPEG", {"quality": 20}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}), (rgb, "BMP", {}),
        (rgb.convert("L"), "BMP", {}), (rgb, "WEBP", {"lossless": True, "exif": exif}), (rgba, "WEBP", {}),
        (rgb, "TIFF", {"exif": exif}), (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgba, "TIFF", {"compression": "tiff_deflate"}),
        (rgb, "TIFF", {"compression": "jpeg"}), (Image.fromarray(grey16), "TIFF", {}),
        (rgb, "PPM", {}), (rgb.convert("L"), "PPM", {}),
    ]  # fmt: skip
    found = []
    for image, format_, options in made:
        stream = io.BytesIO()
        image.save(stream, format_, **options)
        found.append(stream.getvalue())
    return found


def image(bundle: Path, folder: Path) -> Target:
    """Image files of all formats, decoded (up to a million pixels) and resized."""
    del bundle, folder

    def read(content: bytes) -> None:
        for color in ("RGB", "L"):
            fit(decode.decode(io.BytesIO(content), "it", color, 1_000_000), 8, 8)

    return Target(mutated(_pictures()), read)


def npz(bundle: Path, folder: Path) -> Target:
    """Archives of images and labels."""
    del bundle
    place = folder / "a.npz"
    seeds = []
    for pack in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        pack(stream, x=np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), y=np.array([0, 1]))
        seeds.append(stream.getvalue())
    with zipfile.ZipFile(io.BytesIO(seeds[0])) as opened:
        x, y = opened.read("x.npy"), opened.read("y.npy")

    def packed(content: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as made:
            made.writestr("x.npy", content)
            made.writestr("y.npy", y)
        return stream.getvalue()

    def read(content: bytes) -> None:
        place.write_bytes(content)
        for _ in archive.read(place, (3, 4, 4), 2, 1):
            pass

    return Target(st.one_of(mutated(seeds), mutated([x]).map(packed)), read)


def keys(bundle: Path, folder: Path) -> Target:
    """Lists of trusted keys."""
    del bundle
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    seeds = [pem, public.public_bytes_raw().hex().encode() + b"  someone\n# a comment\n\n" + pem]
    place = folder / "trusted_keys"

    def read(content: bytes) -> None:
        place.write_bytes(content)
        place.chmod(0o600)
        trust.read_keys(place)

    return Target(mutated(seeds), read)


TARGETS: dict[str, Callable[[Path, Path], Target]] = {
    "manifest": manifest,
    "safetensors": safetensors,
    "image": image,
    "npz": npz,
    "keys": keys,
}
