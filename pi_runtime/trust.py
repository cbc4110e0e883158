"""Whose bundles are accepted: Ed25519 signatures of manifest.json, by keys that the device's owner lists."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from pi_runtime.errors import ClueError
from pi_runtime.files import read_small
from pi_runtime.receipts.signing import is_signed_ed25519

SIGNATURE = "manifest.sig"
LIST = "trusted_keys"
SYSTEM_LIST = Path("/etc/clue-pi") / LIST
_SIGNATURE_BYTES = 64
_MAX_LIST = 1 << 20
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def lists(*folders: Path | None) -> list[Path]:
    """The lists that hold unasked: the system's and those in the folders, where they exist."""
    places = [SYSTEM_LIST, *(folder / LIST for folder in folders if folder is not None)]
    return [place for place in places if os.path.lexists(place)]


def read_keys(path: Path) -> list[bytes]:
    """The public keys of a list, 32 bytes each.

    A list is a text: Ed25519 public keys in PEM, or lines that begin with 64 hexadecimal digits; empty lines
    and lines that begin with # are skipped. Raises ClueError for anything else, for no key at all, and for a
    list that others than its owner may write to.
    """
    content = read_small(path, _MAX_LIST)
    if stat.S_IMODE(path.stat().st_mode) & 0o022:
        raise ClueError(f"others may write to the list of trusted keys {path}: chmod go-w it")
    keys = [_from_pem(path, block) for block in _PEM.findall(content)]
    for line in _PEM.sub(b"", content).splitlines():
        word = line.split()[0] if line.split() else b""
        if not word or word.startswith(b"#"):
            continue
        if not re.fullmatch(rb"[0-9a-fA-F]{64}", word):
            raise ClueError(
                f"{path} is no list of public keys: write Ed25519 keys in PEM or as 64 hexadecimal digits"
            )
        keys.append(bytes.fromhex(word.decode()))
    if not keys:
        raise ClueError(f"{path} has no public key")
    return keys


def _from_pem(path: Path, block: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ClueError(f"{path} has a public key that cannot be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ClueError(f"{path} has a public key that is not Ed25519")
    return key.public_bytes_raw()


def check(bundle: Path, manifest: bytes, trusted: Sequence[Path]) -> None:
    """Raise ClueError unless each list has a key that the manifest was signed with; no lists, no check."""
    if not trusted:
        return
    keys = {path: read_keys(path) for path in trusted}
    place = bundle / SIGNATURE
    if not os.path.lexists(place):
        raise ClueError(
            f"bundle {bundle} is not signed, and only signed ones are trusted here ({_named(trusted)})"
        )
    signature = read_small(place, _SIGNATURE_BYTES)
    for path, known in keys.items():
        if not any(is_signed_ed25519(manifest, signature, key) for key in known):
            raise ClueError(
                f"bundle {bundle} is not signed by a trusted key, or was changed after it was signed "
                f"({_named([path])})"
            )


def _named(paths: Sequence[Path]) -> str:
    return "listed in " + ", ".join(str(path) for path in paths)
